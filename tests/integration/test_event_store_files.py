"""The log as a file: other processes, sudden deaths, full disks, damaged and foreign files."""

import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import msgspec
import pytest

from eventstore import (
    ANY,
    NO_STREAM,
    Actor,
    Document,
    DocumentNotFound,
    EventLog,
    Exactly,
    LogCorrupt,
    LogInaccessible,
    LogLocked,
    LogNotDurable,
    LogNotFound,
    LogReadOnly,
    LogTooNew,
    LogUnusable,
    NewEvent,
    NotALog,
    RecordedEvent,
    StoreBusy,
    StoreClosed,
    StoreFull,
    StorePoisoned,
    leaf_hash,
    open_log,
)
from eventstore.sqlite import checkpoint
from eventstore.sqlite.connection import configure_writer
from eventstore.sqlite.log import SqliteLog
from eventstore.sqlite.schema import APPLICATION_ID, SCHEMA_VERSION
from tests.integration.event_store_processes import REPOSITORY, WRITER, child
from tests.patience import PATIENCE_S


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


def event(number: int = 0, **members: object) -> NewEvent:
    return NewEvent(type="counted", data={"n": number}, **members)  # type: ignore[arg-type]  # as its caller gave it


async def fill(path: Path, how_many: int = 10) -> None:
    async with open_log(path) as log:
        for number in range(how_many):
            await log.append("s", [event(number)], expected=Exactly(number))


async def everything(log: EventLog) -> list[RecordedEvent]:
    return [record async for record in log.read()]


async def opened(path: Path, *, read_only: bool) -> None:
    async with open_log(path, read_only=read_only) as log:
        await everything(log)


def writing(log: EventLog) -> SqliteLog:
    assert isinstance(log, SqliteLog)
    return log


# --- what is kept --------------------------------------------------------------------------------


async def test_a_log_is_kept_from_one_opening_to_the_next(path: Path) -> None:
    document = Document(media_type="text/plain", body=b"body")
    async with open_log(path) as log:
        await log.append(
            "s",
            [event(actor=Actor(uid=1, gid=2, pid=3), documents=(document,), correlation_id="r")],
            expected=NO_STREAM,
        )
        await log.append("t", [event(1, causation=1), event(2)], expected=NO_STREAM)
        before = await everything(log)

    async with open_log(path) as log:
        assert await everything(log) == before
        assert await log.document(document.digest) == document
        assert await log.head() == 3
        (record,) = await log.append("t", [event(3)], expected=Exactly(2))
        assert (record.position, record.version) == (4, 3)


async def test_the_file_belongs_to_its_owner_alone(path: Path) -> None:
    await fill(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.with_name("events.db.lock").stat().st_mode) == 0o600
    assert sorted(each.name for each in path.parent.iterdir()) == ["events.db", "events.db.lock"]


async def test_settings_are_what_they_must_be(path: Path) -> None:
    async with open_log(path) as log:
        connection = writing(log)._connection

        async def pragma(name: str) -> object:
            return await connection.run(lambda raw: raw.execute(f"PRAGMA {name}").fetchone()[0])

        assert await pragma("journal_mode") == "wal"
        assert await pragma("synchronous") == 2
        assert await pragma("wal_autocheckpoint") == 0
        assert await pragma("trusted_schema") == 0
        assert await pragma("cell_size_check") == 1
        assert await pragma("application_id") == APPLICATION_ID
        assert await pragma("user_version") == SCHEMA_VERSION

        reads = writing(log)._reads._opened.connection
        with pytest.raises(LogInaccessible):
            await reads.run(lambda raw: raw.execute("INSERT INTO stream VALUES (9, 'x')"))


def test_a_file_system_that_cannot_have_a_wal_is_refused(path: Path) -> None:
    # dot-file locks come without the shared memory that a WAL needs.
    raw = sqlite3.connect(f"file:{path}?vfs=unix-dotfile", uri=True, isolation_level=None)

    with pytest.raises(LogNotDurable, match="'delete' here, but it must be 'wal'"):
        configure_writer(raw, str(path))
    raw.close()


async def test_a_setting_that_does_not_take_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventstore.sqlite.connection.SYNCHRONOUS_FULL", 3)

    with pytest.raises(LogNotDurable, match="synchronous = 2"):
        await opened(path, read_only=False)


