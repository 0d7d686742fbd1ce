"""The reading half of a log, for the event loop: one hop for each chunk."""

import os
import sqlite3
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import TypeVar

from eventstore.envelope import Document, RecordedEvent
from eventstore.errors import LogNotFound
from eventstore.limits import READ_CHUNK_EVENTS
from eventstore.selection import Selection
from eventstore.sqlite.connection import Connection, configure_reader, connect
from eventstore.sqlite.reader import LogReader, Stretch
from eventstore.sqlite.schema import check_schema

T = TypeVar("T")


class LogReads:
    """Reads a log on a connection of its own that cannot write."""

    def __init__(self, connection: Connection, reader: LogReader) -> None:
        self._connection = connection
        self._reader = reader

    @classmethod
    async def open(cls, path: str) -> "LogReads":
        """Open the log at ``path``.

        Raises:
            LogNotFound: There is no such file.
            LogUnusable: It is not a log that can be read.
        """
        if not os.path.exists(path):  # noqa: ASYNC240 - once, at start
            raise LogNotFound(path, "no such file")
        connection = await connect(path, read_only=True)

        def set_up(raw: sqlite3.Connection) -> LogReader:
            configure_reader(raw)
            check_schema(raw, path)
            return LogReader(raw, path)

        try:
            return cls(connection, await connection.run(set_up))
        except BaseException:
            await connection.close()
            raise

    async def close(self) -> None:
        """Close the connection. Cancellation: shielded."""
        await self._connection.close()

    async def head(self) -> int:
        """The last stored position, as the file has it now."""
        return await self._hop(self._reader.head)

    async def document(self, digest: str) -> Document:
        """As :meth:`eventstore.log.EventLog.document`."""
        return await self._hop(partial(self._reader.document, digest))

    async def read(
        self, stream: str | None, selection: Selection
    ) -> AsyncGenerator[RecordedEvent, None]:
        """As :meth:`eventstore.log.EventLog.read`, up to a position that is stored."""
        left = selection.limit
        if left <= 0 or selection.after >= selection.until:
            return
        stretch = Stretch(None, selection.after, selection.until)
        if stream is not None:
            stretch = await self._hop(partial(self._reader.stretch, stream, selection))
        while left > 0 and stretch.low < stretch.high:
            count = min(left, READ_CHUNK_EVENTS)
            visit = partial(self._reader.visit, stretch, selection, count)
            records, stretch = await self._hop(visit)
            for record in records:
                yield record
            left -= len(records)

    async def _hop(self, job: Callable[[], T]) -> T:
        return await self._connection.run(lambda _: job())
