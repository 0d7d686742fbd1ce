"""Whether a file is an event log, making it one, and bringing an older one up to date."""

import sqlite3
from importlib.resources import files
from typing import Final

from eventstore.errors import LogTooNew, NotALog

APPLICATION_ID: Final = int.from_bytes(b"sndt", "big")
"""Marks the file as ours. Source: sqlite.org/fileformat2.html, section 1.3."""
SCHEMA_VERSION: Final = 2


def create_schema(raw: sqlite3.Connection) -> None:
    """Make an empty database a log, in one transaction."""
    tables = files("eventstore.sqlite").joinpath("schema.sql").read_text(encoding="utf-8")
    _in_one_transaction(
        raw,
        f"{tables}\nPRAGMA application_id = {APPLICATION_ID};\n"
        f"PRAGMA user_version = {SCHEMA_VERSION};",
    )


def migrations() -> list[str]:
    """What makes a log of version 1, 2, …, each from the one before.

    They are forward only, and never change once a log may have been through them.
    """
    folder = files("eventstore.sqlite").joinpath("migrations")
    steps = sorted((each for each in folder.iterdir() if each.name.endswith(".sql")), key=str)
    return [each.read_text(encoding="utf-8") for each in steps]


def migrate(raw: sqlite3.Connection) -> None:
    """Bring a log that was checked to this program's version, in one transaction.

    The caller holds the writer's lock. Killed at any instant, the log is of the one version or of
    the other, and either can be opened.
    """
    version = schema_version(raw)
    if version < SCHEMA_VERSION:
        steps = "\n".join(migrations()[version:])
        _in_one_transaction(raw, f"{steps}\nPRAGMA user_version = {SCHEMA_VERSION};")


def is_blank(raw: sqlite3.Connection) -> bool:
    """Whether nothing was ever put into the database."""
    marks = _pragma(raw, "application_id") or schema_version(raw)
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
    version = schema_version(raw)
    if _pragma(raw, "application_id") != APPLICATION_ID or version < 1:
        raise NotALog(path, "is an SQLite database of another program")
    if version > SCHEMA_VERSION:
        raise LogTooNew(path, version, SCHEMA_VERSION)


def schema_version(raw: sqlite3.Connection) -> int:
    """The version that the database says it has, 0 if it says nothing."""
    return _pragma(raw, "user_version")


def _in_one_transaction(raw: sqlite3.Connection, statements: str) -> None:
    try:
        raw.executescript(f"BEGIN IMMEDIATE;\n{statements}\nCOMMIT;")
    except BaseException:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raise


def _pragma(raw: sqlite3.Connection, name: str) -> int:
    return int(raw.execute(f"PRAGMA {name}").fetchone()[0])