COLUMNS = (
    "position stream version type event_id recorded_at_ns correlation_id causation actor data "
    "leaf_hash"
).split()


async def test_sql_readers_see_the_promised_columns(path: Path) -> None:
    documents = (
        Document(media_type="text/plain", body=b"one"),
        Document(media_type="text/plain", body=b"two"),
    )
    async with open_log(path, clock=lambda: 77) as log:
        (record,) = await log.append(
            "s",
            [event(7, actor=Actor(uid=1, gid=2, pid=3), documents=documents, event_id="e")],
            expected=NO_STREAM,
        )

        raw = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        cursor = raw.execute("SELECT *, data ->> 'n', actor ->> 'pid' FROM events")
        assert [column[0] for column in cursor.description[:-2]] == COLUMNS
        actor = '{"uid":1,"gid":2,"pid":3}'
        assert cursor.fetchall() == [
            (1, "s", 1, "counted", "e", 77, None, None, actor, '{"n":7}', record.leaf_hash, 7, 3)
        ]
        assert raw.execute(
            "SELECT position, ordinal, body FROM event_documents JOIN documents USING (digest) "
            "ORDER BY ordinal"
        ).fetchall() == [(1, 0, b"one"), (1, 1, b"two")]
        raw.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event_record SET data = '{}'",
        "DELETE FROM event_record",
        "INSERT OR REPLACE INTO event_record SELECT * FROM event_record WHERE position = 1",
        "INSERT INTO event_record SELECT 9, 9, 9, 9, event_id, 9, '', 9, '', '', '', x'00' "
        "FROM event_record WHERE position = 1",
        "UPDATE documents SET body = x''",
        "DELETE FROM documents",
        "UPDATE stream SET name = 'x'",
        "DELETE FROM stream",
        "UPDATE event_type SET name = 'x'",
        "DELETE FROM event_type",
    ],
)
async def test_a_sql_shell_cannot_rewrite_history_by_accident(path: Path, statement: str) -> None:
    document = Document(media_type="text/plain", body=b"body")
    async with open_log(path) as log:
        await log.append("s", [event(documents=(document,))], expected=NO_STREAM)

    raw = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError):
        raw.execute(statement)
    raw.close()


async def test_a_repeat_is_recognised_after_reopening(path: Path) -> None:
    batch = [event(number) for number in range(4)]
    async with open_log(path, window=6) as log:
        first = await log.append("s", batch, expected=ANY)
        for number in range(4):
            await log.append("t", [event(number)], expected=ANY)

    async with open_log(path, window=6) as log:
        assert await log.append("s", batch, expected=ANY) == first
        assert await log.head() == 8


