"""Whether a log's file holds all of the log: what is in its -wal only, a copy of the file lacks.

The file's own word is the row in ``completeness``. As checkpoints move the newest version of it
from the -wal into the file, it is written twice around each: 0 before, which gets into the file,
and 1 after, which stays in the -wal. So with its -wal a log is always whole, and so it is if a
foreign program moves all of the -wal into the file and removes it; the file alone is not.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from msgspec import Struct

from eventstore.errors import LogIncomplete
from eventstore.sqlite.schema import schema_version

WAL_SUFFIX: Final = "-wal"
COMPLETENESS_SINCE_VERSION: Final = 2
SYNCHRONOUS_NORMAL: Final = 1
FRAME_BYTES: Final = 4096 + 24
"""A page in the WAL. Source: sqlite.org/fileformat2.html, section 4.1."""
WAL_LIMIT_BYTES: Final = 256 * 1024 * 1024
"""Bytes in a WAL that a reader keeps from beginning anew, at which appends are refused."""


class Moved(Struct, frozen=True):
    """What a checkpoint came to.

    Attributes:
        all: Whether all of the WAL is in the database file.
        held_bytes: Size of a WAL that is over WAL_LIMIT_BYTES and cannot begin anew, as a reader
            is in it; else 0.
    """

    all: bool
    held_bytes: int = 0


def move_wal(raw: sqlite3.Connection, *, held: bool = False) -> Moved:
    """Move what readers allow from the WAL into the database file, waiting for nobody.

    Args:
        raw: The writing connection.
        held: The last time there was too much in the WAL: if it still cannot begin anew, leave it
            as it is, or else each try would add to it.

    Raises:
        sqlite3.Error: As of a write. A full disk is no reason not to try: it makes room.
    """
    if held and not _begin_anew(raw):
        return Moved(all=False, held_bytes=_checkpoint(raw)[1])
    with _told_whole_in_the_end(raw):
        try:
            _tell(raw, whole=False)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
        moved, wal = _checkpoint(raw)
        too_much = wal > WAL_LIMIT_BYTES and not _begin_anew(raw)
    return Moved(all=moved, held_bytes=wal if too_much else 0)


def finish(raw: sqlite3.Connection) -> None:
    """Leave the file whole, unless a reader keeps something in the WAL: then leave it in both."""
    with _told_whole_in_the_end(raw):
        _tell(raw, whole=False)
        moved, _ = _checkpoint(raw)
    if moved:
        _checkpoint(raw)


def check_whole(raw: sqlite3.Connection, path: str) -> None:
    """Refuse a file that was copied without its -wal.

    Raises:
        LogIncomplete: It was.
    """
    if not is_whole(raw) and not wal_bytes(path):
        raise LogIncomplete(path)


def wal_bytes(path: str) -> int:
    """The size of the -wal beside a log, 0 if there is none."""
    with suppress(FileNotFoundError):
        return os.stat(path + WAL_SUFFIX).st_size
    return 0


def is_whole(raw: sqlite3.Connection) -> bool:
    """What the log says of itself, as far as it can be read."""
    if schema_version(raw) < COMPLETENESS_SINCE_VERSION:
        return True
    row = raw.execute("SELECT whole FROM completeness").fetchone()
    return row is None or bool(row[0])


def _checkpoint(raw: sqlite3.Connection) -> tuple[bool, int]:
    """Whether all was moved, and how many bytes the WAL has."""
    busy, frames, moved = raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return not busy and frames == moved, frames * FRAME_BYTES


def _begin_anew(raw: sqlite3.Connection) -> bool:
    """Have the next write begin the WAL anew, if no reader is in it; waits for none."""
    patience = raw.execute("PRAGMA busy_timeout").fetchone()[0]
    raw.execute("PRAGMA busy_timeout = 0")
    try:
        return not raw.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0]
    finally:
        raw.execute(f"PRAGMA busy_timeout = {patience}")


@contextmanager
def _told_whole_in_the_end(raw: sqlite3.Connection) -> Iterator[None]:
    """Write 1 after the block, and try to, too, where the disk failed in it.

    SQLite moves all that is in the -wal when the connection is closed, whatever happened before: if
    the last word there were 0, a log that has everything would be taken for one that has not.
    """
    try:
        yield
        _tell(raw, whole=True)
    except sqlite3.Error:
        with suppress(sqlite3.Error):
            _tell(raw, whole=True)
        raise


def _tell(raw: sqlite3.Connection, *, whole: bool) -> None:
    # What waits for the disk is the checkpoint, and the next append. Losing this in a power cut
    # changes nothing, as the -wal then loses its end.
    # Source: sqlite.org/pragma.html, synchronous: NORMAL in WAL mode.
    before = raw.execute("PRAGMA synchronous").fetchone()[0]
    raw.execute(f"PRAGMA synchronous = {min(before, SYNCHRONOUS_NORMAL)}")
    try:
        raw.execute("UPDATE completeness SET whole = ?", (whole,))
    finally:
        raw.execute(f"PRAGMA synchronous = {before}")
