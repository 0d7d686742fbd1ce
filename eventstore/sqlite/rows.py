"""Rows of the log to records and back."""

import sqlite3
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, TypeAlias

import msgspec

from eventstore.canonical import actor_json
from eventstore.envelope import Actor, RecordedEvent
from eventstore.limits import NAMES_CACHED_MAX

Row: TypeAlias = tuple[
    int, int, int, int, str, int, str | None, int | None, str | None, bytes, str | None, bytes
]

SELECT: Final = (
    "SELECT position, stream_id, version, type_id, event_id, recorded_at_ns, correlation_id, "
    "causation, actor, CAST(data AS BLOB), documents, leaf_hash FROM event_record "
)
INSERT: Final = (
    "INSERT INTO event_record (position, stream_id, version, type_id, event_id, recorded_at_ns, "
    "correlation_id, causation, actor, data, documents, leaf_hash) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
ACTORS_CACHED_MAX: Final = 1024

_decode_digests: Final = msgspec.json.Decoder(tuple[str, ...]).decode
_encode: Final = msgspec.json.Encoder().encode


class NamesByNumber(dict[int, str]):
    """The names of one table by number: looked up once, then a dictionary and nothing more."""

    def __init__(self, raw: sqlite3.Connection, table: str) -> None:
        super().__init__()
        self._raw = raw
        self._select = f"SELECT name FROM {table} WHERE id = ?"

    def __missing__(self, number: int) -> str:
        """Look one up.

        Raises:
            ValueError: The number stands for none: the file is damaged.
        """
        row = self._raw.execute(self._select, (number,)).fetchone()
        if row is None:
            raise ValueError(f"the number {number} stands for no name")
        if len(self) >= NAMES_CACHED_MAX:
            self.clear()
        name = self[number] = str(row[0])
        return name


class Names:
    """The numbers that stand for names in one table, as one connection sees them.

    Attributes:
        by_number: The name that a stored number stands for.
    """

    def __init__(self, raw: sqlite3.Connection, table: str) -> None:
        self._raw = raw
        self._select_id = f"SELECT id FROM {table} WHERE name = ?"
        self._insert = f"INSERT INTO {table} (id, name) VALUES (?, ?)"
        self._select_last = f"SELECT coalesce(max(id), 0) FROM {table}"
        self.by_number = NamesByNumber(raw, table)
        self._ids: dict[str, int] = {}

    def find(self, name: str) -> int | None:
        """The number of a name, if it has one."""
        number = self._ids.get(name)
        if number is None:
            row = self._raw.execute(self._select_id, (name,)).fetchone()
            if row is None:
                return None
            number = int(row[0])
            if len(self._ids) >= NAMES_CACHED_MAX:
                self._ids.clear()
            self._ids[name] = number
        return number

    def intern(self, names: Iterable[str]) -> dict[str, int]:
        """Numbers for all these names, new ones where needed; within a transaction.

        New numbers are not remembered, as the transaction may yet fail.
        """
        numbers: dict[str, int] = {}
        fresh: list[str] = []
        for name in names:
            number = self.find(name)
            if number is None:
                fresh.append(name)
            else:
                numbers[name] = number
        if fresh:
            last = self._raw.execute(self._select_last).fetchone()[0]
            added = {name: last + index for index, name in enumerate(fresh, start=1)}
            self._raw.executemany(self._insert, [(id_, name) for name, id_ in added.items()])
            numbers.update(added)
        return numbers


def to_row(record: RecordedEvent, stream_id: int, type_id: int) -> tuple[object, ...]:
    """The parameters of :data:`INSERT`."""
    return (
        record.position,
        stream_id,
        record.version,
        type_id,
        record.event_id,
        record.recorded_at_ns,
        record.correlation_id,
        record.causation,
        None if record.actor is None else actor_json(record.actor).decode(),
        record.data.decode(),
        _encode(record.documents).decode() if record.documents else None,
        record.leaf_hash,
    )


def to_record(row: Row, streams: NamesByNumber, types: NamesByNumber) -> RecordedEvent:
    """One row of :data:`SELECT` as a record.

    Raises:
        ValueError: As :class:`NamesByNumber`.
    """
    return RecordedEvent(
        position=row[0],
        stream=streams[row[1]],
        version=row[2],
        type=types[row[3]],
        event_id=row[4],
        recorded_at_ns=row[5],
        correlation_id=row[6],
        causation=row[7],
        actor=None if row[8] is None else _decode_actor(row[8]),
        data=row[9],
        documents=() if row[10] is None else _decode_digests(row[10]),
        leaf_hash=row[11],
    )


@lru_cache(maxsize=ACTORS_CACHED_MAX)
def _decode_actor(text: str) -> Actor:
    return msgspec.json.decode(text, type=Actor)
