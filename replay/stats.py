"""What a log adds up to: how often, how it came out, why it failed, how long it took."""

import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct

from eventstore import RecordedEvent
from replay.describe import detail
from replay.histogram import Bar, Histogram
from replay.outcome import outcome_of
from replay.selection import Selection, payload, sandbox_of
from replay.trail import Trail, Window

HOUR_S: Final = 3600
HOUR_NS: Final = HOUR_S * 1_000_000_000
REASONS_MAX: Final = 1000
"""Different reasons that are told apart; what comes after is counted as one."""
MORE_REASONS: Final = "(other reasons)"
PENDING_MAX: Final = 100_000
"""Effects under way that are remembered; a log with more has lost their outcomes."""
PARTICULAR: Final = re.compile(
    r"\"(?:[^\"\\]|\\.)*\"|'[^']*'|sha256:[0-9a-f]+|[0-9a-f]{8}-[0-9a-f-]{27}|(?<![\w.])[0-9]{4,}"
)
"""What differs between two errors of one kind: quoted names, digests, ids, long numbers."""


class Effect(Struct, frozen=True, kw_only=True):
    """Something that takes a while: the events that announce it, and those that end it."""

    name: str
    begins: frozenset[str]
    ends: frozenset[str]
    fails: frozenset[str]
    key: str


def _effect(name: str, begins: str, ends: str, fails: str, key: str) -> Effect:
    begun, ended, failed = (frozenset(each.split()) for each in (begins, ends, fails))
    return Effect(name=name, begins=begun, ends=ended, fails=failed, key=key)


EFFECTS: Final = (
    _effect(
        "start",
        "container.start_accepted sandbox.start_requested",
        "container.started sandbox.started",
        "container.start_failed sandbox.start_failed",
        "launch_id",
    ),
    _effect("exec", "process.exec_accepted", "process.executed", "process.exec_failed", "exec_id"),
    _effect(
        "checkpoint",
        "sandbox.checkpoint_requested",
        "sandbox.checkpointed",
        "sandbox.checkpoint_failed",
        "checkpoint_id",
    ),
    _effect("restore", "restore.begun", "sandbox.restored", "sandbox.restore_failed", ""),
    _effect(
        "destroy",
        "container.destroy_requested",
        "container.destroyed",
        "",
        "launch_id",
    ),
)
_BEGUN_BY: Final = {tag: effect for effect in EFFECTS for tag in effect.begins}
_ENDED_BY: Final = {tag: effect for effect in EFFECTS for tag in (*effect.ends, *effect.fails)}


class Latency(Struct, frozen=True, kw_only=True):
    """How long one kind of effect took, by the log's clock.

    Attributes:
        what: Its name.
        count: Those that succeeded; the durations are theirs.
        failed: Those that did not.
        pending: Those of which the log does not tell the end, in what was looked at.
        stepped: Those that ended before they began, as the clock was set back: left out.
        p50_ns: Half of them took no longer; likewise the others.
        max_position: Where the longest one ended.
        phases_us: Of starts, how long each phase took in all.
        bars: The durations in steps.
    """

    what: str
    count: int
    failed: int
    pending: int
    stepped: int
    p50_ns: int | None
    p90_ns: int | None
    p99_ns: int | None
    max_ns: int | None
    max_position: int | None
    phases_us: dict[str, int]
    bars: tuple[Bar, ...]


class Reason(Struct, frozen=True, kw_only=True):
    """Why something did not come out as asked; names and ids in it are left out."""

    text: str
    count: int
    first: int
    last: int


class Stats(Struct, frozen=True, kw_only=True):
    """The sums over some events.

    The counters are by descending count, but for ``by_hour``: that is in order of time, by the
    beginning of each hour as of RFC 3339, in UTC.
    """

    events: int
    by_type: dict[str, int]
    by_outcome: dict[str, int]
    by_actor: dict[str, int]
    by_sandbox: dict[str, int]
    by_hour: dict[str, int]
    reasons: tuple[Reason, ...]
    latencies: tuple[Latency, ...]


