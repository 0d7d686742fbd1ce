"""Whether a file is an event log, and making it one."""

import sqlite3
from importlib.resources import files
from typing import Final

from eventstore.errors import LogTooNew, NotALog

APPLICATION_ID: Final = int.from_bytes(b"sndt", "big")
"""Marks the file as ours. Source: sqlite.org/fileformat2.html, section 1.3."""
SCHEMA_VERSION: Final = 1


def create_schema(raw: sqlite3.Connection) -> None:
    """Make an empty database a log, in one transaction."""
    tables = files("eventstore.sqlite").joinpath("schema.sql").read_text(encoding="utf-8")
    raw.executescript(
        f"BEGIN IMMEDIATE;\n{tables}\n"
        f"PRAGMA application_id = {APPLICATION_ID};\n"
        f"PRAGMA user_version = {SCHEMA_VERSION};\n"
        "COMMIT;"
    )


def is_blank(raw: sqlite3.Connection) -> bool:
    """Whether nothing was ever put into the database."""
    marks = _pragma(raw, "application_id") or _pragma(raw, "user_version")
    tables = raw.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    return not marks and not tables


def check_schema(raw: sqlite3.Connection, path: str) -> None:
    """Refuse a database that is not a log that this program can read.

    Raises:
        NotALog: It is some other program's, or still empty.
        LogTooNew: A newer program made it.
    """
    if is_blank(raw):
        raise NotALog(path, "is empty: no log was ever made in it")
    if _pragma(raw, "application_id") != APPLICATION_ID:
        raise NotALog(path, "is an SQLite database of another program")
    version = _pragma(raw, "user_version")
    if version > SCHEMA_VERSION:
        raise LogTooNew(path, version, SCHEMA_VERSION)


def _pragma(raw: sqlite3.Connection, name: str) -> int:
    return int(raw.execute(f"PRAGMA {name}").fetchone()[0])
