"""Why a value is what it is: the event that wrote it, what led there, and proof by doing it again.

Of all events of a sandbox the smallest part is looked for that alone gives the same value, by
leaving events out and folding the rest. So what is named is not a guess: without any one of them
the value would be another.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct, to_builtins

from eventstore import RecordedEvent
from manager.domain.events import (
    ContainerDestroyRequested,
    ContainerExited,
    ContainerSignalRequested,
    Event,
    SandboxCreated,
    SandboxStopped,
)
from manager.domain.evolve import evolve, fold
from manager.domain.exit_status import Signaled
from manager.domain.state import ABSENT, Sandbox
from manager.schema.node_fold import STREAM_PREFIX, decode_record
from replay.outcome import FAIL, fits, outcome_of
from replay.restore_basis import restore_basis
from replay.selection import container_of, payload, sandbox_of
from replay.trail import Trail

HISTORY_EVENTS_MAX: Final = 100_000
"""Longer lives are not taken apart."""
REASONS_MAX: Final = 20
MISSING: Final = "(absent)"


class WhyError(ValueError):
    """The question cannot be answered; the message says why."""


class Step(Struct, frozen=True, kw_only=True):
    """An event of an explanation, and the value that it left, where it changed it."""

    record: RecordedEvent
    wrote: bool = False
    value: Any = None


class Explanation(Struct, frozen=True, kw_only=True):
    """Why a value is what it is.

    Attributes:
        sandbox: The sandbox's id.
        path: The value's path in its state, names and indices.
        value: The value, as JSON has it; MISSING if there is none.
        since: The position that it has been so since; ``None`` if it never was otherwise.
        causes: That event, and what led to it by the log's own word, the newest first.
        likely: What was asked for before and fits: a signal of the number that ended a container, a
            destroy. That it was this one, nobody has recorded.
        decided_on: Of the answer of a restore, where its policy and its image come from, the oldest
            first.
        essential: Events that alone give the value, oldest first, each of them needed.
        history: How many events the sandbox has had by then.
    """

    sandbox: str
    path: tuple[str, ...]
    value: Any
    since: int | None
    causes: tuple[Step, ...]
    likely: tuple[Step, ...]
    decided_on: tuple[RecordedEvent, ...]
    essential: tuple[Step, ...]
    history: int


class Absence(Struct, frozen=True, kw_only=True):
    """Why a value is not what somebody expected.

    Attributes:
        sandbox: The sandbox's id.
        path: The value's path.
        value: What it is instead.
        wanted: What it is not.
        had_until: The event by which it ceased to be so; ``None`` if it never was.
        reasons: If it never was: what was refused or failed, the newest REASONS_MAX.
        history: How many events the sandbox has had by then.
    """

    sandbox: str
    path: tuple[str, ...]
    value: Any
    wanted: str
    had_until: Step | None
    reasons: tuple[Step, ...]
    history: int


class _History:
    """A sandbox's life up to a position, from its latest creation on."""

    def __init__(self, records: Sequence[RecordedEvent], events: Sequence[Event]) -> None:
        self.records = records
        self.events = events
        self.states = [ABSENT]
        for event in events:
            self.states.append(evolve(self.states[-1], event))

    @property
    def now(self) -> Sandbox:
        return self.states[-1]


async def _read_history(trail: Trail, sandbox_id: str, position: int) -> _History:
    records: list[RecordedEvent] = []
    events: list[Event] = []
    async for record in trail.log.read(STREAM_PREFIX + sandbox_id, until=position):
        event = decode_record(record)
        if isinstance(event, SandboxCreated):
            records, events = [], []
        records.append(record)
        events.append(event)
        if len(records) > HISTORY_EVENTS_MAX:
            raise WhyError(f"sandbox {sandbox_id!r} has more than {HISTORY_EVENTS_MAX} events")
    if not records:
        raise WhyError(f"sandbox {sandbox_id!r} has no events by then")
    return _History(records, events)


async def why(trail: Trail, sandbox_id: str, path: tuple[str, ...], position: int) -> Explanation:
    """Explain a value of a sandbox's state.

    Args:
        trail: The log.
        sandbox_id: The sandbox.
        path: Names and indices that lead to the value, as ``inspect --json`` shows it.
        position: When.

    Raises:
        WhyError: There was no such sandbox, or it lived too long to be taken apart.
        EventStoreError: The log cannot be read.
        EventFormatError: An event is of a newer program, or damaged; the text names it.
    """
    history = await _read_history(trail, sandbox_id, position)
    values = [value_at(state, path) for state in history.states]
    value = values[-1]
    wrote = next((at for at in range(len(values) - 1, 0, -1) if values[at - 1] != value), None)
    kept: list[int] = []
    if wrote is not None:
        kept = smallest(
            list(range(wrote)),
            lambda part: value_at(fold(history.events[at] for at in part), path) == value,
        )
    return Explanation(
        sandbox=sandbox_id,
        path=path,
        value=value,
        since=None if wrote is None else history.records[wrote - 1].position,
        causes=() if wrote is None else await _causes(trail, history.records[:wrote]),
        likely=() if wrote is None else _likely(history, wrote - 1),
        decided_on=()
        if wrote is None
        else await restore_basis(trail, history.records[:wrote], history.events[:wrote]),
        essential=tuple(
            Step(
                record=history.records[at], wrote=values[at + 1] != values[at], value=values[at + 1]
            )
            for at in kept
        ),
        history=len(history.records),
    )


