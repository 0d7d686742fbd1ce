"""A copy of a log: whole, verified, there at once or not at all; while it is being written."""

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from eventstore import (
    ANY,
    Document,
    LogCorrupt,
    LogInaccessible,
    LogIncomplete,
    LogNotFound,
    NewEvent,
    SealPolicy,
    Signer,
    Verdict,
    copy_log,
    load_signer,
    open_log,
    verify_log,
)
from eventstore.sqlite import copying
from tests.integration.event_store_processes import REPOSITORY, WRITER, child
from tests.integration.test_audit_cli import audit
from tests.patience import PATIENCE_S

GOLDEN = REPOSITORY / "tests" / "golden" / "logs" / "log_v1.db"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "service").mkdir()
    return tmp_path / "service" / "events.db"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "copies").mkdir()
    return tmp_path / "copies" / "copy.db"


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return load_signer(tmp_path / "keys" / "log.key")


async def fill(path: Path, signer: Signer, how_many: int = 30) -> None:
    async with open_log(path, seal=SealPolicy(signer=signer, events=7)) as log:
        for number in range(how_many):
            document = Document(media_type="text/plain", body=b"%d" % (number // 2))
            event = NewEvent(type=f"t{number % 3}", data={"n": number}, documents=(document,))
            await log.append(f"s{number % 4}", [event], expected=ANY)


async def contents(path: Path) -> list[object]:
    async with open_log(path, read_only=True) as log:
        records = [record async for record in log.read()]
        return [*records, *[await log.document(d) for r in records for d in r.documents]]


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


async def test_a_copy_is_the_log(
    path: Path, copy: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "EVENTS_PER_VISIT", 4)
    await fill(path, signer)
    before = names(path)

    found = copy_log(path, copy, trusted=[signer.verifier])

    assert (found.verdict, found.head, found.sealed) == (Verdict.INTACT, 30, 30)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert names(copy) == ["copy.db"]
    assert names(path) == before
    assert await contents(copy) == await contents(path)
    assert verify_log(copy, trusted=[signer.verifier]).verdict is Verdict.INTACT
    async with open_log(copy) as log:
        (record,) = await log.append("s", [NewEvent(type="t", data=b"{}")], expected=ANY)
    assert record.position == 31


@pytest.mark.parametrize("rows", [1, 15, 30])
async def test_a_copy_in_visits_of_any_size(
    path: Path, copy: Path, signer: Signer, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        copying, "TABLES", [copying.Table(each.name, each.key, rows) for each in copying.TABLES]
    )
    await fill(path, signer)

    copy_log(path, copy)

    assert await contents(copy) == await contents(path)


def test_a_copy_while_others_append(path: Path, copy: Path) -> None:
    with child(WRITER, path, 4) as writer:
        assert writer.stdout is not None
        acknowledged = 0
        for _ in range(201):
            acknowledged += writer.stdout.readline() != "open\n"
        found = copy_log(path, copy)
        seen = int(writer.stdout.readline().split()[0])
        assert found.head >= acknowledged
        for _ in range(seen, found.head + 50):
            assert writer.stdout.readline().endswith("\n")  # it goes on
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()

    copied, whole = anyio.run(contents, copy), anyio.run(contents, path)
    assert copied == whole[: found.head]
    assert len(whole) > found.head
    assert verify_log(copy).verdict is not Verdict.BROKEN


def test_an_old_log_is_copied_as_it_is(copy: Path) -> None:
    copy_log(GOLDEN, copy)

    raw = sqlite3.connect(copy)
    assert raw.execute("PRAGMA user_version").fetchone() == (1,)
    raw.close()
    assert anyio.run(contents, copy) == anyio.run(contents, GOLDEN)


async def test_nothing_is_copied_over(path: Path, copy: Path, signer: Signer) -> None:
    await fill(path, signer, 1)
    copy.write_text("precious")

    with pytest.raises(LogInaccessible, match="exists already"):
        copy_log(path, copy)
    assert copy.read_text() == "precious"

    copy.unlink()
    copy.symlink_to("nowhere")
    with pytest.raises(LogInaccessible, match="exists already"):
        copy_log(path, copy)


async def test_what_came_meanwhile_is_kept(
    path: Path, copy: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(path, signer, 1)

    def verified(*args: object, **how: object) -> object:
        copy.write_text("precious")
        return verify_log(*args, **how)  # type: ignore[arg-type]  # as its caller gave it

    monkeypatch.setattr(copying, "verify_log", verified)
    with pytest.raises(LogInaccessible, match="File exists"):
        copy_log(path, copy)
    assert copy.read_text() == "precious"
    assert names(copy) == ["copy.db"]


async def test_a_broken_log_leaves_no_copy(path: Path, copy: Path, signer: Signer) -> None:
    await fill(path, signer)
    raw = sqlite3.connect(path)
    raw.execute("DROP TRIGGER event_record_no_update")
    raw.execute("UPDATE event_record SET data = '{}' WHERE position = 9")
    raw.commit()
    raw.close()

    with pytest.raises(LogCorrupt, match=r"a copy of it does not verify \(file: trigger"):
        copy_log(path, copy)
    assert names(copy) == []


async def test_a_copy_needs_a_whole_log(path: Path, copy: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.db"
    async with open_log(path):
        shutil.copy(path, alone)

    with pytest.raises(LogIncomplete):
        copy_log(alone, copy)
    with pytest.raises(LogNotFound):
        copy_log(tmp_path / "missing.db", copy)
    with pytest.raises(LogInaccessible, match="No such file"):
        copy_log(path, tmp_path / "missing" / "copy.db")
    assert names(copy) == []


KILLED = """
import os, signal, sys
from eventstore.sqlite import copying

def die(*args, **how):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(copying, sys.argv[3], die)
copying.copy_log(sys.argv[1], sys.argv[2])
"""


@pytest.mark.parametrize("moment", ["_copy_rows", "verify_log", "_publish", "_sync"])
async def test_a_copy_that_is_killed_is_not_there(
    path: Path, copy: Path, signer: Signer, moment: str
) -> None:
    await fill(path, signer, 3)

    done = subprocess.run(
        [sys.executable, "-c", KILLED, path, copy, moment],
        cwd=REPOSITORY,
        check=False,
        timeout=PATIENCE_S,
    )

    assert done.returncode == -signal.SIGKILL
    assert not copy.exists()
    (left,) = names(copy)
    assert left.startswith(".copy.db.")
    copy_log(path, copy)
    assert await contents(copy) == await contents(path)


FULL_DISK = """
import sys
from eventstore import LogInaccessible, copy_log

try:
    copy_log(sys.argv[1], sys.argv[2] + "/copy.db")
except LogInaccessible as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")
async def test_a_copy_that_finds_no_room(path: Path, tmp_path: Path) -> None:
    async with open_log(path) as log:
        for _ in range(20):
            await log.append("s", [NewEvent(type="t", data={"x": "y" * 100_000})], expected=ANY)
    mounted = tmp_path / "small"
    mounted.mkdir()
    script = 'mount -t tmpfs -o size=1m none "$2" && exec "$3" -c "$4" "$1" "$2" && ls -A "$2"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", path, mounted, sys.executable, FULL_DISK],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert done.stdout == f"{mounted}/copy.db: no space left for the copy\n", done.stderr


def test_the_command(tmp_path: Path) -> None:
    root, copy = tmp_path / "root", tmp_path / "copy.db"
    root.mkdir()
    anyio.run(fill, root / "events.db", load_signer(root / "keys" / "log.key"))

    done = audit(root, "snapshot", str(copy))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{copy}: #1 to #30, verified, sealed to #30 by a key that is trusted\n"
    key = str(root / "keys" / "log.key.pub")
    assert audit(root, "verify", "--log", str(copy), "--key", key).returncode == 0

    again = audit(root, "snapshot", str(copy))
    assert (again.returncode, again.stdout) == (5, "")
    assert "exists already" in again.stderr
    assert '"head": 30' in audit(root, "snapshot", str(tmp_path / "2.db"), "--json").stdout
