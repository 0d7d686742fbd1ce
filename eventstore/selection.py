"""What a reader asks a log for, beside the stream: a stretch of positions, and which of its events.

Nothing here but ``position`` is an order. ``recorded_at_ns`` is what the writer's clock said, and
clocks jump: a stretch of time is a filter over every event, not two ends of a range, so that it
finds each event that says it is of that time, wherever in the log it stands.
"""

from collections.abc import Collection
from typing import TypedDict, Unpack

from msgspec import Struct

from eventstore.envelope import RecordedEvent
from eventstore.limits import POSITION_MAX


class ReadOptions(TypedDict, total=False):
    """Keyword arguments of :meth:`eventstore.log.EventLog.read`; each may be absent."""

    after: int
    until: int
    limit: int | None
    backwards: bool
    types: Collection[str] | None
    since_ns: int | None
    before_ns: int | None


class Selection(Struct, frozen=True, kw_only=True):
    """The same, with what is absent filled in.

    Attributes:
        after: Only higher positions, at least 0.
        until: No higher positions than this.
        limit: At most that many events.
        backwards: Newest first.
        types: Only events with one of these tags; None for all.
        since_ns: Only events recorded at that time or later, nanoseconds since 1970.
        before_ns: Only events recorded before that time.
    """

    after: int
    until: int
    limit: int
    backwards: bool
    types: frozenset[str] | None
    since_ns: int | None
    before_ns: int | None

    @property
    def takes_all(self) -> bool:
        """Whether every event between the positions is asked for."""
        return self.types is None and self.since_ns is None and self.before_ns is None

    def wants(self, record: RecordedEvent) -> bool:
        """Whether an event between the positions is asked for."""
        return (
            (self.types is None or record.type in self.types)
            and (self.since_ns is None or record.recorded_at_ns >= self.since_ns)
            and (self.before_ns is None or record.recorded_at_ns < self.before_ns)
        )


def select(head: int, **how: Unpack[ReadOptions]) -> Selection:
    """Fill in what is absent, for a log whose last position is ``head``."""
    limit, types = how.get("limit"), how.get("types")
    return Selection(
        after=max(how.get("after", 0), 0),
        until=min(how.get("until", POSITION_MAX), head),
        limit=head if limit is None else limit,
        backwards=how.get("backwards", False),
        types=None if types is None else frozenset(types),
        since_ns=how.get("since_ns"),
        before_ns=how.get("before_ns"),
    )
