"""Reading a log on one connection; everything here runs on that connection's thread.

Each call is one statement that is read to its end or closed, so no read transaction outlives it: a
reader that stays in one keeps the WAL from being reused, however slow it is.
"""

import sqlite3
from collections.abc import Iterable
from typing import Final

from eventstore.envelope import Document, RecordedEvent
from eventstore.errors import DocumentNotFound, LogCorrupt
from eventstore.limits import READ_CHUNK_BYTES_MAX
from eventstore.sqlite.rows import SELECT, Names, Row, to_record

SELECT_CHUNK: Final = SELECT + "WHERE position > ? AND position <= ? ORDER BY position LIMIT ?"
SELECT_STREAM: Final = (
    SELECT + "WHERE stream_id = ? AND version > ? AND position <= ? ORDER BY version LIMIT ?"
)
SELECT_HEAD: Final = "SELECT coalesce(max(position), 0) FROM event_record"
SELECT_VERSION: Final = "SELECT coalesce(max(version), 0) FROM event_record WHERE stream_id = ?"
SELECT_VERSION_AT: Final = (
    "SELECT version FROM event_record WHERE stream_id = ? AND position <= ? "
    "ORDER BY version DESC LIMIT 1"
)
SELECT_NEWEST_IDS: Final = (
    "SELECT event_id, position FROM event_record WHERE position > ? ORDER BY position"
)
SELECT_DOCUMENT: Final = "SELECT media_type, body FROM documents WHERE digest = ?"


class LogReader:
    """The stored events, as one connection sees them."""

    def __init__(self, raw: sqlite3.Connection, path: str) -> None:
        self._raw = raw
        self._path = path
        self.streams = Names(raw, "stream")
        self.types = Names(raw, "event_type")

    def head(self) -> int:
        """The last stored position, 0 if there is none."""
        return int(self._raw.execute(SELECT_HEAD).fetchone()[0])

    def chunk(self, after: int, until: int, count: int) -> list[RecordedEvent]:
        """Events after a position, up to another that is stored, at most ``count``.

        Raises:
            LogCorrupt: Positions are missing.
        """
        records = self._fetch(SELECT_CHUNK, (after, until, count))
        last = records[-1].position if records else 0
        if last != after + len(records):
            raise LogCorrupt(self._path, f"events are missing after position {after}")
        return records

    def stream_chunk(
        self, stream: str, after_version: int, until: int, count: int
    ) -> list[RecordedEvent]:
        """A stream's events after a version, up to a position, at most ``count``.

        Raises:
            LogCorrupt: Versions are missing.
        """
        number = self.streams.find(stream)
        if number is None:
            return []
        records = self._fetch(SELECT_STREAM, (number, after_version, until, count))
        if records and records[-1].version != after_version + len(records):
            raise LogCorrupt(
                self._path, f"events of stream {stream!r} are missing after version {after_version}"
            )
        return records

    def version(self, stream: str) -> int:
        """How many events a stream has."""
        number = self.streams.find(stream)
        if number is None:
            return 0
        return int(self._raw.execute(SELECT_VERSION, (number,)).fetchone()[0])

    def version_at(self, stream: str, position: int) -> int:
        """How many events a stream had at a position; quick if few have come since."""
        number = self.streams.find(stream)
        row = self._raw.execute(SELECT_VERSION_AT, (number, position)).fetchone()
        return 0 if row is None else int(row[0])

    def at_position(self, first: int, count: int) -> list[RecordedEvent]:
        """As :meth:`eventstore.sequencer.History.at_position`."""
        return self._fetch(SELECT_CHUNK, (first - 1, first - 1 + count, count))

    def at_version(self, stream: str, first: int, count: int) -> list[RecordedEvent]:
        """As :meth:`eventstore.sequencer.History.at_version`."""
        return self.stream_chunk(stream, first - 1, self.head(), count)

    def newest_ids(self, count: int) -> Iterable[tuple[str, int]]:
        """Ids and positions of the last ``count`` events, oldest first."""
        return self._raw.execute(SELECT_NEWEST_IDS, (self.head() - count,)).fetchall()

    def document(self, digest: str) -> Document:
        """As :meth:`eventstore.log.EventLog.document`."""
        row = self._raw.execute(SELECT_DOCUMENT, (digest,)).fetchone()
        if row is None:
            raise DocumentNotFound(digest)
        document = Document(media_type=row[0], body=row[1])
        if document.digest != digest:
            raise LogCorrupt(self._path, f"the body stored as {digest} is {document.digest}")
        return document

    def _fetch(self, statement: str, arguments: tuple[int, ...]) -> list[RecordedEvent]:
        records: list[RecordedEvent] = []
        size_bytes = 0
        cursor = self._raw.execute(statement, arguments)
        row: Row
        for row in cursor:
            record = to_record(row, self.streams, self.types)
            records.append(record)
            size_bytes += len(record.data)
            if size_bytes > READ_CHUNK_BYTES_MAX:
                break
        cursor.close()
        return records
