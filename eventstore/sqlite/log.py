"""The event log in an SQLite file, as the one process that writes it has it."""

import logging
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Unpack

import anyio
import anyio.lowlevel

from eventstore.envelope import Document, NewEvent, RecordedEvent
from eventstore.errors import (
    EventStoreError,
    LogInaccessible,
    StoreBusy,
    StoreClosed,
    StoreFull,
    StorePoisoned,
)
from eventstore.expected_version import ExpectedVersion
from eventstore.group_commit import GroupCommit, Outcome
from eventstore.seal_policy import SealPolicy
from eventstore.selection import ReadOptions
from eventstore.sqlite.checkpoint import Checkpoints
from eventstore.sqlite.completeness import Moved
from eventstore.sqlite.connection import Connection
from eventstore.sqlite.reader import LogReader
from eventstore.sqlite.reads import LogReads
from eventstore.sqlite.sealer import Sealer
from eventstore.sqlite.sealing import Sealing
from eventstore.sqlite.writer import LogWriter
from eventstore.submission import Submission, prepare
from eventstore.subscription import CommittedHead, subscription

logger = logging.getLogger(__name__)


class SqliteLog:
    """A log that this process writes."""

    def __init__(
        self,
        path: str,
        connection: Connection,
        writer: LogWriter,
        reads: LogReads,
        clock: Callable[[], int],
    ) -> None:
        self._path = path
        self._connection = connection
        self._writer = writer
        self._reads = reads
        self._clock = clock
        self._head = CommittedHead(writer.head)
        self._commits = GroupCommit(self._commit)
        self._checkpoints = Checkpoints(self._checkpoint, path)
        self._sealing: Sealing | None = None
        self._failure: EventStoreError | None = None
        self._closed = False

    def keep_sealed(self, policy: SealPolicy, sealer: Sealer) -> None:
        """From now on, and for what is stored already, seal as the policy says."""

        async def seal(durable: bool) -> int:
            # What comes after this call is not in the lines, and may be in the tree.
            extensions = await policy.extensions(durable)
            await self._seal(sealer, extensions, durable=durable)
            return sealer.sealed

        self._sealing = Sealing(policy, lambda: self._head.position, sealer.sealed, seal)
        self._sealing.note_head()

    async def close(self) -> None:
        """Answer the appends that are queued and take no more. Cancellation: shielded."""
        self._closed = True
        with anyio.CancelScope(shield=True):
            await self._commits.close()
            if self._sealing is not None:
                await self._sealing.close()
            await self._checkpoints.close()
            await self._finish()
        self._head.close()

    async def append(
        self, stream: str, events: Sequence[NewEvent], *, expected: ExpectedVersion
    ) -> tuple[RecordedEvent, ...]:
        """As :meth:`EventLog.append`."""
        self._check_open()
        return await self._commits.submit(prepare(stream, events, expected))

    def read(
        self, stream: str | None = None, **how: Unpack[ReadOptions]
    ) -> AsyncGenerator[RecordedEvent, None]:
        """As :meth:`EventLog.read`."""
        return self._reads.read(stream, self._stored, how)

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
        return await self._reads.document(digest)

    def _stored(self, _: LogReader) -> int:
        self._check_open()
        return self._head.position

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed

    async def _commit(self, batch: Sequence[Submission]) -> Sequence[Outcome]:
        await self._checkpoints.run_if_due()
        if self._failure is not None:
            raise self._failure
        at_ns = self._clock()
        try:
            outcomes = await self._connection.run(lambda _: self._writer.commit(batch, at_ns))
        except EventStoreError as error:
            raise self._judge(error) from error
        self._head.advance(self._writer.head)
        self._checkpoints.note_commit(batch)
        if self._sealing is not None:
            self._sealing.note_head()
        return outcomes

    async def _checkpoint(self, before: Moved) -> Moved:
        try:
            return await self._connection.run(lambda _: self._writer.checkpoint(before))
        except EventStoreError as error:
            logger.warning("checkpoint.failed reason=%s", self._judge(error))
        return before

    async def _finish(self) -> None:
        if self._failure is not None:
            return
        try:
            await self._connection.run(lambda _: self._writer.finish())
        except EventStoreError as error:
            logger.warning("close.failed reason=%s", error)

    async def _seal(self, sealer: Sealer, extensions: Sequence[str], *, durable: bool) -> None:
        if self._failure is not None:
            return

        def visit(_: sqlite3.Connection) -> bool:
            return sealer.advance(self._clock(), extensions, durable=durable)

        try:
            while await self._connection.run(visit):
                pass
        except EventStoreError as error:
            logger.warning("seal.failed reason=%s", self._judge(error))

    def _judge(self, error: EventStoreError) -> EventStoreError:
        """Whether the store can go on after an error of its writer; if not, it must not."""
        if isinstance(error, (StoreBusy, StoreFull)):
            return error
        if isinstance(error, LogInaccessible):
            error = StorePoisoned(self._path, error.problem)
        self._failure = error
        return error