async def why_not(
    trail: Trail, sandbox_id: str, path: tuple[str, ...], wanted: str, position: int
) -> Absence:
    """Explain why a value is not another one; raises as :func:`why`."""
    history = await _read_history(trail, sandbox_id, position)
    values = [value_at(state, path) for state in history.states]
    if shown(values[-1]) == wanted:
        raise WhyError(f"it is {wanted}")
    ended = next(
        (at for at in range(len(values) - 1, 0, -1) if shown(values[at - 1]) == wanted), None
    )
    had_until = None
    if ended is not None:
        had_until = Step(record=history.records[ended - 1], wrote=True, value=values[ended])
    return Absence(
        sandbox=sandbox_id,
        path=path,
        value=values[-1],
        wanted=wanted,
        had_until=had_until,
        reasons=() if ended is not None else _refusals(history, path),
        history=len(history.records),
    )


def _refusals(history: _History, path: tuple[str, ...]) -> tuple[Step, ...]:
    container = path[1] if path[:1] == ("containers",) and len(path) > 1 else ""
    found = []
    for record in history.records:
        data = payload(record)
        about = container_of(record, data) in {container, ""} or not container
        if about and fits(outcome_of(record.type, data), FAIL):
            found.append(Step(record=record))
    return tuple(found[-REASONS_MAX:])


async def _causes(trail: Trail, records: Sequence[RecordedEvent]) -> tuple[Step, ...]:
    """The last event, what else its request led to before it, and what that was caused by."""
    last = records[-1]
    chain = [Step(record=last, wrote=True)]
    whole = last.type.startswith("sandbox.")
    about = {container_of(last, payload(last)), sandbox_of(last)}
    for record in reversed(records[:-1]):
        if record.correlation_id is None or record.correlation_id != last.correlation_id:
            break
        if whole or container_of(record, payload(record)) in about:
            chain.append(Step(record=record))
    seen = {step.record.position for step in chain}
    while (cause := chain[-1].record.causation) is not None and cause not in seen:
        earlier = await trail.record(cause)
        if earlier is None:
            break
        seen.add(cause)
        chain.append(Step(record=earlier))
    return tuple(chain)


def _likely(history: _History, at: int) -> tuple[Step, ...]:
    """Who may have ended a container that a signal ended."""
    ended = history.events[at]
    if not isinstance(ended, ContainerExited) or not isinstance(ended.exit, Signaled):
        return ()
    for number in range(at - 1, -1, -1):
        match history.events[number]:
            case ContainerSignalRequested(container=cid, signo=signo) if (
                cid == ended.container and signo == ended.exit.signal
            ):
                return (Step(record=history.records[number]),)
            case ContainerDestroyRequested(container=cid) if cid == ended.container:
                return (Step(record=history.records[number]),)
            case SandboxStopped():
                return (Step(record=history.records[number]),)
    return ()


def value_at(state: Sandbox, path: Sequence[str]) -> Any:
    """A value of a state, as JSON has it; MISSING if the path leads nowhere."""
    found: Any = state
    for step in path:
        if isinstance(found, dict):
            if step not in found:
                return MISSING
            found = found[step]
        elif isinstance(found, list | tuple):
            if not step.isdecimal() or int(step) >= len(found):
                return MISSING
            found = found[int(step)]
        elif isinstance(found, Struct) and step in found.__struct_fields__:
            found = getattr(found, step)
        else:
            return MISSING
    return to_builtins(found)


def shown(value: Any) -> str:
    """A value as somebody would write it."""
    match value:
        case bool():
            return "true" if value else "false"
        case None:
            return "null"
        case _:
            return str(value)


def smallest(items: list[int], holds: Callable[[list[int]], bool]) -> list[int]:
    """A part of ``items`` that still holds, of which no one item can be left out.

    ``holds(items)`` has to be true. Source: Zeller and Hildebrandt, Simplifying and Isolating
    Failure-Inducing Input (2002), the ddmin algorithm without its first half.
    """
    size = max(1, len(items) // 2)
    while True:
        kept, begin = items, 0
        while begin < len(kept):
            rest = kept[:begin] + kept[begin + size :]
            if holds(rest):
                kept = rest
            else:
                begin += size
        if size == 1 and len(kept) == len(items):
            return kept
        items = kept
        size = max(1, size // 2)
