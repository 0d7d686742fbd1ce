"""A whole copy of a log, while it is being written, and without being in its way.

SQLite's own ways to copy either stay in one read transaction to the end, which keeps the WAL
growing, or begin again whenever somebody appends. A log needs neither: what is stored never
changes. So its end is looked up once, and everything up to there is copied in short visits.
"""

import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Final

from msgspec import Struct

from eventstore.errors import LogCorrupt, LogInaccessible, StoreFull
from eventstore.note import Verifier
from eventstore.sqlite.completeness import check_whole
from eventstore.sqlite.connection import in_our_terms
from eventstore.sqlite.evidence import verify_log
from eventstore.sqlite.reading import read_log_file
from eventstore.sqlite.source import file_uri
from eventstore.verification import Outcome, Progress, Verdict, Verification

EVENTS_PER_VISIT: Final = 4096
DOCUMENTS_PER_VISIT: Final = 16
"""Rows of a visit: some tens of milliseconds, unless documents are very large."""
LOWEST: Final = -(2**63)


class Table(Struct, frozen=True):
    """A table whose rows are only ever added, with growing keys."""

    name: str
    key: str
    rows: int = EVENTS_PER_VISIT


TABLES: Final = (
    Table("stream", "id"),
    Table("event_type", "id"),
    Table("documents", "rowid", DOCUMENTS_PER_VISIT),
    Table("event_record", "position"),
    Table("checkpoints", "size"),
)


def copy_log(
    path: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    trusted: Sequence[Verifier] = (),
    progress: Progress | None = None,
) -> Verification:
    """Make a whole, verified copy of a log, also while it is being written.

    Args:
        path: The log's file.
        destination: The copy, on a local file system; there must not be anything yet. It appears
            under this name at once and durably, with mode 0600, or not at all.
        trusted: Keys to verify the copy with, as for :func:`eventstore.verify_log`.
        progress: Called while the copy is verified.

    Returns:
        The verification of the copy, which is not broken. It holds all that was stored when the
        copying began.

    Raises:
        LogInaccessible: The copy cannot be made there, for want of room too, or something is there
            already.
        LogNotFound: No such log.
        LogIncomplete: It is itself a copy that lacks its -wal.
        LogCorrupt: It does not verify: nothing was made. Keep the file, verify it to know more.
        LogUnusable, StoreBusy: As :func:`eventstore.verify_log`.

    Runs on the caller's thread for about 15 s for each million events; call it in one of its own.
    The writer is not held up, and no read transaction lasts longer than a visit. If it is killed, a
    file ``.NAME.….partial`` is left, which may be deleted.
    """
    name, target = os.path.realpath(path), os.path.abspath(destination)
    if os.path.lexists(target):
        raise LogInaccessible(target, "exists already: a copy is never made over anything")
    with _partial(target) as partial:
        try:
            end = read_log_file(name, lambda raw: _copy(raw, name, partial))
        except StoreFull as error:
            raise LogInaccessible(target, "no space left for the copy") from error
        found = verify_log(partial, trusted=trusted, progress=progress)
        if found.verdict is Verdict.BROKEN or found.head != end:
            first = next((each for each in found.findings if each.outcome is Outcome.FAIL), None)
            problem = f"ends at #{found.head}" if first is None else f"{first.layer}: {first.text}"
            raise LogCorrupt(name, f"a copy of it does not verify ({problem}); it was removed")
        _publish(partial, target)
    return found


def _copy(raw: sqlite3.Connection, path: str, partial: str) -> int:
    """Copy everything into an empty file; returns the last position."""
    check_whole(raw, path)
    raw.execute("BEGIN")
    schema = raw.execute("SELECT type, sql FROM sqlite_schema WHERE sql NOT NULL").fetchall()
    ends = {each.name: _end(raw, each) for each in TABLES}
    marks = {name: _pragma(raw, name) for name in ("application_id", "user_version")}
    raw.execute("COMMIT")
    os.truncate(partial, 0)  # of an attempt before which a writer came
    with in_our_terms(partial), closing(sqlite3.connect(partial, isolation_level=None)) as copy:
        for name, value in marks.items():
            copy.execute(f"PRAGMA {name} = {value}")
        _create(copy, [sql for kind, sql in schema if kind == "table"])
    raw.execute("PRAGMA query_only = OFF")
    raw.execute("ATTACH ? AS copy", (file_uri(partial, "mode=rw"),))
    raw.execute("PRAGMA copy.journal_mode = OFF")
    raw.execute("PRAGMA copy.synchronous = OFF")
    for table in TABLES:
        _copy_rows(raw, table, ends[table.name])
    raw.execute("DETACH copy")
    with in_our_terms(partial), closing(sqlite3.connect(partial, isolation_level=None)) as copy:
        _create(copy, [sql for kind, sql in schema if kind != "table"])
        if copy.execute("SELECT 1 FROM sqlite_schema WHERE name = 'completeness'").fetchone():
            copy.execute("INSERT INTO completeness (id, whole) VALUES (1, 1)")
    return ends["event_record"]


def _copy_rows(raw: sqlite3.Connection, table: Table, end: int) -> None:
    columns = [row[1] for row in raw.execute(f"PRAGMA main.table_info({table.name})")]
    names = ", ".join(columns if table.key in columns else [table.key, *columns])
    statement = (
        f"INSERT INTO copy.{table.name} ({names}) SELECT {names} FROM main.{table.name} "
        f"WHERE {table.key} > ? AND {table.key} <= ? ORDER BY {table.key} LIMIT {table.rows}"
    )
    after = LOWEST
    while raw.execute(statement, (after, end)).rowcount == table.rows:
        after = _end(raw, table, "copy")


def _end(raw: sqlite3.Connection, table: Table, schema: str = "main") -> int:
    found = raw.execute(f"SELECT max({table.key}) FROM {schema}.{table.name}").fetchone()[0]
    return 0 if found is None else int(found)


def _create(copy: sqlite3.Connection, statements: Sequence[str]) -> None:
    copy.execute("PRAGMA synchronous = OFF")
    for statement in statements:
        copy.execute(statement)


def _pragma(raw: sqlite3.Connection, name: str) -> int:
    return int(raw.execute(f"PRAGMA {name}").fetchone()[0])


@contextmanager
def _partial(target: str) -> Iterator[str]:
    """An empty file beside the target that is gone at the end, whatever happens but a kill."""
    directory, name = os.path.split(target)
    try:
        fd, partial = tempfile.mkstemp(prefix=f".{name}.", suffix=".partial", dir=directory)
    except OSError as error:
        raise LogInaccessible(target, f"cannot be made: {error.strerror}") from error
    os.close(fd)
    try:
        yield partial
    finally:
        with suppress(FileNotFoundError):
            os.unlink(partial)


def _publish(partial: str, target: str) -> None:
    """Give a finished file its name, unless something has got it meanwhile; both durably."""
    try:
        _sync(partial, os.O_RDONLY)
        os.link(partial, target)
        os.unlink(partial)
        _sync(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise LogInaccessible(target, f"cannot be made: {error.strerror}") from error


def _sync(path: str, flags: int) -> None:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
