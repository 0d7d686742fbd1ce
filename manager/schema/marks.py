"""The marks that a log has."""

from typing import Final

from msgspec import Struct

from eventstore import Actor, EventLog, ReadOptions, RecordedEvent
from manager.domain.mark import MarkAdded, MarkEvent, MarkRejected
from manager.schema.codec import EventFormatError, tag_of
from manager.schema.node_events import NODE_STREAM, decode_node_event

ADDED: Final = tag_of(MarkAdded)
MARK_TYPES: Final = (ADDED, tag_of(MarkRejected))


class Mark(Struct, frozen=True, kw_only=True):
    """A name for a point of the log.

    Attributes:
        name: The name.
        at: The position that it stands for.
        position: Where the mark itself is recorded.
        recorded_at_ns: When it was.
        message: What its maker had to say.
        actor: Who that was.
    """

    name: str
    at: int
    position: int
    recorded_at_ns: int
    message: str = ""
    actor: Actor | None = None


async def read_marks(log: EventLog, *, until: int | None = None) -> dict[str, Mark]:
    """The marks by name, the oldest first.

    Args:
        log: The log, of a service that runs or a copy.
        until: The last position to look at; the head if absent.

    Raises:
        EventStoreError: The log cannot be read.
        EventFormatError: A mark is damaged; the text names it.
    """
    how = ReadOptions(types=(ADDED,))
    if until is not None:
        how["until"] = until
    found: dict[str, Mark] = {}
    async for record in log.read(NODE_STREAM, **how):
        event = mark_event(record)
        assert isinstance(event, MarkAdded), "asked for by its tag"
        found.setdefault(event.name, _mark(event, record))
    return found


def mark_event(record: RecordedEvent) -> MarkEvent | None:
    """What a record of the node's stream says of a mark; ``None`` if it is about something else.

    Raises:
        EventFormatError: It is damaged.
    """
    if record.type not in MARK_TYPES:
        return None
    try:
        event = decode_node_event(record.type, record.data)
    except EventFormatError as error:
        raise error.at(record.position) from None
    return event if isinstance(event, MarkAdded | MarkRejected) else None


def _mark(event: MarkAdded, record: RecordedEvent) -> Mark:
    return Mark(
        name=event.name,
        at=event.at or record.position,
        position=record.position,
        recorded_at_ns=record.recorded_at_ns,
        message=event.message,
        actor=record.actor,
    )
