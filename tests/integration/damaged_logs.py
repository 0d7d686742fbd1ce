"""Files that are no whole log of this version: each is made at a path, of a log that is whole.

And the way to change one as somebody with a hex editor does.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


@contextmanager
def unlocked(path: Path) -> Iterator[sqlite3.Connection]:
    """A log without the triggers that guard it, which are back afterwards."""
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        found = raw.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in found:
            raw.execute(f"DROP TRIGGER {name}")
        yield raw
        for _, sql in found:
            raw.execute(sql)


def garbage(path: Path, _: Path) -> None:
    path.write_bytes(b"not a log at all\n" * 500)


def empty(path: Path, _: Path) -> None:
    path.touch()


def directory(path: Path, _: Path) -> None:
    path.mkdir()


def another_database(path: Path, _: Path) -> None:
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE t (x)")
    raw.close()


def half(path: Path, whole: Path) -> None:
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])


def without_wal(path: Path, whole: Path) -> None:
    shutil.copy(whole, path)
    raw = sqlite3.connect(path)
    raw.execute("UPDATE completeness SET whole = 0")
    raw.commit()
    raw.close()


def newer(path: Path, whole: Path) -> None:
    shutil.copy(whole, path)
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA user_version = 99")
    raw.close()
