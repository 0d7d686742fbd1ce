"""Where in a log a point lies. Order is by position; the clock is an attribute of events.

A clock may be set back. Then several positions can claim a time: ``at`` takes the last event that
was recorded by then, a window begins with the first one that was not recorded before.
"""

from datetime import datetime
from difflib import get_close_matches
from typing import Final

from eventstore import EventLog, RecordedEvent
from manager.schema.marks import read_marks
from manager.schema.when import EventId, Head, Instant, MarkName, Position, When, WhenError

CLOCK_STEP_NS: Final = 3600 * 1_000_000_000
"""How far a clock may have been set back for the beginning of a window still to be found exactly.

What is older by more than that is not looked through.
"""
NAMES_TOLD_MAX: Final = 3
NS_PER_S: Final = 1_000_000_000


class WhenOutside(WhenError):  # noqa: N818 - nothing is broken
    """The log has no such point; the message says what it has."""


async def position_at(log: EventLog, when: When, *, now_ns: int) -> int:
    """The last position that belongs to a point; 0 is the empty log.

    Raises:
        WhenOutside: It lies beyond the log, before its first event or in the future, or nobody
            has made such a mark.
        EventStoreError: The log cannot be read.
        EventFormatError: A mark is damaged; the text names it.
    """
    head = await log.head()
    match when:
        case Position(position=position) if position <= head:
            return position
        case Head(back=back) if back <= head:
            return head - back
        case EventId(event_id=event_id):
            return await _find_event(log, event_id)
        case MarkName(name=name):
            return await _find_mark(log, name)
        case Instant(at_ns=at_ns) if at_ns > now_ns:
            raise WhenOutside(f"that time is still to come; {await bounds(log)}")
        case Instant(at_ns=at_ns, day=day):
            found = await _last_before(log, at_ns if day else at_ns + 1)
            if found is None:
                raise WhenOutside(f"nothing was recorded by then; {await _times(log)}")
            return found.position
        case Position(position=position):
            raise WhenOutside(f"there is no #{position}; {await bounds(log)}")
        case _:
            raise WhenOutside(f"the log is not that long; {await bounds(log)}")


async def window_start(log: EventLog, when: When) -> int:
    """The first position of a window that begins there; raises as above, but for times."""
    if not isinstance(when, Instant):
        return await position_at(log, when, now_ns=0)
    edge = await _last_before(log, when.at_ns - CLOCK_STEP_NS)
    after = 0 if edge is None else edge.position
    async for record in log.read(after=after, since_ns=when.at_ns, limit=1):
        return record.position
    return await log.head() + 1


async def window_end(log: EventLog, when: When) -> int:
    """The last position of a window that ends there; raises as above, but for times."""
    if not isinstance(when, Instant):
        return await position_at(log, when, now_ns=0)
    found = await _last_before(log, when.at_ns if when.day else when.at_ns + 1)
    return 0 if found is None else found.position


async def bounds(log: EventLog) -> str:
    """What a log has, for an error's text."""
    head = await log.head()
    if not head:
        return "the log is empty"
    return f"the log has #1 to #{head}"


async def _times(log: EventLog) -> str:
    """As :func:`bounds`, with when it begins."""
    told = await bounds(log)
    async for record in log.read(limit=1):
        began = datetime.fromtimestamp(record.recorded_at_ns / NS_PER_S).astimezone()
        told += f", the first of {began.isoformat(timespec='milliseconds')}"
    return told


async def _last_before(log: EventLog, before_ns: int) -> RecordedEvent | None:
    async for record in log.read(before_ns=before_ns, backwards=True, limit=1):
        return record
    return None


async def _find_event(log: EventLog, event_id: str) -> int:
    async for record in log.read(backwards=True):
        if record.event_id == event_id:
            return record.position
    raise WhenOutside(f"no event has the id {event_id!r}; {await bounds(log)}")


async def _find_mark(log: EventLog, name: str) -> int:
    marks = await read_marks(log)
    if name in marks:
        return marks[name].at
    near = get_close_matches(name, marks, n=NAMES_TOLD_MAX)
    if near:
        hint = f"did you mean {' or '.join(f'mark:{each}' for each in near)}?"
    elif marks:
        newest = ", ".join([*marks][-NAMES_TOLD_MAX:])
        hint = f"the log has {len(marks)}, the newest: {newest}"
    else:
        hint = "the log has none; `sandtrail mark add` makes one"
    raise WhenOutside(f"there is no mark {name!r}: {hint}")
