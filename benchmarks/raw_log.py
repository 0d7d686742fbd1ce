"""What the event log is measured against: `sqlite3` doing the same storage work and nothing else.

The same columns, the same unique index, WAL with full syncs, rows that are ready to be bound. It
does not decide expected versions, notice repeated appends, check JSON, hash, or wake anybody, and
its rows are made before the clock starts; but for one figure, for which event ids, canonical bytes
and hashes are made in a bare loop, as they must be for a log that can be proved.
"""

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from eventstore import new_event_id
from eventstore.canonical import encode_fields

SCHEMA = """
CREATE TABLE event_record (
    position INTEGER PRIMARY KEY, stream_id INTEGER NOT NULL, version INTEGER NOT NULL,
    type_id INTEGER NOT NULL, event_id TEXT NOT NULL, recorded_at_ns INTEGER NOT NULL,
    correlation_id TEXT, causation INTEGER, actor TEXT, data TEXT NOT NULL, documents TEXT,
    leaf_hash BLOB NOT NULL, UNIQUE (stream_id, version)
) STRICT
"""
INSERT = f"INSERT INTO event_record VALUES ({','.join('?' * 12)})"
SELECT = (
    "SELECT position, stream_id, version, type_id, event_id, recorded_at_ns, correlation_id, "
    "causation, actor, CAST(data AS BLOB), documents, leaf_hash FROM event_record "
)
FETCH_ROWS = 1024

Row = tuple[object, ...]


def open_raw(path: Path) -> sqlite3.Connection:
    """Open a log of bare rows, making it if it is missing."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        connection.execute(SCHEMA)
    return connection


def rows(count: int, data: bytes, streams: int) -> list[Row]:
    """Rows ready to be stored, spread over streams."""
    text = data.decode()
    return [
        (
            *(position, position % streams, position // streams + 1, 1),
            *(f"01a209d5-97b0-7421-ac33-{position:012x}", 1_800_000_000_000_000_000),
            *(None, None, '{"uid":0,"gid":0,"pid":1}', text, None, b"\0" * 32),
        )
        for position in range(1, count + 1)
    ]


def store(connection: sqlite3.Connection, batch: list[Row]) -> None:
    """One durable transaction."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(INSERT, batch)
    connection.execute("COMMIT")


def store_all(path: Path, ready: list[Row], batch: int) -> list[float]:
    """Store rows in transactions of ``batch``; the seconds that each took."""
    connection = open_raw(path)
    taken = []
    for at in range(0, len(ready), batch):
        part = ready[at : at + batch]
        began = time.perf_counter()
        store(connection, part)
        taken.append(time.perf_counter() - began)
    connection.close()
    return taken


def make_and_store_all(path: Path, count: int, data: bytes, streams: int, batch: int) -> float:
    """Make ids and hashes, and store, in transactions of ``batch``; the seconds that it took."""
    connection = open_raw(path)
    ready = rows(count, data, streams)
    began = time.perf_counter()
    for at in range(0, count, batch):
        store(connection, [_made(row) for row in ready[at : at + batch]])
    taken = time.perf_counter() - began
    connection.close()
    return taken


def _made(row: Row) -> Row:
    made = (*row[:4], new_event_id(), *row[5:11])
    fields = [None if each is None else str(each).encode() for each in made]
    return (*made, hashlib.sha256(b"\0" + encode_fields(fields)).digest())


def read_all(path: Path, where: str = "", arguments: tuple[int, ...] = ()) -> Iterator[Row]:
    """Every row in order of position, or those that a condition selects."""
    connection = open_raw(path)
    cursor = connection.execute(f"{SELECT} {where} ORDER BY position", arguments)
    while chunk := cursor.fetchmany(FETCH_ROWS):
        yield from chunk
    connection.close()
