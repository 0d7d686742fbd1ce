"""Who only reads: makes no file, reads what cannot be written, and says what is missing."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from eventstore import (
    ANY,
    EventLog,
    Exactly,
    LogInaccessible,
    LogIncomplete,
    NewEvent,
    RecordedEvent,
    StoreHeld,
    Verdict,
    open_log,
    verify_log,
)
from eventstore.sqlite import checkpoint as checkpoints
from eventstore.sqlite import completeness, source
from eventstore.sqlite.completeness import Moved
from eventstore.sqlite.log import SqliteLog
from tests.integration.event_store_processes import REPOSITORY, WRITER, child
from tests.patience import PATIENCE_S

EVENTS = 5
NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and other users need root")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


def event(number: int = 0) -> NewEvent:
    return NewEvent(type="counted", data={"n": number})


async def fill(path: Path) -> None:
    async with open_log(path) as log:
        for number in range(EVENTS):
            await log.append("s", [event(number)], expected=Exactly(number))


async def read(path: Path) -> list[RecordedEvent]:
    async with open_log(path, read_only=True) as log:
        return [record async for record in log.read()]


def beside(path: Path) -> dict[str, int]:
    """What lies there, with sizes: of a -shm only that it does."""
    return {
        each.name: 0 if each.name.endswith("-shm") else each.stat().st_size
        for each in path.parent.iterdir()
    }


def kill_a_writer(path: Path) -> None:
    with child(WRITER, path, "told") as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        for number in range(EVENTS):
            writer.stdin.write(f"{number}\n")
            writer.stdin.flush()
            writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()


def closed(path: Path) -> None:
    anyio.run(fill, path)


def killed(path: Path) -> None:
    kill_a_writer(path)


def copied_with_wal(path: Path) -> None:
    kill_a_writer(path)
    path.with_name("events.db-shm").unlink()
    path.with_name("events.db.lock").unlink()


def left_by_a_reader(path: Path) -> None:
    """Empty files, as a foreign program that reads as root leaves them."""
    anyio.run(fill, path)
    raw = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    raw.execute("SELECT count(*) FROM events").fetchone()
    raw.close()
    assert path.with_name("events.db-shm").exists()


LEFT = [closed, killed, copied_with_wal, left_by_a_reader]


@pytest.mark.parametrize("leave", LEFT)
def test_a_reader_makes_no_files(path: Path, leave: Callable[[Path], None]) -> None:
    leave(path)
    before = beside(path)

    assert len(anyio.run(read, path)) == EVENTS
    assert verify_log(path).verdict is not Verdict.BROKEN

    assert beside(path) == before


def test_nothing_of_a_private_copy_is_left(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied_with_wal(path)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    async def look() -> None:
        async with open_log(path, read_only=True) as log:
            assert list(temporary.iterdir()) == []
            assert await log.head() == EVENTS

    anyio.run(look)


def test_a_private_copy_has_a_limit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied_with_wal(path)
    monkeypatch.setattr(source, "PRIVATE_COPY_BYTES_MAX", 1000)

    with pytest.raises(LogInaccessible, match="over the limit of 1,000: put both on a disk"):
        anyio.run(read, path)


READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
READER = """
import asyncio, os, sys
from eventstore import newest_note, open_log

async def main():
    async with open_log(sys.argv[1], read_only=True) as log:
        print(len([record async for record in log.read()]))