async def test_more_names_than_are_remembered_are_still_known(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("eventstore.sequencer", "eventstore.sqlite.rows"):
        monkeypatch.setattr(f"{module}.NAMES_CACHED_MAX", 3)
    async with open_log(path) as log:
        for version in range(3):
            for number in range(10):
                (record,) = await log.append(
                    f"s{number}",
                    [NewEvent(type=f"t{number % 7}", data=b"{}")],
                    expected=Exactly(version),
                )
                assert record.version == version + 1
        stored = await everything(log)
    assert [record.stream for record in stored] == [f"s{number}" for number in range(10)] * 3
    assert [record.type for record in stored] == [f"t{number % 7}" for number in range(10)] * 3


# --- who may open it -----------------------------------------------------------------------------


async def test_a_second_writer_is_refused_and_told_who_the_first_is(path: Path) -> None:
    with child(WRITER, path, "told") as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"

        with pytest.raises(LogLocked) as caught:
            await opened(path, read_only=False)
        assert caught.value.pid == writer.pid
        assert f"process {writer.pid}" in str(caught.value)

        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        await opened(path, read_only=False)


async def test_a_second_writer_in_the_same_process_is_refused(path: Path) -> None:
    async with open_log(path) as log:
        with pytest.raises(LogLocked) as caught:
            await opened(path, read_only=False)
        assert caught.value.pid == os.getpid()
        await log.append("s", [event()], expected=NO_STREAM)
    await opened(path, read_only=False)


async def test_a_link_to_the_log_has_the_lock_of_the_log(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    async with open_log(path):
        link.symlink_to(path)
        with pytest.raises(LogLocked):
            await opened(link, read_only=False)


async def test_a_writer_that_has_not_told_its_pid_yet_is_still_a_writer(path: Path) -> None:
    async with open_log(path):
        path.with_name("events.db.lock").write_text("")
        with pytest.raises(LogLocked, match="by another process"):
            await opened(path, read_only=False)


async def test_a_read_only_log_reads_and_refuses_to_append(path: Path) -> None:
    await fill(path, 3)

    async with open_log(path, read_only=True) as log:
        assert [record.position for record in await everything(log)] == [1, 2, 3]
        assert await log.head() == 3
        with pytest.raises(DocumentNotFound):
            await log.document("sha256:0")
        with pytest.raises(LogReadOnly):
            await log.append("s", [event()], expected=ANY)
    with pytest.raises(StoreClosed):
        await log.head()


async def test_readers_see_appends_of_a_writer_in_the_same_process(path: Path) -> None:
    async with open_log(path) as log, open_log(path, read_only=True) as reader:
        assert await reader.head() == 0
        async with reader.subscribe() as records:
            await log.append("s", [event(1), event(2)], expected=NO_STREAM)
            with anyio.fail_after(PATIENCE_S):
                seen = [(await anext(records)).version for _ in range(2)]
        assert seen == [1, 2]


async def test_a_subscription_follows_a_writer_in_another_process(path: Path) -> None:
    with child(WRITER, path, "told") as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"

        async with open_log(path, read_only=True) as log, log.subscribe() as records:
            for number in range(1, 31):
                writer.stdin.write(f"{number}\n")
                writer.stdin.flush()
                with anyio.fail_after(PATIENCE_S):
                    record = await anext(records)
                assert record.position == number
                assert msgspec.json.decode(record.data) == {"n": number}


async def test_nothing_is_lost_at_the_seam_between_processes(path: Path) -> None:
    with child(WRITER, path, 8) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"

        async with open_log(path, read_only=True) as log, log.subscribe() as records:
            with anyio.fail_after(PATIENCE_S):
                seen = [(await anext(records)).position for _ in range(1_000)]
    assert seen == list(range(1, 1_001))


async def test_a_writer_does_not_wait_for_a_reader(path: Path) -> None:
    async with open_log(path) as log:
        await log.append("s", [event(0)], expected=ANY)
        raw = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        raw.execute("BEGIN")
        assert raw.execute("SELECT count(*) FROM events").fetchone() == (1,)
        with anyio.fail_after(PATIENCE_S):
            await log.append("s", [event(1)], expected=ANY)
        assert raw.execute("SELECT count(*) FROM events").fetchone() == (1,)
        raw.close()


async def test_a_program_that_holds_the_write_lock_makes_the_store_busy(path: Path) -> None:
    async with open_log(path) as log:
        await writing(log)._connection.run(lambda raw: raw.execute("PRAGMA busy_timeout = 10"))
        raw = sqlite3.connect(path, isolation_level=None)
        raw.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy):
            await log.append("s", [event()], expected=NO_STREAM)
        raw.execute("ROLLBACK")
        raw.close()
        await log.append("s", [event()], expected=NO_STREAM)


# --- sudden death --------------------------------------------------------------------------------


async def test_no_acknowledged_append_is_lost_when_the_writer_is_killed(path: Path) -> None:
    chance = random.Random(7)
    acknowledged: dict[int, str] = {}
    for _ in range(10):
        with child(WRITER, path, 4) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "open\n"
            for _ in range(chance.randrange(1, 120)):
                note(acknowledged, writer.stdout.readline())
            os.kill(writer.pid, signal.SIGKILL)
            for line in writer.stdout:
                note(acknowledged, line)

        async with open_log(path, read_only=True) as log:
            stored = {record.position: record async for record in log.read()}
        assert list(stored) == list(range(1, len(stored) + 1))
        assert {place: stored[place].event_id for place in acknowledged} == acknowledged
        assert all(record.leaf_hash == leaf_hash(record) for record in stored.values())
        versions: dict[str, int] = {}
        for record in stored.values():
            assert record.version == versions.get(record.stream, 0) + 1
            versions[record.stream] = record.version
    assert len(acknowledged) > 100


def note(acknowledged: dict[int, str], line: str) -> None:
    if line.endswith("\n"):
        position, event_id = line.split()
        acknowledged[int(position)] = event_id


# --- disks ---------------------------------------------------------------------------------------

FULL_DISK = """
import asyncio, os, sys
from eventstore import ANY, NewEvent, StoreFull, leaf_hash, open_log

async def main():
    directory = sys.argv[1]
    ballast = os.path.join(directory, "ballast")
    with open(ballast, "wb") as file:
        file.write(bytes(5 * 1024 * 1024))
    acknowledged = []
    big = b'"' + b"x" * 60_000 + b'"'

    async def append(log, data):
        (record,) = await log.append("s", [NewEvent(type="t", data=data)], expected=ANY)
        acknowledged.append(record)

    async with open_log(os.path.join(directory, "events.db")) as log:
        try:
            while True:
                await append(log, big)
        except StoreFull as error:
            print("full:", error)
        before = len(acknowledged)
        for _ in range(3):
            try:
                await append(log, big)
            except StoreFull:
                pass
            else:
                raise AssertionError("there is no room")
        assert [r async for r in log.read()] == acknowledged
        os.unlink(ballast)
        for _ in range(5):
            await append(log, big)
        assert [r.position for r in acknowledged] == list(range(1, before + 6))
        assert [r async for r in log.read()] == acknowledged
    async with open_log(os.path.join(directory, "events.db")) as log:
        assert [r async for r in log.read()] == acknowledged
        assert all(leaf_hash(r) == r.leaf_hash for r in acknowledged)
        await append(log, big)
    print("usable:", len(acknowledged) > before > 3)

asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")
def test_a_full_disk_rejects_appends_and_leaves_the_store_usable(tmp_path: Path) -> None:
    mounted = tmp_path / "small"
    mounted.mkdir()
    script = 'mount -t tmpfs -o size=8m none "$1" && exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", mounted, sys.executable, FULL_DISK],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "full: no space left for" in done.stdout
    assert "usable: True" in done.stdout


class FailingDisk:
    """A connection whose COMMIT meets a failing disk, as SQLite reports it."""

    def __init__(self, raw: sqlite3.Connection, code: int) -> None:
        self._raw = raw
        self._code = code
        self.fails = True

    def __getattr__(self, name: str) -> object:
        return getattr(self._raw, name)

    def execute(self, statement: str, *arguments: object) -> sqlite3.Cursor:
        if statement == "COMMIT" and self.fails:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = self._code
            error.sqlite_errorname = "SQLITE_IOERR"
            raise error
        return self._raw.execute(statement, *arguments)


async def test_a_failed_sync_poisons_the_store(path: Path) -> None:
    async with open_log(path) as log:
        await log.append("s", [event(1)], expected=NO_STREAM)
        writer = writing(log)._writer
        disk = FailingDisk(writer._raw, sqlite3.SQLITE_IOERR_FSYNC)
        writer._raw = disk  # type: ignore[assignment]  # a stand-in that fails

        with pytest.raises(StorePoisoned, match="close the log and open it again"):
            await log.append("s", [event(2)], expected=Exactly(1))
        disk.fails = False
        with pytest.raises(StorePoisoned):
            await log.append("s", [event(2)], expected=Exactly(1))
        assert [record.position for record in await everything(log)] == [1]

    async with open_log(path) as log:
        await log.append("s", [event(2)], expected=Exactly(1))


async def test_a_disk_that_is_full_at_commit_poisons_nothing(path: Path) -> None:
    async with open_log(path) as log:
        writer = writing(log)._writer
        disk = FailingDisk(writer._raw, sqlite3.SQLITE_FULL)
        writer._raw = disk  # type: ignore[assignment]  # a stand-in that fails

        with pytest.raises(StoreFull):
            await log.append("s", [event(1)], expected=NO_STREAM)
        disk.fails = False
        (record,) = await log.append("s", [event(1)], expected=NO_STREAM)
        assert record.position == 1
        assert await everything(log) == [record]


# --- the WAL -------------------------------------------------------------------------------------


async def test_a_busy_log_is_checkpointed_when_its_wal_has_grown(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "WAL_BYTES_MAX", 256 * 1024)
    wal = path.with_name("events.db-wal")
    async with open_log(path) as log:
        largest = 0
        for number in range(400):
            await log.append("s", [event(number)], expected=Exactly(number))
            largest = max(largest, wal.stat().st_size)
        assert path.stat().st_size > 64 * 1024
    assert largest < 1024 * 1024


async def test_a_quiet_log_is_checkpointed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "IDLE_S", 0.01)
    async with open_log(path) as log:
        await log.append("s", [event(number) for number in range(1000)], expected=NO_STREAM)
        with anyio.fail_after(PATIENCE_S):
            while path.stat().st_size < 100_000:
                await anyio.sleep(0.005)
        await log.append("s", [event()], expected=Exactly(1000))


async def test_a_checkpoint_that_finds_the_disk_failed_poisons_the_store(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "WAL_BYTES_MAX", 0)

    def fail(_: object) -> bool:
        raise StorePoisoned("log", "disk I/O error")

    async with open_log(path) as log:
        await log.append("s", [event()], expected=ANY)
        monkeypatch.setattr(writing(log)._writer, "checkpoint", fail)
        with pytest.raises(StorePoisoned):
            await log.append("s", [event()], expected=ANY)


async def test_a_checkpoint_that_finds_no_room_is_put_off(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoint, "WAL_BYTES_MAX", 0)

    def fail(_: object) -> bool:
        raise StoreFull("log")

    async with open_log(path) as log:
        await log.append("s", [event()], expected=ANY)
        monkeypatch.setattr(writing(log)._writer, "checkpoint", fail)
        await log.append("s", [event()], expected=ANY)
    assert "checkpoint.failed" in caplog.text


# --- other files ---------------------------------------------------------------------------------


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(8192))


def text(path: Path) -> None:
    path.write_text("not a database, just a line\n")


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def foreign(path: Path) -> None:
    path.unlink()
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE things (id INTEGER)")
    raw.close()


def newer(path: Path) -> None:
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    raw.close()


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def beheaded(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(100))


def holed(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))


@pytest.mark.parametrize("read_only", [True, False], ids=["read", "write"])
@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (garbage, NotALog, "is not an SQLite database"),
        (text, NotALog, "is not an SQLite database"),
        (beheaded, NotALog, "is not an SQLite database"),
        (foreign, NotALog, "database of another program"),
        (newer, LogTooNew, "has schema version 3, this program knows versions up to 2"),
        (truncated, LogCorrupt, "malformed"),
        (holed, LogCorrupt, "malformed"),
        (directory, LogInaccessible, "disk I/O error|unable to open"),
    ],
)
async def test_a_file_that_is_no_good_log_is_refused(
    path: Path,
    damage: Callable[[Path], None],
    error: type[LogUnusable],
    says: str,
    read_only: bool,
) -> None:
    await fill(path, 300)
    damage(path)
    before = path.read_bytes() if path.is_file() else b""

    with pytest.raises(error, match=says) as caught:
        await opened(path, read_only=read_only)

    assert caught.value.path == str(path)
    assert (path.read_bytes() if path.is_file() else b"") == before
    if not read_only:
        with pytest.raises(error):  # and not LogLocked
            await opened(path, read_only=False)


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [(missing, LogNotFound, "no such file"), (empty, NotALog, "no log was ever made")],
)
async def test_there_must_be_a_log_to_read(
    path: Path, damage: Callable[[Path], None], error: type[LogUnusable], says: str
) -> None:
    await fill(path)
    damage(path)

    with pytest.raises(error, match=says):
        await opened(path, read_only=True)


async def test_an_empty_file_becomes_a_log(path: Path) -> None:
    path.touch()

    await fill(path)

    async with open_log(path, read_only=True) as log:
        assert await log.head() == 10


async def test_there_must_be_a_directory_to_write_in(tmp_path: Path) -> None:
    with pytest.raises(LogNotFound, match="directory does not exist"):
        await opened(tmp_path / "missing" / "events.db", read_only=False)


async def test_a_lock_that_cannot_be_had_is_said(path: Path) -> None:
    path.with_name("events.db.lock").mkdir()

    with pytest.raises(LogInaccessible, match="Is a directory"):
        await opened(path, read_only=False)


async def test_a_path_may_look_like_an_address(tmp_path: Path) -> None:
    odd = tmp_path / "a?mode=memory#%20 ü.db"

    await fill(odd)

    assert odd.is_file()
    async with open_log(odd, read_only=True) as log:
        assert await log.head() == 10


async def test_a_copy_of_a_closed_log_is_a_log(path: Path, tmp_path: Path) -> None:
    await fill(path)
    shutil.copy(path, tmp_path / "copy.db")

    async with open_log(path, read_only=True) as log, open_log(tmp_path / "copy.db") as copy:
        assert await everything(copy) == await everything(log)


@pytest.mark.parametrize("stream", [None, "s"])
async def test_a_missing_position_stops_the_reader(path: Path, stream: str | None) -> None:
    await fill(path)
    raw = sqlite3.connect(path)
    raw.execute("DROP TRIGGER event_record_no_delete")
    raw.execute("DELETE FROM event_record WHERE position = 5")
    raw.commit()
    raw.close()

    async with open_log(path, read_only=True) as log:
        with pytest.raises(LogCorrupt, match="missing"):
            async for _ in log.read(stream):
                pass


async def test_a_document_that_was_changed_is_noticed(path: Path) -> None:
    document = Document(media_type="text/plain", body=b"body")
    async with open_log(path) as log:
        await log.append("s", [event(documents=(document,))], expected=ANY)
    raw = sqlite3.connect(path)
    raw.execute("DROP TRIGGER documents_no_update")
    raw.execute("UPDATE documents SET body = x'00'")
    raw.commit()
    raw.close()

    async with open_log(path) as log:
        with pytest.raises(LogCorrupt, match="is sha256:"):
            await log.document(document.digest)


async def test_something_else_that_writes_to_the_log_is_noticed(path: Path) -> None:
    async with open_log(path) as log:
        await log.append("s", [event(1)], expected=NO_STREAM)
        raw = sqlite3.connect(path)
        raw.execute(
            "INSERT INTO event_record SELECT 2, 1, 2, 1, 'x', 0, NULL, NULL, NULL, '{}', NULL, x'' "
        )
        raw.commit()
        raw.close()

        with pytest.raises(LogCorrupt, match="something other than its writer"):
            await log.append("s", [event(2)], expected=Exactly(1))
        with pytest.raises(LogCorrupt):
            await log.append("s", [event(2)], expected=Exactly(1))


# --- the end of a program ------------------------------------------------------------------------

ENDS = """
import asyncio
from eventstore import ANY, NewEvent, open_log

async def main():
    async with open_log({path!r}) as log:
        await log.append("s", [NewEvent(type="t", data=b"null")], expected=ANY)
        {ending}

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "ending",
    [
        "pass",
        "raise SystemExit(3)",
        "raise KeyError('a bug')",
        "asyncio.current_task().cancel(); await asyncio.sleep(0)",
        "asyncio.get_running_loop().call_soon(asyncio.current_task().cancel); "
        "await asyncio.gather(*(log.append('s', [NewEvent(type='t', data=b'1')], expected=ANY) "
        "for _ in range(50)))",
    ],
)
async def test_a_program_ends_however_it_leaves_its_log(path: Path, ending: str) -> None:
    done = await anyio.run_process(
        [sys.executable, "-c", ENDS.format(path=str(path), ending=ending)],
        cwd=REPOSITORY,
        check=False,
    )

    assert b"ResourceWarning" not in done.stderr
    async with open_log(path) as log:
        assert await log.head() in (1, 51)


async def test_reading_does_not_take_a_hop_for_every_event(path: Path) -> None:
    async with open_log(path) as log:
        for _ in range(10):
            await log.append("s", [event(number) for number in range(1000)], expected=ANY)
        connection = writing(log)._reads._opened.connection
        hops = 0
        run = connection.run

        async def counted(job: Callable[[sqlite3.Connection], object]) -> object:
            nonlocal hops
            hops += 1
            return await run(job)

        connection.run = counted  # type: ignore[method-assign,assignment]
        assert len(await everything(log)) == 10_000

    assert hops <= 10
