"""What a report tells, gathered in one pass over the log by the fold that the service uses."""

from collections import deque
from typing import Final

from msgspec import Struct

from eventstore import RecordedEvent
from manager.schema.node_snapshot import node_snapshots, open_fold
from replay.lanes import LaneTracker, Stretch
from replay.selection import Matcher, Selection
from replay.stats import Stats, StatsBuilder
from replay.trail import Trail, Window

EVENTS_MAX: Final = 2_000
"""Events that are listed one by one: the newest. Everything is counted."""
STRETCHES_MAX: Final = 5_000
"""Stretches of statuses that are drawn and listed: those that ended last, and those that last."""
CLOCK_STEPS_MAX: Final = 100


class ReportData(Struct, frozen=True, kw_only=True):
    """The contents of a report.

    Attributes:
        window: What was looked at.
        began_ns: When the first event of it was recorded; likewise the last.
        stats: Sums over the events that were asked for.
        events: The newest of them, the oldest first.
        stretches: What each container was when, those that last at the end.
        cut_stretches: How many more there were.
        clock_steps: Positions before which the clock was set back.
    """

    window: Window
    began_ns: int
    ended_ns: int
    stats: Stats
    events: tuple[RecordedEvent, ...]
    stretches: tuple[Stretch, ...]
    cut_stretches: int
    clock_steps: tuple[int, ...]


async def gather(trail: Trail, window: Window, selection: Selection) -> ReportData:
    """Look at a window of a log.

    Raises:
        EventStoreError: The log cannot be read.
        EventFormatError: An event is of a newer program, or damaged; the text names it.

    Cancellation: safe.
    """
    fold = await open_fold(
        trail.log, node_snapshots(trail.path.parent), until=max(0, window.first - 1)
    )
    first = (await trail.as_of(window.first)).time_ns if window.count else 0
    tracker = LaneTracker(trail.log, fold, first, selection.sandbox)
    matcher, builder = Matcher(selection), StatsBuilder()
    events: deque[RecordedEvent] = deque(maxlen=EVENTS_MAX)
    ended: deque[Stretch] = deque(maxlen=STRETCHES_MAX)
    count, before_ns, last_ns = 0, first, first
    steps: list[int] = []
    async for record in trail.events(Selection(), window):
        found = await tracker.take(record)
        count += len(found)
        ended += found
        if record.recorded_at_ns < before_ns and len(steps) < CLOCK_STEPS_MAX:
            steps.append(record.position)
        before_ns = record.recorded_at_ns
        last_ns = max(last_ns, before_ns)
        if matcher.fits_any(record):
            builder.add(record)
            events.append(record)
    lasting = tracker.rest()
    kept = [*ended, *lasting][-STRETCHES_MAX:]
    return ReportData(
        window=window,
        began_ns=first,
        ended_ns=last_ns,
        stats=builder.result(),
        events=tuple(events),
        stretches=tuple(kept),
        cut_stretches=count + len(lasting) - len(kept),
        clock_steps=tuple(steps),
    )
