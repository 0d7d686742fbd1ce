"""Recorded decisions: which of a stream's events were decided together, and on what command.

A sandbox's stream holds nothing but what was decided, each decision's events one after the other.
"""

from collections.abc import AsyncIterator, Sequence
from itertools import zip_longest
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from eventstore import RecordedEvent
from manager.domain import commands as c
from manager.domain import events as e
from manager.domain import restore_events as r
from manager.domain.decide import decide
from manager.domain.events import Event
from manager.domain.state import Sandbox
from manager.schema.node_fold import decode_record
from replay.commands import commands_of
from replay.facts import FactMissing, FactReader, Facts

LOOK_AHEAD_FIRST: Final = 4
"""How many events are looked at first: most decisions have fewer."""
LOOK_AHEAD_EVENTS: Final = 1024
"""No decision has more: APPEND_EVENTS_MAX of the log."""

HAVE_INTENTS: Final[frozenset[type[Event]]] = frozenset(
    {e.SandboxCreated, e.ContainerStartAccepted, r.ContainerRestoreAccepted}
)


class Decision(Struct, frozen=True, kw_only=True):
    """One decision as it was recorded.

    Attributes:
        sandbox: Whose it is.
        records: What the log has of it, one or more.
        events: What they say.
        command: What it was decided on; ``None`` if that cannot be told, see ``missing``.
        facts: What it was decided on beside the state.
        explained: Whether today's rules decide on ``command`` what was recorded.
        missing: What is not in the log.
    """

    sandbox: str
    records: tuple[RecordedEvent, ...]
    events: tuple[Event, ...]
    command: c.Command | None
    facts: Facts = Facts()
    explained: bool = False
    missing: str = ""


class Ahead:
    """The records that come next, as many as a decision can have; each is decoded once.

    Args:
        records: In the order of the log.
    """

    def __init__(self, records: AsyncIterator[RecordedEvent]) -> None:
        self._records = records
        self._buffer: list[RecordedEvent] = []
        self._events: dict[int, Event] = {}
        self._begin = 0
        self._ended = False

    async def fill(self) -> bool:
        """Read on; whether there is anything left."""
        if len(self._buffer) - self._begin < LOOK_AHEAD_EVENTS and not self._ended:
            del self._buffer[: self._begin]
            self._begin = 0
            async for record in self._records:
                self._buffer.append(record)
                if len(self._buffer) >= 2 * LOOK_AHEAD_EVENTS:
                    return True
            self._ended = True
        return self._begin < len(self._buffer)

    @property
    def first(self) -> RecordedEvent:
        """The next record."""
        return self._buffer[self._begin]

    def take_together(self) -> list[RecordedEvent]:
        """The next record and what was appended with it, as far as anybody can tell, dealt with."""
        buffer, begin = self._buffer, self._begin
        end = begin + 1
        while end < len(buffer) and appended_together(buffer[end], buffer[begin]):
            end += 1
        records = buffer[begin:end]
        self.drop(end - begin)
        return records

    def peek(self, count: int) -> list[RecordedEvent]:
        """The next records, up to ``count``, as far as they are of one stream."""
        buffer, stream = self._buffer, self.first.stream
        last = min(self._begin + count, len(buffer))
        end = self._begin + 1
        while end < last and buffer[end].stream == stream:
            end += 1
        return buffer[self._begin : end]

    def events(self, records: Sequence[RecordedEvent]) -> tuple[Event, ...]:
        """What records of a sandbox's stream say.

        Raises:
            EventFormatError: An event is of a newer program, or damaged; the text names it.
        """
        return tuple(map(self._event, records))

    def _event(self, record: RecordedEvent) -> Event:
        event = self._events.get(record.position)
        if event is None:
            event = self._events[record.position] = decode_record(record)
        return event

    def drop(self, count: int) -> None:
        """These are dealt with."""
        if self._events:
            for record in self._buffer[self._begin : self._begin + count]:
                self._events.pop(record.position, None)
        self._begin += count


def appended_together(record: RecordedEvent, other: RecordedEvent) -> bool:
    """Whether two neighbours in the log were appended at once, as far as anybody can tell."""
    return (
        record.stream == other.stream
        and record.recorded_at_ns == other.recorded_at_ns
        and record.correlation_id == other.correlation_id
        and record.causation == other.causation
    )


async def next_decision(
    ahead: Ahead, facts: FactReader, before: Sandbox, sandbox_id: str
) -> Decision:
    """The decision that the next records begin with.

    Args:
        ahead: The records.
        facts: What was learnt up to them.
        before: The sandbox before them.
        sandbox_id: Its id.

    Raises:
        EventStoreError: The log cannot be read.
        EventFormatError: An event is of a newer program, or damaged; the text names it.
    """
    records = ahead.peek(LOOK_AHEAD_FIRST)
    found = await decision_of(facts, before, sandbox_id, records, ahead.events(records))
    if found.explained or len(records) < LOOK_AHEAD_FIRST:
        return found
    records = ahead.peek(LOOK_AHEAD_EVENTS)
    return await decision_of(facts, before, sandbox_id, records, ahead.events(records))


async def decision_of(
    facts: FactReader,
    before: Sandbox,
    sandbox_id: str,
    records: Sequence[RecordedEvent],
    events: tuple[Event, ...],
) -> Decision:
    """Find the command that the first events came of, and how many of them it explains."""
    try:
        known = await facts.of(before, events[:2])
        first: c.Command | None = None
        for command in commands_of(before, sandbox_id, events, known):
            first = first or command
            decided = decide(before, command)
            count = len(decided)
            if count and like(decided, events) == events[:count]:
                return Decision(
                    sandbox=sandbox_id,
                    records=tuple(records[:count]),
                    events=events[:count],
                    command=command,
                    facts=known,
                    explained=True,
                )
        missing = "" if first is not None else "what led to an event of this type"
    except FactMissing as problem:
        first, known, missing = None, Facts(), str(problem)
    count = _together(records)
    return Decision(
        sandbox=sandbox_id,
        records=tuple(records[:count]),
        events=events[:count],
        command=first,
        facts=known,
        missing=missing,
    )


def _together(records: Sequence[RecordedEvent]) -> int:
    count = 1
    while count < len(records) and appended_together(records[count], records[0]):
        count += 1
    return count


def like(decided: tuple[Event, ...], recorded: Sequence[Event]) -> tuple[Event, ...]:
    """What was decided now, with what the log's masked environment cannot give taken from then."""
    if not any(type(event) in HAVE_INTENTS for event in decided):
        return decided
    then = zip_longest(decided, recorded[: len(decided)])
    return tuple(_with_search_path(now, before) for now, before in then)


def _with_search_path(now: Event, then: Event | None) -> Event:
    if isinstance(
        now, e.SandboxCreated | e.ContainerStartAccepted | r.ContainerRestoreAccepted
    ) and isinstance(then, type(now)):
        path = then.intent.search_path
        if path != now.intent.search_path:
            return replace(now, intent=replace(now.intent, search_path=path))
    return now
