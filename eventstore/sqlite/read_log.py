"""The event log in an SQLite file, as everybody but its writer has it."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Unpack

import anyio

from eventstore.envelope import Document, NewEvent, RecordedEvent
from eventstore.errors import LogReadOnly
from eventstore.expected_version import ExpectedVersion
from eventstore.selection import ReadOptions
from eventstore.sqlite.reader import LogReader
from eventstore.sqlite.reads import LogReads
from eventstore.subscription import subscription

POLL_INTERVAL_S: Final = 0.010
"""How often a log that another process writes is asked for its head."""

LOOK_INTERVAL_S: Final = 1.0
"""How often it is looked whether that log still is the file of its name."""


class SqliteReadLog:
    """A log that another process may be writing; nothing can be appended to it here."""

    def __init__(self, path: str, reads: LogReads) -> None:
        self._path = path
        self._reads = reads
        self._look_at = 0.0

    async def append(
        self,
        stream: str,  # noqa: ARG002 - the contract's
        events: Sequence[NewEvent],  # noqa: ARG002 - the contract's
        *,
        expected: ExpectedVersion,  # noqa: ARG002 - the contract's
    ) -> tuple[RecordedEvent, ...]:
        """Refuse."""
        raise LogReadOnly(self._path)

    def read(
        self, stream: str | None = None, **how: Unpack[ReadOptions]
    ) -> AsyncGenerator[RecordedEvent, None]:
        """As :meth:`EventLog.read`."""
        return self._reads.read(stream, LogReader.head, how)

    def subscribe(
        self, *, after: int = 0, stream: str | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[RecordedEvent]]:
        """As :meth:`EventLog.subscribe`."""
        return subscription(self.read, self, after=after, stream=stream)

    async def head(self) -> int:
        """As :meth:`EventLog.head`."""
        return await self._reads.head()

    async def wait_above(self, position: int) -> int:
        """As in :class:`eventstore.subscription.Head`.

        The head itself is asked for: that costs what ``PRAGMA data_version`` costs, and there is
        nothing to remember that could be out of date. A file that lost its name has a head as well,
        and nobody appends to it: now and then the name is looked at.

        Raises:
            LogUnusable: The file was moved away or replaced.
        """
        while (head := await self._reads.head()) <= position:
            if anyio.current_time() >= self._look_at:
                self._reads.check_in_place()
                self._look_at = anyio.current_time() + LOOK_INTERVAL_S
            await anyio.sleep(POLL_INTERVAL_S)
        return head

    async def document(self, digest: str) -> Document:
        """As :meth:`EventLog.document`."""
        return await self._reads.document(digest)
