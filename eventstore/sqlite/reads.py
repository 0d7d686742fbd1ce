"""The reading half of a log, for the event loop: one hop for each chunk."""

import sqlite3
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import TypeVar

import anyio
from msgspec import Struct

from eventstore.envelope import Document, RecordedEvent
from eventstore.errors import EventStoreError, LogUnusable, StoreBusy, StoreClosed
from eventstore.limits import POSITION_MAX, READ_CHUNK_EVENTS
from eventstore.selection import ReadOptions, Selection, select
from eventstore.sqlite.completeness import check_whole
from eventstore.sqlite.connection import Connection, configure_reader, connect
from eventstore.sqlite.reader import LogReader, Stretch
from eventstore.sqlite.schema import check_schema
from eventstore.sqlite.source import (
    OPEN_TRIES_MAX,
    Identity,
    Source,
    identity_of,
    reading_source,
)

T = TypeVar("T")


class Opened(Struct, frozen=True):
    """One way to the log: a connection, what reads on its thread, and what it was opened on."""

    connection: Connection
    reader: LogReader
    source: Source

    async def run(self, job: Callable[[LogReader], T]) -> T:
        """Run a job on the connection's thread."""
        return await self.connection.run(lambda _: job(self.reader))


class LogReads:
    """Reads a log on a connection of its own that cannot write.

    If it could be opened only as a file that nobody writes, and a writer comes, it is opened again.
    """

    def __init__(self, path: str, opened: Opened, identity: Identity) -> None:
        self._path = path
        self._opened = opened
        self._identity = identity
        self._closed = False
        self._opening = anyio.Lock()

    @classmethod
    async def open(cls, path: str) -> "LogReads":
        """Open the log at ``path``.

        Raises:
            LogNotFound: There is no such file.
            LogUnusable: It is not a log that can be read.
        """
        identity = identity_of(path)
        return cls(path, await _open(path), identity)

    async def close(self) -> None:
        """Close the connection. Cancellation: shielded."""
        self._closed = True
        with anyio.CancelScope(shield=True):
            async with self._opening:
                await self._opened.connection.close()

    def check_in_place(self) -> None:
        """See that the file of that name is still the one that was opened.

        Raises:
            LogUnusable: It is another one, or none: what is appended from now on is not seen here.
        """
        if identity_of(self._path) != self._identity:
            raise LogUnusable(
                self._path,
                "the file that was read was moved away or replaced; nothing more comes from it, "
                "begin anew with the one that is there",
            )

    async def head(self) -> int:
        """The last stored position, as the file has it now."""
        return await self._visit(LogReader.head)

    async def document(self, digest: str) -> Document:
        """As :meth:`eventstore.log.EventLog.document`."""
        return await self._visit(lambda reader: reader.document(digest))

    async def read(
        self, stream: str | None, head: Callable[[LogReader], int], how: ReadOptions
    ) -> AsyncGenerator[RecordedEvent, None]:
        """As :meth:`eventstore.log.EventLog.read`, up to the head that the first visit is told."""
        selection = select(POSITION_MAX, **how)
        left = selection.limit
        rest: Stretch | None = None

        def visit(reader: LogReader) -> tuple[list[RecordedEvent], Stretch]:
            stretch = _find(reader, stream, selection, head) if rest is None else rest
            return reader.visit(stretch, selection, min(left, READ_CHUNK_EVENTS))

        while left > 0 and (rest is None or rest.low < rest.high):
            records, rest = await self._visit(visit)
            for record in records:
                yield record
            left -= len(records)

    async def _visit(self, job: Callable[[LogReader], T]) -> T:
        while True:
            opened = self._opened
            try:
                result = await opened.run(job)
            except EventStoreError:
                if self._closed or opened.source.is_current():
                    raise
            else:
                if opened.source.is_current():
                    return result
            await self._reopen(opened)

    async def _reopen(self, old: Opened) -> None:
        async with self._opening:
            if self._closed:
                raise StoreClosed
            if self._opened is old:
                self.check_in_place()
                self._opened = await _open(self._path)
                await old.connection.close()


def _find(
    reader: LogReader, stream: str | None, selection: Selection, head: Callable[[LogReader], int]
) -> Stretch:
    after = selection.after
    until = max(after, min(selection.until, head(reader)))
    return Stretch(None, after, until) if stream is None else reader.stretch(stream, after, until)


async def _open(path: str) -> Opened:
    for _ in range(OPEN_TRIES_MAX):
        with reading_source(path) as source:
            connection = await connect(path, source.uri)
            try:
                reader = await connection.run(partial(_set_up, path))
            except BaseException as error:
                await connection.close()
                if not isinstance(error, EventStoreError) or source.is_current():
                    raise
                continue
        return Opened(connection, reader, source)
    raise StoreBusy(path)


def _set_up(path: str, raw: sqlite3.Connection) -> LogReader:
    configure_reader(raw)
    check_schema(raw, path)
    check_whole(raw, path)
    return LogReader(raw, path)