class _Timer:
    """The durations of one kind of effect."""

    def __init__(self, effect: Effect) -> None:
        self._effect = effect
        self._begun: dict[str, int] = {}
        self._durations = Histogram()
        self._failed = self._stepped = 0
        self._slowest: int | None = None
        self._phases_us: Counter[str] = Counter()

    def begin(self, record: RecordedEvent, data: dict[str, Any]) -> None:
        if len(self._begun) < PENDING_MAX:
            self._begun[self._key(record, data)] = record.recorded_at_ns

    def end(self, record: RecordedEvent, data: dict[str, Any]) -> None:
        begun_ns = self._begun.pop(self._key(record, data), None)
        if record.type in self._effect.fails:
            self._failed += 1
        elif begun_ns is None:
            return  # it began before what is looked at, or never
        elif record.recorded_at_ns < begun_ns:
            self._stepped += 1
        else:
            duration_ns = record.recorded_at_ns - begun_ns
            if not self._durations.count or duration_ns > self._durations.max_ns:
                self._slowest = record.position
            self._durations.add(duration_ns)
            self._phases_us.update(data.get("phases_us") or {})

    def _key(self, record: RecordedEvent, data: dict[str, Any]) -> str:
        if not self._effect.key:
            return record.stream  # of which one at a time can be under way
        return str(data.get(self._effect.key) or data.get("intent", {}).get(self._effect.key))

    def result(self) -> Latency:
        durations = self._durations
        p50, p90, p99 = (
            durations.percentile_ns(each) if durations.count else None for each in (50, 90, 99)
        )
        return Latency(
            what=self._effect.name,
            count=durations.count,
            failed=self._failed,
            pending=len(self._begun),
            stepped=self._stepped,
            p50_ns=p50,
            p90_ns=p90,
            p99_ns=p99,
            max_ns=durations.max_ns if durations.count else None,
            max_position=self._slowest,
            phases_us=dict(self._phases_us),
            bars=tuple(durations.bars()),
        )


class StatsBuilder:
    """Adds up events, in the order of the log, in memory that does not grow with their number."""

    def __init__(self) -> None:
        self._events = 0
        self._types: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._actors: Counter[str] = Counter()
        self._sandboxes: Counter[str] = Counter()
        self._hours: Counter[int] = Counter()
        self._reasons: dict[str, list[int]] = {}
        self._timers = {effect.name: _Timer(effect) for effect in EFFECTS}

    def add(self, record: RecordedEvent) -> None:
        """Count one event."""
        data = payload(record)
        outcome = outcome_of(record.type, data)
        self._events += 1
        self._types[record.type] += 1
        self._outcomes[outcome or "pending"] += 1
        if record.actor is not None:
            self._actors[f"uid:{record.actor.uid}"] += 1
        self._sandboxes[sandbox_of(record) or record.stream] += 1
        self._hours[record.recorded_at_ns // HOUR_NS] += 1
        if outcome in {"refused", "failed", "mismatch"}:
            self._blame(record, data)
        if effect := _BEGUN_BY.get(record.type):
            self._timers[effect.name].begin(record, data)
        elif effect := _ENDED_BY.get(record.type):
            self._timers[effect.name].end(record, data)

    def _blame(self, record: RecordedEvent, data: dict[str, Any]) -> None:
        text = f"{record.type}: {PARTICULAR.sub('…', detail(data)) or 'no reason given'}"
        if text not in self._reasons and len(self._reasons) >= REASONS_MAX:
            text = MORE_REASONS
        found = self._reasons.setdefault(text, [0, record.position, record.position])
        found[0] += 1
        found[2] = record.position

    def result(self) -> Stats:
        """The sums so far."""
        reasons = [
            Reason(text=text, count=count, first=first, last=last)
            for text, (count, first, last) in self._reasons.items()
        ]
        return Stats(
            events=self._events,
            by_type=dict(self._types.most_common()),
            by_outcome=dict(self._outcomes.most_common()),
            by_actor=dict(self._actors.most_common()),
            by_sandbox=dict(self._sandboxes.most_common()),
            by_hour={_hour(each): count for each, count in sorted(self._hours.items())},
            reasons=tuple(sorted(reasons, key=lambda each: (-each.count, each.first))),
            latencies=tuple(timer.result() for timer in self._timers.values()),
        )


def _hour(hours: int) -> str:
    return f"{datetime.fromtimestamp(hours * HOUR_S, UTC):%Y-%m-%dT%H:%M:%SZ}"


async def stats_of(trail: Trail, selection: Selection, window: Window) -> Stats:
    """Add up the events of a window that fit.

    Raises:
        EventStoreError: The log cannot be read.

    Cancellation: safe.
    """
    builder = StatsBuilder()
    async for record in trail.events(selection, window):
        builder.add(record)
    return builder.result()
