"""Taking recorded decisions once more, with the code of today and what the log kept of then.

Which events are one decision, and on what it was taken, is for :mod:`replay.decisions`.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

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
from manager.schema.node_fold import STREAM_PREFIX, UNKNOWN, NodeFold, decode_record
from manager.schema.node_snapshot import node_snapshots, open_fold, recall
from manager.schema.state_check import StateWatch
from replay.decisions import (
    LOOK_AHEAD_EVENTS,
    Ahead,
    Decision,
    appended_together,
    decision_of,
    like,
    next_decision,
)
from replay.difference import Difference, differences
from replay.facts import FactMissing, FactReader
from replay.reach import REPORTED, Reach, origin_of
from replay.redecide_marks import MarksAgain
from replay.rule_place import place_of
from replay.selection import container_of, payload, sandbox_of
from replay.settings import Settings, apply_settings
from replay.trail import Trail, Window

Verdict: TypeAlias = Literal[
    "same", "narrowed", "widened", "reason", "different", "moot", "unreplayable"
]
Decided: TypeAlias = Event | MarkEvent
AS_RECORDED: Final = Settings()
DIFFERENCES_MAX: Final = 20
REPORTS: Final = frozenset(get_args(c.Report))
REFUSALS: Final = ("_rejected", "restore.validated", "sandbox.restore_failed")
"""How the types end of events that may have the text of a refusal."""


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


def check(
    trail: Trail, window: Window, watch: StateWatch | None = None
) -> AsyncIterator[Redecision]:
    """Take every decision of a window again, as it was; see :func:`redecide`.

    ``watch`` compares the states on the way; :meth:`StateWatch.found` has what came of it.
    """
    return _Walk(trail, AS_RECORDED, watch=watch).over(window)


async def whatif(
    trail: Trail,
    window: Window,
    settings: Settings,
    *,
    cascade: bool = False,
    every: bool = False,
) -> AsyncIterator[Redecision]:
    """Take what clients asked for in a window again, under other settings; raises as below.

    A decision that the settings cannot reach, see :mod:`replay.reach`, stands as it was recorded:
    ``same``. Whether today's code still decides so is what :func:`check` asks; with ``every``, or
    ``cascade``, or without a setting, it is asked here, too.
    """
    narrow = settings.changes_anything and not cascade and not every
    walk = _Walk(trail, settings, cascade=cascade, narrow=narrow)
    async for found in walk.over(window):
        if found.asked:
            yield found


def redecide(
    trail: Trail, window: Window, settings: Settings = AS_RECORDED, *, cascade: bool = False
) -> AsyncIterator[Redecision]:
    """Take every decision of a window again, in the order of the log.

    Args:
        trail: The log.
        window: Where the decisions begin; one that began before it is left out.
        settings: What would have been otherwise.
        cascade: Go on with what would have been decided, instead of what was recorded.

    Raises:
        EventStoreError: The log cannot be read.
        EventFormatError: An event is of a newer program, or damaged; the text names it.
    """
    return _Walk(trail, settings, cascade=cascade).over(window)


class _Walk:
    """One pass over a window.

    From the next events it makes the command, decides on it in the state before them, compares,
    folds what was recorded, and goes on. If it is ``narrow`` it does so only where the settings
    reach, and folds only the sandboxes of which it needs the state.
    """

    def __init__(
        self,
        trail: Trail,
        settings: Settings,
        *,
        cascade: bool = False,
        narrow: bool = False,
        watch: StateWatch | None = None,
    ) -> None:
        self._trail = trail
        self._settings = settings
        self._cascade = cascade
        self._narrow = narrow
        self._watch = watch or StateWatch()
        self._reach = Reach(settings)
        self._facts = FactReader(trail.log)
        self._marks = MarksAgain()
        self._fold = NodeFold()
        self._instead: dict[str, Sandbox] = {}

    async def over(self, window: Window) -> AsyncIterator[Redecision]:
        """What comes of each decision that begins in the window."""
        if not window.count:
            return
        await self._begin(window.first - 1)
        await self._watch.begin(self._fold, window.last)
        until = window.last + LOOK_AHEAD_EVENTS
        ahead = Ahead(self._trail.log.read(after=window.first - 1, until=until))
        before = await self._trail.record(window.first - 1)
        if before is not None and not before.stream.startswith(STREAM_PREFIX):
            before = None  # each of the node's events was decided alone
        while await ahead.fill() and ahead.first.position <= window.last:
            if before is not None and appended_together(ahead.first, before):
                await self._pass_over(ahead)
                continue
            before = None
            found = await self._take(ahead)
            if found is not None:
                yield found

    async def _begin(self, position: int) -> None:
        if not self._narrow:
            snapshots = node_snapshots(self._trail.path.parent)
            self._fold = await open_fold(self._trail.log, snapshots, until=position)
        await self._facts.catch_up(position)
        await self._marks.catch_up(self._trail.log, position)

    async def _take(self, ahead: Ahead) -> Redecision | None:
        """Take the next decision again; ``None`` for what was not decided, or is not wanted."""
        record = ahead.first
        if not record.stream.startswith(STREAM_PREFIX):
            return await self._take_of_node(ahead, record)
        if self._narrow and record.type in REPORTED:
            await self._pass_over(ahead)
            return None
        if self._narrow:
            data = payload(record)
            origin = origin_of(record.type, data)
            if origin != "unclear" and self._reach.leaves(record.type, data):
                records = await self._pass_over(ahead)
                return _standing(records, data) if origin == "client" else None
        return await self._take_of_sandbox(ahead, record)

    async def _pass_over(self, ahead: Ahead) -> Sequence[RecordedEvent]:
        """Take what was appended together, and fold it if the state is needed."""
        records = ahead.take_together()
        sandbox_id = sandbox_of(records[0])
        if not self._narrow or self._fold.known(sandbox_id) is not UNKNOWN:
            for record in records:
                await self._apply(record)
        return records

    async def _apply(self, record: RecordedEvent, event: Event | None = None) -> None:
        self._fold.apply(record, event)
        if record.position >= self._watch.due:
            await self._watch.compare()

    async def _take_of_node(self, ahead: Ahead, record: RecordedEvent) -> Redecision | None:
        ahead.drop(1)
        self._facts.learn(record)
        event = decode_node_event(record.type, record.data)
        await self._apply(record)
        if isinstance(event, MarkAdded | MarkRejected):
            return self._mark(record, event)
        if not isinstance(event, e.SandboxCreateRejected):
            return None
        data = payload(record)
        if self._narrow and self._reach.leaves(record.type, data):
            return _standing([record], data)
        decision = await decision_of(self._facts, ABSENT, event.sandbox, [record], (event,))
        return self._judge(decision, ABSENT)

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

    async def _take_of_sandbox(self, ahead: Ahead, first: RecordedEvent) -> Redecision:
        sandbox_id = first.stream.removeprefix(STREAM_PREFIX)
        await recall(self._fold, self._trail.log, first)
        before = self._fold.known(sandbox_id).state
        decision = await next_decision(ahead, self._facts, before, sandbox_id)
        for record, event in zip(decision.records, decision.events, strict=True):
            await self._apply(record, event)
        ahead.drop(len(decision.records))
        return self._judge(decision, before)

    def _judge(self, group: Decision, before: Sandbox) -> Redecision:
        record, command, sandbox_id = group.records[0], group.command, group.sandbox
        found = Redecision(
            position=record.position,
            sandbox=sandbox_id,
            container=_concerned(group),
            type=record.type,
            asked=type(command) not in REPORTS,
            verdict="same",
            recorded=refusal_of(group.events),
        )
        if command is None:
            return self._unreplayable(found, group, group.missing)
        if group.explained and not self._reaches(record.type):
            return found
        instead = self._instead.get(sandbox_id, before)
        try:
            state, changed = apply_settings(
                self._settings, instead if self._cascade else before, command, group.facts
            )
        except FactMissing as problem:
            return self._unreplayable(found, group, str(problem))
        if group.explained and not self._cascade and state is before and changed == command:
            return found
        now = like(decide(state, changed), group.events)
        if self._cascade:
            self._instead[sandbox_id] = fold_events(now, instead)
        return self._compared(found, group, now, (state, changed))

    def _reaches(self, tag: str) -> bool:
        """Whether a decision as recorded may come out otherwise under the settings."""
        settings = self._settings
        if self._cascade:
            return settings.changes_anything
        return tag in self._reach.tags or origin_of(tag, {}) == "unclear"

    def _unreplayable(self, found: Redecision, group: Decision, why: str) -> Redecision:
        """What cannot be taken again stands as it was recorded."""
        if self._cascade and found.sandbox in self._instead:
            after = fold_events(group.events, self._instead[found.sandbox])
            self._instead[found.sandbox] = after
        return replace(found, verdict="unreplayable", now=why)

    def _compared(
        self,
        found: Redecision,
        group: Decision,
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


def _standing(records: Sequence[RecordedEvent], data: dict[str, Any]) -> Redecision:
    """What a client was answered, as it was recorded; ``data`` is the first one's payload."""
    record = records[0]
    refusals = [decode_record(each) for each in records if each.type.endswith(REFUSALS)]
    return Redecision(
        position=record.position,
        sandbox=sandbox_of(record) or data.get("sandbox", ""),
        container=container_of(record, data),
        type=record.type,
        asked=True,
        verdict="same",
        recorded=refusal_of(refusals),
    )


def _concerned(group: Decision) -> str:
    """The container that a decision is about; for the sandbox's own its root."""
    return container_of(group.records[0], {"container": getattr(group.events[0], "container", "")})


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


def _shown(events: Iterable[Decided]) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = to_builtins(list(events))
    return shown
