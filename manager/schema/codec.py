"""Events to and from the bytes of the log: one codec class, one instance per family of streams.

The log keeps an event's tag in its own column, so the payload is the JSON of the event without it.
Reading is strict about the tag and the kind of each member and lenient about members that it does
not know: a newer program may have added some.

::

    EventFormatError
    ├── UnknownEventType(tag)            written by a newer program: read with that one
    └── MalformedEvent(tag, problem)     the payload is not what the tag promises: audit the log
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Generic, Self, TypeAlias, TypeVar, get_args

import msgspec

T = TypeVar("T", bound=msgspec.Struct)

Payload: TypeAlias = dict[str, Any]
Upcaster: TypeAlias = Callable[[Payload], tuple[str, Payload]]
"""From the payload under a retired tag to the tag and payload that say the same today."""

TAG_FIELD: Final = "type"
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class EventFormatError(Exception):
    """Root of everything that reading an event raises.

    Attributes:
        position: Where in the log the event is, if that is known.
    """

    position: int | None = None

    def at(self, position: int) -> Self:
        """Say where in the log the event is."""
        self.position = position
        self.args = (f"#{position}: {self}",)
        return self


class UnknownEventType(EventFormatError):  # noqa: N818 - the tag is unknown, nothing is broken
    """No event of this program has that tag; a newer program will know it."""

    def __init__(self, tag: str) -> None:
        super().__init__(f"unknown event type {tag!r}: a newer version wrote it, read it with that")
        self.tag = tag


class MalformedEvent(EventFormatError):  # noqa: N818 - likewise
    """The payload is not what the tag promises; the log was changed, or a writer is broken."""

    def __init__(self, tag: str, problem: str) -> None:
        super().__init__(f"malformed payload of event type {tag!r}: {problem}")
        self.tag = tag
        self.problem = problem


class EventCodec(Generic[T]):
    """Encodes and decodes the members of one union of tagged structs.

    Args:
        union: The union; every member is a struct with an explicit tag.
        upcasters: For each retired tag, how to read it today.
    """

    def __init__(self, union: object, upcasters: Mapping[str, Upcaster] | None = None) -> None:
        members = tuple(get_args(union)) or (union,)
        self.types: Final[Mapping[str, type[T]]] = MappingProxyType(
            {tag_of(member): member for member in members}
        )
        self._upcasters = dict(upcasters or {})
        self._encode = msgspec.json.Encoder().encode
        self._decoders = {
            tag: msgspec.json.Decoder(member).decode for tag, member in self.types.items()
        }
        self._members_at = {member: _members_at(member) for member in members}

    def encode(self, event: T) -> tuple[str, bytes]:
        """Return the tag and the JSON object of everything else, members in declared order."""
        member = type(event)
        return tag_of(member), b"{" + self._encode(event)[self._members_at[member] :]

    def decode(self, tag: str, data: bytes) -> T:
        """Read one event.

        Raises:
            UnknownEventType: No event has that tag; stop, or go on and say so.
            MalformedEvent: The payload does not fit the tag; stop and audit the log.
        """
        decoder = self._decoders.get(tag)
        if decoder is None:
            return self._decode_retired(tag, data)
        try:
            return decoder(data)
        except _UNREADABLE as error:
            raise MalformedEvent(tag, str(error)) from error

    def _decode_retired(self, tag: str, data: bytes) -> T:
        upcast = self._upcasters.get(tag)
        if upcast is None:
            raise UnknownEventType(tag)
        try:
            payload = msgspec.json.decode(data, type=Payload)
            today, payload = upcast(payload)
        except (*_UNREADABLE, LookupError) as error:
            raise MalformedEvent(tag, str(error)) from error
        return self.decode(today, self._encode(payload))


def tag_of(member: type[msgspec.Struct]) -> str:
    """The explicit tag of an event class."""
    tag = member.__struct_config__.tag
    if not isinstance(tag, str):
        raise TypeError(f"{member.__name__} must have an explicit tag")
    return tag


def _members_at(member: type[msgspec.Struct]) -> int:
    """Where the first member, or the closing brace, stands in ``{"type":"TAG","member":...}``."""
    only_tag = len(msgspec.json.encode({TAG_FIELD: tag_of(member)})) - len("}")
    return only_tag + len(",") if member.__struct_fields__ else only_tag
