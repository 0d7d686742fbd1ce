"""A log opened to be asked: events by any filter, states at any point.

::

    async with Trail.open("/var/lib/sandtrail/events.db") as trail:
        async for record in trail.events(Selection(outcome="fail"), await trail.window("2h30m")):
            print(record.position, record.type)
        fold, moment = await trail.at("yesterday")

Nothing here writes. The log may be that of a service that runs, or a copy.
"""

import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from eventstore import EventLog, ReadOptions, RecordedEvent, newest_note, open_log, read_checkpoint
from manager.domain.state import Sandbox
from manager.schema.marks import Mark, read_marks
from manager.schema.moment import position_at, window_end, window_start
from manager.schema.node_fold import NodeFold
from manager.schema.past import AsOf, as_of, fold_log_at, record_at
from manager.schema.when import parse_when
from replay.selection import Matcher, Selection


class Window(Struct, frozen=True, kw_only=True):
    """A stretch of a log, both ends included; empty if ``last`` is before ``first``."""

    first: int
    last: int

    @property
    def count(self) -> int:
        """How many events it has."""
        return max(0, self.last - self.first + 1)


class Trail:
    """A log to be read.

    Args:
        log: The log, open.
        path: Its file.
    """

    def __init__(self, log: EventLog, path: Path) -> None:
        self.log = log
        self.path = path

    @staticmethod
    @asynccontextmanager
    async def open(path: str | Path) -> AsyncIterator["Trail"]:
        """Open a log's file, which is not changed.

        Raises:
            EventStoreError: There is no such log, or it cannot be read; the text says what to do.
        """
        async with open_log(path, read_only=True) as log:
            yield Trail(log, Path(path))

    async def head(self) -> int:
        """The last position, 0 in an empty log."""
        return await self.log.head()

    async def position(self, when: str) -> int:
        """The position of a point, written as :mod:`manager.schema.when` has it.

        Raises:
            WhenError: There is no such point, or it cannot be told.
            EventStoreError: The log cannot be read.
        """
        now_ns = time.time_ns()
        return await position_at(self.log, parse_when(when, now_ns=now_ns), now_ns=now_ns)

    async def window(self, since: str | None = None, until: str | None = None) -> Window:
        """The stretch between two points; without them that from the first event to the last.

        Raises:
            WhenError: There is no such point, or it cannot be told.
            EventStoreError: The log cannot be read.
        """
        now_ns = time.time_ns()
        first, last = 1, await self.log.head()
        if until is not None:
            last = await window_end(self.log, parse_when(until, now_ns=now_ns))
        if since is not None:
            first = max(1, await window_start(self.log, parse_when(since, now_ns=now_ns)))
        return Window(first=first, last=last)

    async def events(
        self, selection: Selection, window: Window, *, backwards: bool = False
    ) -> AsyncIterator[RecordedEvent]:
        """The events of a window that fit, the oldest first unless ``backwards``.

        Raises:
            EventStoreError: The log cannot be read.
        """
        matcher = Matcher(selection)
        how = ReadOptions(after=window.first - 1, until=window.last, backwards=backwards)
        if types := selection.narrowed_types:
            how["types"] = types
        if window.count:
            async for record in self.log.read(selection.stream, **how):
                if matcher.fits(record):
                    yield record

    async def newest(
        self, selection: Selection, window: Window, count: int
    ) -> Iterable[RecordedEvent]:
        """The last ``count`` events of a window that fit, the oldest first; raises as above."""
        if selection.causes:  # which only a look from the beginning can tell
            found = deque(maxlen=count)  # type: deque[RecordedEvent]
            async for record in self.events(selection, window):
                found.append(record)
            return found
        newest: list[RecordedEvent] = []
        if count:
            async for record in self.events(selection, window, backwards=True):
                newest.append(record)
                if len(newest) == count:
                    break
        return reversed(newest)

    async def follow(
        self, selection: Selection, *, after: int
    ) -> AsyncGenerator[RecordedEvent, None]:
        """The events after a position that fit, and for ever those that come; raises as above.

        Cancellation: safe; go on after the last position seen.
        """
        matcher = Matcher(selection)
        async with self.log.subscribe(after=after, stream=selection.stream) as records:
            async for record in records:
                if matcher.fits(record):
                    yield record

    async def at(self, when: str = "head") -> tuple[NodeFold, AsOf]:
        """Every sandbox that lived at a point.

        Raises:
            WhenError: There is no such point, or it cannot be told.
            EventStoreError: The log cannot be read.
            EventFormatError: An event is of a newer program, or damaged; the text names it.
        """
        return await fold_log_at(self.log, self.path, when)

    async def sandbox(self, sandbox_id: str, when: str = "head") -> Sandbox | None:
        """The state of a sandbox at a point, ``None`` if it did not live then; raises as above."""
        fold, _ = await self.at(when)
        found = fold.live.get(sandbox_id)
        return None if found is None else found.state

    async def record(self, position: int) -> RecordedEvent | None:
        """The event at a position."""
        return await record_at(self.log, position)

    async def marks(self) -> dict[str, Mark]:
        """The points that were given names, by name, the oldest first.

        Raises:
            EventStoreError: The log cannot be read.
            EventFormatError: A mark is damaged; the text names it.
        """
        return await read_marks(self.log)

    async def as_of(self, position: int) -> AsOf:
        """A position with its time."""
        return await as_of(self.log, position)

    def sealed(self) -> int:
        """The last position that a checkpoint in the file covers; whose it is, is not looked at.

        Raises:
            EventStoreError: The log cannot be read.
        """
        note = newest_note(self.path)
        return 0 if note is None else read_checkpoint(note).size
