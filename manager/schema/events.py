"""The codec between a sandbox's events and its stream in the log.

``encode_event`` gives the log's ``type`` column and its JSON payload, ``decode_event`` reads them
back; what was written by any version of this program decodes for ever.
"""

from collections.abc import Mapping
from typing import Final

from manager.domain.events import Event
from manager.schema.codec import EventCodec, MalformedEvent, UnknownEventType, Upcaster

__all__ = [
    "EVENT_TYPES",
    "UPCASTERS",
    "MalformedEvent",
    "UnknownEventType",
    "decode_event",
    "encode_event",
]

UPCASTERS: Final[Mapping[str, Upcaster]] = {}
"""For each retired tag, how to read it today. A changed meaning is a new tag and an entry here."""

_codec: Final[EventCodec[Event]] = EventCodec(Event, UPCASTERS)

EVENT_TYPES: Final[Mapping[str, type[Event]]] = _codec.types
"""Every tag that a sandbox's stream may hold."""

encode_event = _codec.encode
decode_event = _codec.decode
