"""Taking recorded decisions once more, with the code of today and what the log kept of then.

A sandbox's stream holds nothing but what was decided, each decision's events one after the other.
So the walk goes: from the next events make the command (:mod:`replay.commands`), decide on it in
the state before them, compare, fold what was recorded, go on.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import takewhile, zip_longest
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct, to_builtins
from msgspec.structs import replace

from eventstore import RecordedEvent
from manager.domain import commands as c
from manager.domain import events as e
from manager.domain import restore_events as r
from manager.domain.decide import decide
from manager.domain.events import Event
from manager.domain.evolve import fold as fold_events
from manager.domain.mark import MarkAdded, MarkEvent, MarkRejected
from manager.domain.state import ABSENT, Sandbox
from manager.schema.node_events import decode_node_event
from manager.schema.node_fold import STREAM_PREFIX, NodeFold, decode_record
from manager.schema.node_snapshot import node_snapshots, open_fold, recall
from replay.commands import commands_of
from replay.difference import Difference, differences
from replay.facts import FactMissing, FactReader, Facts
from replay.redecide_marks import MarksAgain
from replay.rule_place import place_of
from replay.selection import container_of, payload
from replay.settings import Settings, apply_settings
from replay.trail import Trail, Window

Verdict: TypeAlias = Literal[
    "same", "narrowed", "widened", "reason", "different", "moot", "unreplayable"
]
Decided: TypeAlias = Event | MarkEvent
LOOK_AHEAD_FIRST: Final = 8
"""How many events are looked at first: most decisions have fewer."""
LOOK_AHEAD_EVENTS: Final = 1024
"""No decision has more: APPEND_EVENTS_MAX of the log."""
AS_RECORDED: Final = Settings()
DIFFERENCES_MAX: Final = 20


class Redecision(Struct, frozen=True, kw_only=True):
    """One decision, as it was recorded and as it would be now.

    Attributes:
        position: Of its first event, whose ``type`` and ``container`` these are.
        sandbox: Of which sandbox it was.
        asked: Whether a client asked for it; else it is what a report of the worker led to.
        verdict: ``same``; ``narrowed`` (allowed then, refused now); ``widened`` (the reverse);
            ``reason`` (refused both times, in other words); ``different`` (allowed both times, with
            other events); ``moot`` (what it is about did not happen); ``unreplayable``.
        recorded: The refusal's text then, empty if it was allowed.
        now: The same now; for ``unreplayable``, what is missing.
        rule: Where in the code the words of now come from.
        fields: In what the events differ, the first DIFFERENCES_MAX.
    """

    position: int
    sandbox: str
    container: str
    type: str
    asked: bool
    verdict: Verdict
    recorded: str = ""
    now: str = ""
    rule: str = ""
    fields: tuple[Difference, ...] = ()


class _Group(Struct, frozen=True, kw_only=True):
    """The records of one decision, and the command that they came of."""

    records: tuple[RecordedEvent, ...]
    events: tuple[Event, ...]
    command: c.Command | None
    facts: Facts = Facts()
    explained: bool = False
    missing: str = ""


def check(trail: Trail, window: Window) -> AsyncIterator[Redecision]:
    """Take every decision of a window again, as it was; see :func:`redecide`."""
    return redecide(trail, window)


async def whatif(
    trail: Trail, window: Window, settings: Settings, *, cascade: bool = False
) -> AsyncIterator[Redecision]:
    """Take what clients asked for in a window again, under other settings; raises as below."""
    async for found in redecide(trail, window, settings, cascade=cascade):
        if found.asked:
            yield found


async def redecide(
    trail: Trail, window: Window, settings: Settings = AS_RECORDED, *, cascade: bool = False
) -> AsyncIterator[Redecision]:
    """Take every decision of a window again, in the order of the log.

    Args:
        trail: The log.
        window: Where the decisions begin.
        settings: What would have been otherwise.
        cascade: Go on with what would have been decided, instead of what was recorded.

    Raises:
        EventStoreError: The log cannot be read.
        EventFormatError: An event is of a newer program, or damaged; the text names it.
    """
    walk = _Walk(trail, settings, cascade=cascade)
    await walk.begin(window)
    if window.count:
        ahead = _Ahead(trail.log.read(after=window.first - 1, until=window.last))
        while await ahead.fill():
            found = await walk.take(ahead)
            if found is not None:
                yield found


class _Ahead:
    """The records that come next, as many as a decision can have."""

    def __init__(self, records: AsyncIterator[RecordedEvent]) -> None:
        self._records = records
        self._buffer: list[RecordedEvent] = []
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

    def peek(self, count: int) -> list[RecordedEvent]:
        """The next records, up to ``count``, as far as they are of one stream."""
        found = self._buffer[self._begin : self._begin + count]
        stream = found[0].stream
        return list(takewhile(lambda record: record.stream == stream, found))

    def drop(self, count: int) -> None:
        """These are dealt with."""
        self._begin += count


class _Walk:
    def __init__(self, trail: Trail, settings: Settings, *, cascade: bool) -> None:
        self._trail = trail
        self._settings = settings
        self._cascade = cascade
        self._facts = FactReader(trail.log)
        self._marks = MarksAgain()
        self._fold = NodeFold()
        self._instead: dict[str, Sandbox] = {}

    async def begin(self, window: Window) -> None:
        snapshots = node_snapshots(self._trail.path.parent)
        self._fold = await open_fold(self._trail.log, snapshots, until=window.first - 1)
        await self._facts.catch_up(window.first - 1)
        await self._marks.catch_up(self._trail.log, window.first - 1)

    async def take(self, ahead: _Ahead) -> Redecision | None:
        """Take the next decision again; ``None`` for what was not decided."""
        (record,) = ahead.peek(1)
        if record.stream.startswith(STREAM_PREFIX):
            return await self._take_sandbox(ahead, record)
        ahead.drop(1)
        self._facts.learn(record)
        event = decode_node_event(record.type, record.data)
        self._fold.apply(record)
        if isinstance(event, MarkAdded | MarkRejected):
            return self._mark(record, event)
        if not isinstance(event, e.SandboxCreateRejected):
            return None
        group = await self._group(ABSENT, event.sandbox, [record], (event,))
        return self._judge(group, ABSENT, event.sandbox)

    def _mark(self, record: RecordedEvent, recorded: MarkEvent) -> Redecision:
        now, place = self._marks.decide(recorded, record)
        found = Redecision(
            position=record.position,
            sandbox="",
            container="",
            type=record.type,
            asked=True,
            verdict="same",
            recorded=refusal_of((recorded,)),
        )
        return _differing(found, (recorded,), () if now is None else (now,), place)

    async def _take_sandbox(self, ahead: _Ahead, first: RecordedEvent) -> Redecision:
        sandbox_id = first.stream.removeprefix(STREAM_PREFIX)
        await recall(self._fold, self._trail.log, first)
        before = self._fold.known(sandbox_id).state
        group = await self._ahead_group(ahead, before, sandbox_id, LOOK_AHEAD_FIRST)
        if not group.explained:
            group = await self._ahead_group(ahead, before, sandbox_id, LOOK_AHEAD_EVENTS)
        for record in group.records:
            self._fold.apply(record)
        ahead.drop(len(group.records))
        return self._judge(group, before, sandbox_id)

    async def _ahead_group(
        self, ahead: _Ahead, before: Sandbox, sandbox_id: str, count: int
    ) -> _Group:
        records = ahead.peek(count)
        return await self._group(before, sandbox_id, records, tuple(map(decode_record, records)))

    async def _group(
        self,
        state: Sandbox,
        sandbox_id: str,
        records: Sequence[RecordedEvent],
        events: tuple[Event, ...],
    ) -> _Group:
        """Find the command that the first events came of, and how many of them it explains."""
        try:
            facts = await self._facts.of(state, events[:2])
            first: c.Command | None = None
            for command in commands_of(state, sandbox_id, events, facts):
                first = first or command
                decided = decide(state, command)
                count = len(decided)
                if count and _like(decided, events) == events[:count]:
                    return _Group(
                        records=tuple(records[:count]),
                        events=events[:count],
                        command=command,
                        facts=facts,
                        explained=True,
                    )
            missing = "" if first is not None else "what led to an event of this type"
        except FactMissing as problem:
            first, facts, missing = None, Facts(), str(problem)
        count = _together(records)
        return _Group(
            records=tuple(records[:count]),
            events=events[:count],
            command=first,
            facts=facts,
            missing=missing,
        )

    def _judge(self, group: _Group, before: Sandbox, sandbox_id: str) -> Redecision:
        instead = self._instead.get(sandbox_id, before)
        record, command = group.records[0], group.command
        recorded = refusal_of(group.events)
        found = Redecision(
            position=record.position,
            sandbox=sandbox_id,
            container=container_of(record, payload(record)),
            type=record.type,
            asked=not type(command).__name__.startswith("Report"),
            verdict="same",
            recorded=recorded,
        )
        if command is None:
            return self._unreplayable(found, group, group.missing)
        if group.explained and not self._settings.changes_anything:
            return found
        try:
            state, changed = apply_settings(
                self._settings, instead if self._cascade else before, command, group.facts
            )
        except FactMissing as problem:
            return self._unreplayable(found, group, str(problem))
        now = _like(decide(state, changed), group.events)
        if self._cascade:
            self._instead[sandbox_id] = fold_events(now, instead)
        return self._compared(found, group, now, (state, changed))

    def _unreplayable(self, found: Redecision, group: _Group, why: str) -> Redecision:
        """What cannot be taken again stands as it was recorded."""
        if self._cascade and found.sandbox in self._instead:
            after = fold_events(group.events, self._instead[found.sandbox])
            self._instead[found.sandbox] = after
        return replace(found, verdict="unreplayable", now=why)

    def _compared(
        self,
        found: Redecision,
        group: _Group,
        now: tuple[Event, ...],
        decision: tuple[Sandbox, c.Command],
    ) -> Redecision:
        text = refusal_of(now)
        if now == group.events:
            return found
        if now and text == found.recorded and self._settings.changes_anything:
            return found  # what differs are facts of the setting, not the answer
        place = place_of(text, lambda: decide(*decision)) if text else ""
        return _differing(found, group.events, now, place)


def _differing(
    found: Redecision, then: Sequence[Decided], now: Sequence[Decided], place: str
) -> Redecision:
    """How a decision differs from what was recorded, if it does."""
    if tuple(now) == tuple(then):
        return found
    if not now:
        return replace(found, verdict="moot")
    text = refusal_of(now)
    verdict: Verdict = "different"
    if bool(text) != bool(found.recorded):
        verdict = "narrowed" if text else "widened"
    elif text != found.recorded:
        verdict = "reason"
    fields = differences(_shown(then), _shown(now))
    return replace(
        found,
        verdict=verdict,
        now=text,
        rule=place,
        fields=tuple(each for each, _ in zip(fields, range(DIFFERENCES_MAX), strict=False)),
    )


def refusal_of(events: Iterable[Decided]) -> str:
    """The text by which a decision refuses or fails a call; empty if it does not."""
    for event in events:
        match event:
            case r.RestoreValidated(error=error) | r.SandboxRestoreFailed(error=error) if error:
                return error
            case (
                e.SandboxCreateRejected(error=error)
                | e.SandboxStartRejected(error=error)
                | e.SandboxDeleteRejected(error=error)
                | e.SandboxPauseRejected(error=error)
                | e.ContainerCreateRejected(error=error)
                | e.ContainerStartRejected(error=error)
                | e.ContainerSignalRejected(error=error)
                | e.ContainerDestroyRejected(error=error)
                | e.ProcessExecRejected(error=error)
                | e.RestoreRejected(error=error)
                | e.ContainerRestoreRejected(error=error)
                | r.SandboxCheckpointRejected(error=error)
                | MarkRejected(error=error)
            ):
                return error or "refused"
    return ""


def _together(records: Sequence[RecordedEvent]) -> int:
    """How many records were appended with the first, as far as anybody can tell."""
    first = records[0]
    mark = (first.recorded_at_ns, first.correlation_id, first.causation)
    count = 1
    while count < len(records) and mark == (
        records[count].recorded_at_ns,
        records[count].correlation_id,
        records[count].causation,
    ):
        count += 1
    return count


def _like(decided: tuple[Event, ...], recorded: Sequence[Event]) -> tuple[Event, ...]:
    """What was decided now, with what the log's masked environment cannot give taken from then."""
    then = zip_longest(decided, recorded[: len(decided)])
    return tuple(_with_search_path(now, before) for now, before in then)


def _with_search_path(now: Event, then: Event | None) -> Event:
    if isinstance(
        now, e.SandboxCreated | e.ContainerStartAccepted | r.ContainerRestoreAccepted
    ) and isinstance(then, type(now)):
        path = then.intent.search_path
        return replace(now, intent=replace(now.intent, search_path=path))
    return now


def _shown(events: Iterable[Decided]) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = to_builtins(list(events))
    return shown
