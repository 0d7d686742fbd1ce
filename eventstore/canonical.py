"""The bytes of an event that its leaf hash is taken over; ``docs/log-format.md`` explains them.

::

    canonical = "sandtrail-event-v1" LF  field*
    field     = 0x00                              absent
              | 0x01  length  bytes               length: 4 bytes, most significant first

Fields in order: position, stream, version, type, event_id, recorded_at_ns, correlation_id,
causation, actor, data, then one for the digest of each document. Integers are decimal ASCII, text
is UTF-8, ``actor`` and ``data`` are the JSON text as stored. Every field says how long it is, so
two different events never have the same bytes.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

from eventstore.envelope import Actor, RecordedEvent

DOMAIN: Final = b"sandtrail-event-v1\n"
ABSENT: Final = b"\x00"
PRESENT: Final = b"\x01"
LENGTH_BYTES: Final = 4
LEAF_PREFIX: Final = b"\x00"
"""Keeps a leaf from being taken for an inner node. Source: RFC 6962, section 2.1."""

_encode_json = msgspec.json.Encoder().encode


def actor_json(actor: Actor) -> bytes:
    """The actor as stored: ``{"uid":0,"gid":0,"pid":1}``, members in this order, no spaces."""
    return _encode_json(actor)


def canonical_bytes(record: RecordedEvent) -> bytes:
    """Encode one event; its ``leaf_hash`` takes no part."""
    fields: list[bytes | None] = [
        b"%d" % record.position,
        record.stream.encode(),
        b"%d" % record.version,
        record.type.encode(),
        record.event_id.encode(),
        b"%d" % record.recorded_at_ns,
        None if record.correlation_id is None else record.correlation_id.encode(),
        None if record.causation is None else b"%d" % record.causation,
        None if record.actor is None else actor_json(record.actor),
        record.data,
    ]
    if record.documents:
        fields += [digest.encode() for digest in record.documents]
    return encode_fields(fields)


def encode_fields(fields: Iterable[bytes | None]) -> bytes:
    """Encode the fields of an event, which come in their order, as they are stored."""
    parts = [DOMAIN]
    for content in fields:
        if content is None:
            parts.append(ABSENT)
        else:
            length = len(content)
            parts.append(_HEADERS[length] if length < _HEADERS_COUNT else _header(length))
            parts.append(content)
    return b"".join(parts)


def _header(length: int) -> bytes:
    return PRESENT + length.to_bytes(LENGTH_BYTES, "big")


_HEADERS_COUNT: Final = 256
_HEADERS: Final = tuple(_header(length) for length in range(_HEADERS_COUNT))
"""Of nearly every field there is: making one anew costs a third of the encoding."""


def leaf_hash(record: RecordedEvent) -> bytes:
    """What the leaf hash of a record must be, whatever the record says it is: 32 bytes.

    Source: RFC 6962, section 2.1.
    """
    return hash_leaf(canonical_bytes(record))


def hash_leaf(canonical: bytes) -> bytes:
    """The leaf hash over the canonical bytes of an event."""
    return hashlib.sha256(LEAF_PREFIX + canonical).digest()
