"""Logs of older versions become what a new log is, or stay what they are."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from eventstore.sqlite import schema
from tests.patience import PATIENCE_S

REPOSITORY = Path(__file__).resolve().parents[3]
GOLDEN = REPOSITORY / "tests" / "golden" / "logs" / "log_v1.db"
LISTS = ("table_list", "index_list", "table_xinfo", "index_xinfo", "foreign_key_list")


def shape(raw: sqlite3.Connection) -> dict[str, object]:
    """All that SQLite can say about a schema."""
    names = [row[0] for row in raw.execute("SELECT name FROM sqlite_schema")]
    return {
        "schema": set(raw.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema")),
        "version": raw.execute("PRAGMA user_version").fetchone(),
        "application": raw.execute("PRAGMA application_id").fetchone(),
        "rows": raw.execute("SELECT * FROM completeness").fetchall(),
        **{
            f"{what} {name}": raw.execute(f"PRAGMA {what}('{name}')").fetchall()
            for what in LISTS
            for name in names
        },
    }


@pytest.fixture
def fresh() -> sqlite3.Connection:
    raw = sqlite3.connect(":memory:", isolation_level=None)
    schema.create_schema(raw)
    return raw


def old(version: int) -> sqlite3.Connection:
    raw = sqlite3.connect(":memory:", isolation_level=None)
    raw.executescript("\n".join(schema.migrations()[:version]))
    raw.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    raw.execute(f"PRAGMA user_version = {version}")
    return raw


@pytest.mark.parametrize("version", range(1, schema.SCHEMA_VERSION + 1))
def test_a_migrated_log_is_what_a_fresh_one_is(fresh: sqlite3.Connection, version: int) -> None:
    raw = old(version)

    schema.migrate(raw)

    assert shape(raw) == shape(fresh)


def test_a_migrated_old_file_is_what_a_fresh_one_is(
    fresh: sqlite3.Connection, tmp_path: Path
) -> None:
    raw = sqlite3.connect(shutil.copy(GOLDEN, tmp_path / "events.db"), isolation_level=None)
    schema.migrate(raw)

    assert shape(raw) == shape(fresh)
    raw.close()


def test_there_is_a_step_for_every_version() -> None:
    assert len(schema.migrations()) == schema.SCHEMA_VERSION


def test_a_step_that_fails_leaves_the_old_version(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = old(1)
    before = set(raw.execute("SELECT name FROM sqlite_schema"))
    steps = schema.migrations()
    monkeypatch.setattr(schema, "migrations", lambda: [*steps, "CREATE TABLE stream (x);"])

    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        schema.migrate(raw)

    assert not raw.in_transaction
    assert set(raw.execute("SELECT name FROM sqlite_schema")) == before
    assert raw.execute("PRAGMA user_version").fetchone() == (1,)


KILLED = """
import os, signal, sqlite3, sys
from eventstore.sqlite import schema
from eventstore.sqlite.connection import configure_writer

raw = sqlite3.connect(sys.argv[1], isolation_level=None)
configure_writer(raw, sys.argv[1])
raw.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
steps = schema.migrations()
schema.migrations = lambda: [*steps, "SELECT die();"]
schema.migrate(raw)
"""


def test_a_migration_that_is_killed_leaves_the_old_version(tmp_path: Path) -> None:
    path = Path(shutil.copy(GOLDEN, tmp_path / "events.db"))

    done = subprocess.run(
        [sys.executable, "-c", KILLED, path], cwd=REPOSITORY, check=False, timeout=PATIENCE_S
    )

    assert done.returncode == -signal.SIGKILL
    assert os.path.getsize(f"{path}-wal") >= 0
    raw = sqlite3.connect(path, isolation_level=None)
    assert raw.execute("PRAGMA user_version").fetchone() == (1,)
    assert (
        raw.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'completeness'").fetchone()[0]
        == 0
    )
    schema.migrate(raw)
    assert raw.execute("SELECT whole FROM completeness").fetchone() == (1,)
    raw.close()
