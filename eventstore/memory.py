"""An event log in memory: the fake that passes the same tests as the real one."""

import time
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self, Unpack

import anyio
import anyio.lowlevel

from eventstore.envelope import Document, NewEvent, RecordedEvent
from eventstore.errors import DocumentNotFound, StoreClosed
from eventstore.expected_version import ExpectedVersion
from eventstore.limits import IDEMPOTENCY_WINDOW_EVENTS, READ_CHUNK_EVENTS
from eventstore.selection import ReadOptions, select
from eventstore.sequencer import Sequencer
from eventstore.submission import prepare
from eventstore.subscription import CommittedHead, subscription


class MemoryHistory:
    """Stored events, by position and by stream."""

    def __init__(self) -> None:
        self.records: list[RecordedEvent] = []
        self.streams: dict[str, list[RecordedEvent]] = {}
        self.documents: dict[str, Document] = {}

    def add(self, records: Sequence[RecordedEvent]) -> None:
        """Store records that follow those that are there."""
        for record in records:
            self.records.append(record)
            self.streams.setdefault(record.stream, []).append(record)

    def version(self, stream: str) -> int:
        """As in :class:`History`."""
        return len(self.streams.get(stream, ()))

    def at_position(self, first: int, count: int) -> Sequence[RecordedEvent]:
        """As in :class:`History`."""
        return self.records[first - 1 : first - 1 + count]

    def at_version(self, stream: str, first: int, count: int) -> Sequence[RecordedEvent]:
        """As in :class:`History`."""
        return self.streams.get(stream, [])[first - 1 : first - 1 + count]


class MemoryLog:
    """An :class:`EventLog` that ends with the process. Runs on every backend of anyio.

    It gives way to other tasks wherever the real log does, before and after an append is stored and
    between chunks of a read, so that it shows the same races. Usable at once; as a context manager
    it is closed at the end.
    """

    def __init__(self, clock: Callable[[], int], window: int) -> None:
        self._clock = clock
        self._history = MemoryHistory()
        self._sequencer = Sequencer(self._history, head=0, window=window)
        self._head = CommittedHead(0)
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed = True
        self._head.close()

    async def append(
        self, stream: str, events: Sequence[NewEvent], *, expected: ExpectedVersion
    ) -> tuple[RecordedEvent, ...]:
        """As :meth:`EventLog.append`."""
        self._check_open()
        submission = prepare(stream, events, expected)
        await anyio.lowlevel.checkpoint()
        self._check_open()
        decided = self._sequencer.begin(self._clock())
        try:
            placed = decided.place(submission)
            self._history.add(decided.records)
            for digest, document in decided.documents.items():
                self._history.documents.setdefault(digest, document)
            self._sequencer.accept(decided)
            self._head.advance(self._sequencer.head)
            return placed
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()

    async def read(
        self, stream: str | None = None, **how: Unpack[ReadOptions]
    ) -> AsyncGenerator[RecordedEvent, None]:
        """As :meth:`EventLog.read`."""
        selection = select(await self.head(), **how)
        left = selection.limit
        records = self._history.records
        if stream is not None:
            records = self._history.streams.get(stream, [])
        low = bisect_right(records, selection.after, key=_position)
        high = bisect_right(records, selection.until, key=_position)
        numbers = range(high - 1, low - 1, -1) if selection.backwards else range(low, high)
        for begin in range(0, len(numbers), READ_CHUNK_EVENTS):
            self._check_open()
            for number in numbers[begin : begin + READ_CHUNK_EVENTS]:
                if left <= 0:
                    return
                if selection.wants(records[number]):
                    yield records[number]
                    left -= 1
            await anyio.lowlevel.checkpoint()

    def subscribe(
        self, *, after: int = 0, stream: str | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[RecordedEvent]]:
        """As :meth:`EventLog.subscribe`."""
        return subscription(self.read, self._head, after=after, stream=stream)

    async def head(self) -> int:
        """As :meth:`EventLog.head`."""
        self._check_open()
        await anyio.lowlevel.checkpoint()
        return self._head.position

    async def document(self, digest: str) -> Document:
        """As :meth:`EventLog.document`."""
        self._check_open()
        await anyio.lowlevel.checkpoint()
        try:
            return self._history.documents[digest]
        except KeyError:
            raise DocumentNotFound(digest) from None

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed


def _position(record: RecordedEvent) -> int:
    return record.position


def memory_log(
    *, clock: Callable[[], int] = time.time_ns, window: int = IDEMPOTENCY_WINDOW_EVENTS
) -> MemoryLog:
    """An empty log in memory.

    Args:
        clock: Nanoseconds since 1970, for ``recorded_at_ns``.
        window: How many of the newest event ids are surely remembered, see
            :mod:`eventstore.sequencer`.
    """
    return MemoryLog(clock, window)
