"""Files that are no whole log of this version: each is made at a path, of a log that is whole."""

import shutil
import sqlite3
from pathlib import Path


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
