"""Connections to a log: how they are opened and set, one hop per job, errors in our terms.

The private names of aiosqlite that everything rests on are used here and nowhere else.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import aiosqlite
import anyio
import msgspec

from eventstore.errors import (
    EventStoreError,
    LogCorrupt,
    LogInaccessible,
    LogNotDurable,
    NotALog,
    StoreBusy,
    StoreClosed,
    StoreFull,
)

T = TypeVar("T")

BUSY_TIMEOUT_MS: Final = 5000
"""How long a connection waits for another program's lock before StoreBusy."""

SETTINGS: Final = (
    f"busy_timeout = {BUSY_TIMEOUT_MS}",
    "cell_size_check = ON",
    "mmap_size = 0",
    "temp_store = MEMORY",
    "trusted_schema = OFF",
)
WRITER_SETTINGS: Final = ("wal_autocheckpoint = 0",)
"""Checkpoints are the writer's own business: see :mod:`eventstore.sqlite.checkpoint`."""
READER_SETTINGS: Final = ("query_only = ON",)

SYNCHRONOUS_FULL: Final = 2
PRIMARY_CODE_MASK: Final = 0xFF
"""The low byte of an extended result code. Source: sqlite.org/rescode.html, section 2."""


class Connection:
    """One SQLite connection, on a thread of its own. Close it: the thread outlives the loop."""

    def __init__(self, path: str, driver: aiosqlite.Connection) -> None:
        self._path = path
        self._driver = driver
        self._closed = False

    async def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``job`` on the connection's thread.

        One hop to another thread costs about as much as one sync of the disk, so whatever belongs
        together goes in one job. aiosqlite has no public call for that.

        Raises:
            StoreClosed: The connection was closed.
            EventStoreError: What SQLite says, in our terms.

        Cancellation: the job runs to its end whether anybody waits for it or not.
        """
        if self._closed:
            raise StoreClosed
        with in_our_terms(self._path):
            raw = self._driver._conn  # noqa: SLF001 - see above
            hop = self._driver._execute(job, raw)  # type: ignore[no-untyped-call] # noqa: SLF001 - see above
            result: T = await hop
        return result

    async def close(self) -> None:
        """End the connection and its thread, after the jobs that wait. Cancellation: shielded."""
        self._closed = True
        try:
            with anyio.CancelScope(shield=True), in_our_terms(self._path):
                await self._driver.close()
        finally:
            _end(self._driver)


async def connect(path: str, uri: str) -> Connection:
    """Open an existing database file. Only the log's one writer may open it to write.

    Args:
        path: What errors call it.
        uri: Where it is and how to open it.

    Cancellation: shielded, for a connection that nobody closes keeps the program from ending.
    """
    with anyio.CancelScope(shield=True), in_our_terms(path):
        driver = aiosqlite.connect(uri, uri=True, isolation_level=None)
        try:
            await driver
        except BaseException:
            _end(driver)
            raise
    return Connection(path, driver)


def _end(driver: aiosqlite.Connection) -> None:
    """Wait for a thread that was told to stop: its last word must find the loop still open.

    It waits for nothing itself, so this takes as long as the job that it is at, mostly none.
    """
    driver._thread.join()  # noqa: SLF001 - nothing public waits for it if its task was cancelled


def configure_reader(raw: sqlite3.Connection) -> None:
    """Set up a connection that must not be able to write."""
    _apply(raw, SETTINGS + READER_SETTINGS)


def configure_writer(raw: sqlite3.Connection, path: str) -> None:
    """Set up the connection that writes, and see that it is as durable as it must be.

    Raises:
        LogNotDurable: No write-ahead log here, or no full syncs.
    """
    _apply(raw, SETTINGS + WRITER_SETTINGS)
    journal = raw.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if journal != "wal":
        raise LogNotDurable(
            path, f"SQLite keeps a journal of kind {journal!r} here, but it must be 'wal'"
        )
    raw.execute("PRAGMA synchronous = FULL")
    synchronous = raw.execute("PRAGMA synchronous").fetchone()[0]
    if synchronous != SYNCHRONOUS_FULL:
        raise LogNotDurable(
            path, f"SQLite is at synchronous = {synchronous}, but it must be {SYNCHRONOUS_FULL}"
        )


def _apply(raw: sqlite3.Connection, settings: tuple[str, ...]) -> None:
    for setting in settings:
        raw.execute(f"PRAGMA {setting}")


@contextmanager
def in_our_terms(path: str) -> Iterator[None]:
    """Translate what SQLite raises; the one place where its codes are known.

    In a damaged file there is also text that is none, in rows as in what SQLite says of them; JSON
    that is none; and NULL, or a number that stands for nothing, where that cannot be.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path) from error
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise LogCorrupt(path, f"holds what no log can: {error}") from error


def translate(error: sqlite3.Error, path: str) -> EventStoreError:
    """Say what an SQLite error means for the log.

    Source: sqlite.org/rescode.html.
    """
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    problem = f"{error} ({name})"
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:
        return StoreFull(path)  # the WAL's index could not grow; nothing was written yet
    match code & PRIMARY_CODE_MASK:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreBusy(path)
        case sqlite3.SQLITE_FULL:
            return StoreFull(path)
        case sqlite3.SQLITE_NOTADB:
            return NotALog(path, "is not an SQLite database")
        case (
            sqlite3.SQLITE_CANTOPEN
            | sqlite3.SQLITE_PERM
            | sqlite3.SQLITE_READONLY
            | sqlite3.SQLITE_IOERR
        ):
            return LogInaccessible(path, problem)
        case sqlite3.SQLITE_CONSTRAINT:
            return LogCorrupt(path, f"something other than its writer has written to it: {problem}")
        case _:
            return LogCorrupt(path, problem)