if len(sys.argv) > 2:
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
asyncio.run(main())
print(newest_note(sys.argv[1]))
"""


@AS_ROOT
@pytest.mark.parametrize("user", [0, NOBODY])
@pytest.mark.parametrize("leave", LEFT)
def test_a_log_on_media_that_cannot_be_written(
    path: Path, leave: Callable[[Path], None], user: int
) -> None:
    leave(path)
    readable(path)
    before = beside(path)

    inside = ("unshare", "-m", "sh", "-c", READ_ONLY, "sh", path.parent)
    done = run_reader(path, user, *inside)

    assert (done.returncode, done.stdout) == (0, f"{EVENTS}\nNone\n"), done.stderr
    assert beside(path) == before


@AS_ROOT
@pytest.mark.parametrize("leave", LEFT)
def test_somebody_elses_log(path: Path, leave: Callable[[Path], None]) -> None:
    leave(path)
    readable(path)
    before = beside(path)

    done = run_reader(path, NOBODY)

    assert (done.returncode, done.stdout) == (0, f"{EVENTS}\nNone\n"), done.stderr
    assert beside(path) == before


@AS_ROOT
@pytest.mark.parametrize("user", [0, NOBODY])
@pytest.mark.parametrize("mount", [False, True], ids=["as it is", "mounted read-only"])
def test_a_log_that_is_being_written_by_somebody_else(path: Path, user: int, mount: bool) -> None:
    with child(WRITER, path, "told") as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        readable(path)
        for number in range(EVENTS):
            writer.stdin.write(f"{number}\n")
            writer.stdin.flush()
            assert writer.stdout.readline()
        # It would checkpoint when it has been idle for a second: what lies there is the reader's.
        os.kill(writer.pid, signal.SIGSTOP)
        before = beside(path)

        inside = ("unshare", "-m", "sh", "-c", READ_ONLY, "sh", path.parent) if mount else ()
        done = run_reader(path, user, *inside)

        assert (done.returncode, done.stdout) == (0, f"{EVENTS}\nNone\n"), done.stderr
        assert beside(path) == before


def run_reader(path: Path, user: int, *inside: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*map(str, inside), sys.executable, "-c", READER, path, *([str(user)] if user else [])],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def readable(path: Path) -> None:
    for each in path.parent.iterdir():
        each.chmod(0o644)
    for each in path.parents:
        if each == Path(tempfile.gettempdir()):
            break
        each.chmod(0o755)


# --- writers come and go -------------------------------------------------------------------------


@pytest.mark.parametrize("leave", LEFT)
def test_a_reader_that_was_first_sees_what_a_writer_appends(
    path: Path, leave: Callable[[Path], None]
) -> None:
    leave(path)

    async def follow() -> None:
        async with open_log(path, read_only=True) as reader:
            assert await reader.head() == EVENTS
            for number in range(3):
                async with open_log(path) as log:
                    await log.append("s", [event(number)], expected=ANY)
                    assert await reader.head() == EVENTS + number + 1
                found = [record.position async for record in reader.read()]
                assert found == list(range(1, EVENTS + number + 2))

    anyio.run(follow)


def test_many_tasks_may_find_that_a_writer_has_come(path: Path) -> None:
    closed(path)

    async def main() -> None:
        heads = []

        async def look() -> None:
            heads.append(await reader.head())

        async with open_log(path, read_only=True) as reader, open_log(path) as log:
            await log.append("s", [event()], expected=ANY)
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(look)
        assert heads == [EVENTS + 1] * 10

    anyio.run(main)


# --- a copy without its -wal ---------------------------------------------------------------------


@pytest.mark.parametrize("empty_wal", [False, True])
async def test_a_copy_without_its_wal_is_not_the_log(
    path: Path, tmp_path: Path, empty_wal: bool
) -> None:
    copy = tmp_path / "copy.db"
    async with open_log(path) as log:
        await log.append("s", [event()], expected=ANY)
        shutil.copy(path, copy)
        if empty_wal:
            copy.with_name("copy.db-wal").touch()

    with pytest.raises(LogIncomplete, match=r"Copy both, or make the copy with"):
        await read(copy)
    before = copy.read_bytes()
    with pytest.raises(LogIncomplete):
        async with open_log(copy):
            pass
    assert copy.read_bytes() == before
    found = verify_log(copy)
    assert found.verdict is not Verdict.INTACT
    assert [each.layer for each in found.findings][-1] == "complete"
    assert "without" in found.findings[-1].text


async def test_a_copy_between_two_checkpoints_is_not_the_log_either(
    path: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    async with open_log(path) as log:
        for number in range(3):
            await log.append("s", [event(number)], expected=ANY)
            await checkpoint(log)
        shutil.copy(path, copy)

    with pytest.raises(LogIncomplete):
        await read(copy)


async def checkpoint(log: object) -> None:
    assert isinstance(log, SqliteLog)
    await log._checkpoint(Moved(all=True))


def test_a_killed_writers_log_is_whole_with_its_wal_only(path: Path, tmp_path: Path) -> None:
    kill_a_writer(path)
    shutil.copy(path, tmp_path / "alone.db")
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{tmp_path / 'both.db'}{suffix}")

    assert len(anyio.run(read, tmp_path / "both.db")) == EVENTS
    with pytest.raises(LogIncomplete):
        anyio.run(read, tmp_path / "alone.db")


def test_a_log_whose_wal_another_program_has_moved_in_is_whole(path: Path) -> None:
    kill_a_writer(path)
    raw = sqlite3.connect(path)
    raw.execute("SELECT count(*) FROM events").fetchone()
    raw.close()
    assert not path.with_name("events.db-wal").exists()

    assert len(anyio.run(read, path)) == EVENTS
    anyio.run(fill_more, path)


async def fill_more(path: Path) -> None:
    async with open_log(path) as log:
        await log.append("s", [event()], expected=ANY)


async def test_a_writer_that_a_reader_outlives_leaves_a_file_that_says_so(
    path: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    async with open_log(path) as log:
        await log.append("s", [event()], expected=ANY)
        raw = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        raw.execute("BEGIN")
        assert raw.execute("SELECT count(*) FROM events").fetchone() == (1,)
        await log.append("s", [event()], expected=ANY)
    shutil.copy(path, copy)
    raw.close()

    with pytest.raises(LogIncomplete):
        await read(copy)
    assert len(await read(path)) == 2


# --- readers that stay ---------------------------------------------------------------------------

STAYS = """
import sqlite3, sys
raw = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, isolation_level=None)
raw.execute("BEGIN")
print(raw.execute("SELECT count(*) FROM events").fetchone()[0], flush=True)
sys.stdin.readline()
raw.execute("COMMIT")
print("ended", flush=True)
sys.stdin.readline()
"""
LIMIT_BYTES = 1024 * 1024


async def test_a_reader_that_stays_cannot_make_the_wal_grow_without_bound(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completeness, "WAL_LIMIT_BYTES", LIMIT_BYTES)
    monkeypatch.setattr(checkpoints, "WAL_BYTES_MAX", LIMIT_BYTES // 8)
    wal = path.with_name("events.db-wal")
    big = NewEvent(type="t", data={"x": "y" * 10_000})

    async with open_log(path) as log:
        await log.append("s", [event()], expected=ANY)
        with child(STAYS, path) as reader:
            assert reader.stdin is not None
            assert reader.stdout is not None
            assert reader.stdout.readline() == "1\n"
            with pytest.raises(StoreHeld) as caught:
                await append_many(log, big, 1000)
            acknowledged = await log.head()
            assert caught.value.pids == (reader.pid,)
            assert f"process {reader.pid} has kept a read transaction open" in str(caught.value)
            assert caught.value.wal_bytes > LIMIT_BYTES
            assert acknowledged > 20

            size = wal.stat().st_size
            assert size < 2 * LIMIT_BYTES
            for _ in range(20):
                with pytest.raises(StoreHeld):
                    await log.append("s", [new_id(big)], expected=ANY)
            assert wal.stat().st_size == size
            assert await log.head() == acknowledged

            reader.stdin.write("\n")
            reader.stdin.flush()
            assert reader.stdout.readline() == "ended\n"
            await append_many(log, big, 500)
        assert wal.stat().st_size == size
        assert await log.head() == acknowledged + 500
    assert [each.position for each in await read(path)] == list(range(1, acknowledged + 501))


async def append_many(log: EventLog, given: NewEvent, how_many: int) -> None:
    for _ in range(how_many):
        await log.append("s", [new_id(given)], expected=ANY)


def new_id(given: NewEvent) -> NewEvent:
    return NewEvent(type=given.type, data=given.data)


async def test_a_reader_of_ours_does_not_hold_the_wal_however_slow(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completeness, "WAL_LIMIT_BYTES", LIMIT_BYTES)
    monkeypatch.setattr(checkpoints, "WAL_BYTES_MAX", LIMIT_BYTES // 8)
    async with open_log(path) as log, open_log(path, read_only=True) as reader:
        await log.append("s", [event(number) for number in range(1000)], expected=ANY)
        records = reader.read()
        assert (await anext(records)).position == 1
        for _ in range(300):
            await log.append("s", [NewEvent(type="t", data={"x": "y" * 10_000})], expected=ANY)
        assert len([record async for record in records]) == 999
