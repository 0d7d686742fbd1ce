"""Catch up, then live: a cursor and a head, and no queue between them.

A subscription remembers one number, the last position that it is done with, and asks for one thing,
to be woken when the log's head is above it. Whatever happens between two looks is found by reading
the log again from the cursor. So there is no seam between old and new events at which one could be
lost or doubled, and nothing that a slow subscriber could fill.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

import anyio
import anyio.lowlevel

from eventstore.envelope import RecordedEvent
from eventstore.errors import StoreClosed


class Readable(Protocol):
    """Reads a stretch of a log."""

    def __call__(self, stream: str | None, *, after: int) -> AsyncGenerator[RecordedEvent, None]:
        """As :meth:`EventLog.read`."""
        ...


class Head(Protocol):
    """The last stored position, to be waited for."""

    async def wait_above(self, position: int) -> int:
        """Return the head as soon as it is above ``position``.

        Raises:
            StoreClosed: The log was closed first.
        """
        ...


class CommittedHead:
    """The head of a log that this process writes."""

    def __init__(self, position: int) -> None:
        self.position = position
        self._closed = False
        self._moved: anyio.Event | None = None

    def advance(self, position: int) -> None:
        """Tell that events up to ``position`` are stored."""
        if position > self.position:
            self.position = position
            self._wake()

    def close(self) -> None:
        """End every wait with StoreClosed."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        moved, self._moved = self._moved, None
        if moved is not None:
            moved.set()

    async def wait_above(self, position: int) -> int:
        """As in :class:`Head`."""
        await anyio.lowlevel.checkpoint()
        while not self._closed:
            if self.position > position:
                return self.position
            if self._moved is None:
                self._moved = anyio.Event()
            await self._moved.wait()
        raise StoreClosed


@asynccontextmanager
async def subscription(
    read: Readable, head: Head, *, after: int, stream: str | None
) -> AsyncIterator[AsyncIterator[RecordedEvent]]:
    """As :meth:`EventLog.subscribe`, over any log that can be read and waited for."""
    async with aclosing(_follow(read, head, after=after, stream=stream)) as records:
        yield records


async def _follow(
    read: Readable, head: Head, *, after: int, stream: str | None
) -> AsyncGenerator[RecordedEvent, None]:
    cursor = after
    while True:
        reached = await head.wait_above(cursor)
        async with aclosing(read(stream, after=cursor)) as records:
            async for record in records:
                yield record
                cursor = record.position
        cursor = max(cursor, reached)
