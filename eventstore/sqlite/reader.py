"""Reading a log on one connection; everything here runs on that connection's thread.

Each call is one statement, or a few, that are read to their end or closed, so no read transaction
outlives it: a reader that stays in one keeps the WAL from being reused, however slow it is.
"""

import sqlite3
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from eventstore.envelope import Document, RecordedEvent
from eventstore.errors import DocumentNotFound, LogCorrupt
from eventstore.limits import APPEND_BYTES_MAX, READ_CHUNK_BYTES_MAX, READ_SCAN_EVENTS
from eventstore.selection import Selection
from eventstore.sqlite.rows import SELECT, Names, Row, to_record

WITHIN_LOG: Final = "WHERE position > ? AND position <= ?"
WITHIN_STREAM: Final = "WHERE stream_id = ? AND version > ? AND version <= ?"
COUNT: Final = "SELECT count(*) FROM event_record "
SELECT_HEAD: Final = "SELECT coalesce(max(position), 0) FROM event_record"
SELECT_VERSION: Final = "SELECT coalesce(max(version), 0) FROM event_record WHERE stream_id = ?"
SELECT_POSITION: Final = "SELECT position FROM event_record WHERE stream_id = ? AND version = ?"
SELECT_NEWEST_IDS: Final = (
    "SELECT event_id, position FROM event_record WHERE position > ? ORDER BY position"
)
SELECT_DOCUMENT: Final = "SELECT media_type, body FROM documents WHERE digest = ?"


class Stretch(Struct, frozen=True):
    """Events that lie together: numbers above ``low`` up to ``high``, none of which is missing.

    Attributes:
        stream_id: Whose versions the numbers are; None: they are positions.
    """

    stream_id: int | None
    low: int
    high: int

    @property
    def keys(self) -> tuple[int, ...]:
        """Parameters of WITHIN_LOG or WITHIN_STREAM."""
        stream = () if self.stream_id is None else (self.stream_id,)
        return (*stream, self.low, self.high)

    def split(self, count: int, *, backwards: bool) -> tuple["Stretch", "Stretch"]:
        """The ``count`` events that come first, and what is left after them."""
        if backwards:
            middle = max(self.low, self.high - count)
            lower, upper = self._halves(middle)
            return upper, lower
        middle = min(self.high, self.low + count)
        return self._halves(middle)

    def _halves(self, middle: int) -> tuple["Stretch", "Stretch"]:
        return (
            Stretch(self.stream_id, self.low, middle),
            Stretch(self.stream_id, middle, self.high),
        )


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

    def stretch(self, stream: str, after: int, until: int) -> Stretch:
        """Where the events of a stream lie at positions above ``after`` up to ``until``.

        Raises:
            LogCorrupt: A version is missing.
        """
        number = self.streams.find(stream)
        if number is None:
            return Stretch(None, 0, 0)
        last = self.version(stream)
        low = self._version_at(number, last, after)
        return Stretch(number, low, self._version_at(number, last, until))

    def visit(
        self, stretch: Stretch, selection: Selection, count: int
    ) -> tuple[list[RecordedEvent], Stretch]:
        """Fetch what is asked for, ``count`` events at most, from one end of a stretch.

        Returns:
            The events, and what of the stretch is left for the next visit: one visit looks at no
            more than READ_SCAN_EVENTS.

        Raises:
            LogCorrupt: Events are missing in what was looked at.
        """
        condition = self._condition(selection)
        span = count if selection.takes_all else READ_SCAN_EVENTS
        part, rest = stretch.split(span, backwards=selection.backwards)
        within, order = (
            (WITHIN_LOG, "position") if stretch.stream_id is None else (WITHIN_STREAM, "version")
        )
        direction = "DESC" if selection.backwards else "ASC"
        records, cut = self._fetch(
            f"{SELECT}{within}{condition} ORDER BY {order} {direction} LIMIT ?",
            (*part.keys, count),
            READ_CHUNK_BYTES_MAX,
        )
        if cut or len(records) == count:
            last = records[-1].position if stretch.stream_id is None else records[-1].version
            seen = stretch.high - last + 1 if selection.backwards else last - stretch.low
            part, rest = stretch.split(seen, backwards=selection.backwards)
        found = len(records)
        if not selection.takes_all:
            found = self._raw.execute(COUNT + within, part.keys).fetchone()[0]
        if found != part.high - part.low:
            raise LogCorrupt(
                self._path, f"events are missing after {order} {part.low}, up to {part.high}"
            )
        return records, rest

    def _condition(self, selection: Selection) -> str:
        parts = []
        if selection.types is not None:
            numbers = map(self.types.find, sorted(selection.types))
            known = ", ".join(str(number) for number in numbers if number is not None)
            parts.append(f" AND type_id IN ({known})")
        if selection.since_ns is not None:
            parts.append(f" AND recorded_at_ns >= {selection.since_ns:d}")
        if selection.before_ns is not None:
            parts.append(f" AND recorded_at_ns < {selection.before_ns:d}")
        return "".join(parts)

    def _version_at(self, number: int, last: int, position: int) -> int:
        """How many of a stream's events are at positions up to this: both grow together."""
        if position <= 0:
            return 0
        low, high = 0, last
        middle = last  # most ask for all that is there
        while low < high:
            row = self._raw.execute(SELECT_POSITION, (number, middle)).fetchone()
            if row is None:
                raise LogCorrupt(
                    self._path,
                    f"version {middle} of stream {self.streams.by_number[number]!r} is missing",
                )
            if row[0] <= position:
                low = middle
            else:
                high = middle - 1
            middle = (low + high + 1) // 2
        return low

    def version(self, stream: str) -> int:
        """How many events a stream has."""
        number = self.streams.find(stream)
        if number is None:
            return 0
        return int(self._raw.execute(SELECT_VERSION, (number,)).fetchone()[0])

    def at_position(self, first: int, count: int) -> list[RecordedEvent]:
        """As :meth:`eventstore.sequencer.History.at_position`."""
        part = Stretch(None, first - 1, first - 1 + count)
        return self._fetch(f"{SELECT}{WITHIN_LOG} ORDER BY position", part.keys, APPEND_BYTES_MAX)[
            0
        ]

    def at_version(self, stream: str, first: int, count: int) -> list[RecordedEvent]:
        """As :meth:`eventstore.sequencer.History.at_version`."""
        number = self.streams.find(stream)
        if number is None:
            return []
        part = Stretch(number, first - 1, first - 1 + count)
        return self._fetch(
            f"{SELECT}{WITHIN_STREAM} ORDER BY version", part.keys, APPEND_BYTES_MAX
        )[0]

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

    def _fetch(
        self, statement: str, arguments: tuple[int, ...], bytes_max: int
    ) -> tuple[list[RecordedEvent], bool]:
        """Records, and whether there are more than fit into one visit."""
        records: list[RecordedEvent] = []
        size_bytes = 0
        streams, types = self.streams.by_number, self.types.by_number
        cursor = self._raw.execute(statement, arguments)
        row: Row
        for row in cursor:
            record = to_record(row, streams, types)
            records.append(record)
            size_bytes += len(record.data)
            if size_bytes > bytes_max:
                cursor.close()
                return records, True
        return records, False
