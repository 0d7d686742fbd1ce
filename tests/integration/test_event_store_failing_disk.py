"""Disks that fail for real: the kernel answers single calls of the log with EIO or ENOSPC.

A child process runs the log under strace, which lets the n-th call of a kind on one of the log's
files fail (or lets all fail from there on). What :class:`eventstore.EventLog` promises for that is
then looked for, in the child while the fault lasts and here, after it, in the file.
"""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from eventstore import (
    SealPolicy,
    Verdict,
    load_signer,
    open_log,
    verify_log,
)
from tests.integration.event_store_processes import REPOSITORY
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")

APPENDS = 14
FAULTY = """
import asyncio, json, logging, sys
from pathlib import Path
from eventstore import *
from eventstore.sqlite import checkpoint

checkpoint.WAL_BYTES_MAX = 48 * 1024
logging.basicConfig(format="%(message)s", stream=sys.stderr)

async def append(log, event):
    try:
        records = await log.append("s", [event], expected=ANY)
    except EventStoreError as error:
        print(json.dumps(["error", type(error).__name__, event.event_id]), flush=True)
        return []
    print(json.dumps(["ack", records[0].position, event.event_id]), flush=True)
    return list(records)

async def main():
    path, key, appends = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    try:
        async with open_log(path, seal=SealPolicy(signer=load_signer(key), events=5)) as log:
            print(json.dumps(["open"]), flush=True)
            stored = [record async for record in log.read()]
            for number in range(appends):
                event = NewEvent(type="t", data={"n": number, "text": "x" * 4000})
                stored += await append(log, event) or await append(log, event)
                assert [record async for record in log.read()] == stored
    except EventStoreError as error:
        print(json.dumps(["end", type(error).__name__]), flush=True)

asyncio.run(main())
"""


@dataclass(frozen=True)
class Story:
    """What the child said, and which calls were made to fail."""

    said: list[list[object]]
    warnings: str
    failed_calls: int

    @property
    def errors(self) -> list[object]:
        return [line[1] for line in self.said if line[0] == "error"]

    @property
    def acknowledged(self) -> dict[object, object]:
        return {line[2]: line[1] for line in self.said if line[0] == "ack"}


Opening = Counter[tuple[str, str]]
"""How often opening a log makes a call on a file of it, by call and suffix of the file."""


@pytest.fixture(scope="session")
def opening(tmp_path_factory: pytest.TempPathFactory) -> Opening:
    """What a log that exists needs to be opened; faults that come later meet an append."""
    directory = tmp_path_factory.mktemp("opening")
    path, trace = directory / "events.db", directory / "trace"
    command = [sys.executable, "-c", FAULTY, path, path.with_name("log.key"), "0"]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    strace = ["strace", "-f", "-qqq", "-y", "-e", "trace=pwrite64,fdatasync,write", "-o", trace]
    subprocess.run([*strace, *command], cwd=REPOSITORY, check=True, capture_output=True)
    before, opened, _ = trace.read_text().partition("write(1<")
    assert opened
    found = re.findall(r"(pwrite64|fdatasync)\(\d+<[^>]*/events\.db(-wal)?>", before)
    return Counter(found)


def run(path: Path, fault: str, suffix: str) -> Story:
    trace = path.with_name("trace")
    done = subprocess.run(
        [
            *("strace", "-f", "--seccomp-bpf", "-qqq", "-y", "-o", trace, "-P", f"{path}{suffix}"),
            *("-e", f"trace={fault.partition(':')[0]}", "-e", f"inject={fault}"),
            *(sys.executable, "-c", FAULTY, path, path.with_name("log.key"), str(APPENDS)),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    return Story(said, done.stderr, trace.read_text().count("(INJECTED)"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
async def filled(path: Path) -> Path:
    """A log that exists, so that a fault does not already meet its making."""
    async with open_log(path, seal=SealPolicy(signer=load_signer(path.with_name("log.key")))):
        return path


async def check_file(path: Path, story: Story) -> None:
    """What was acknowledged is there; what is there was tried; all of it verifies; it goes on."""
    signer = load_signer(path.with_name("log.key"))
    tried = {line[2] for line in story.said if line[0] in ("ack", "error")}
    async with open_log(path, seal=SealPolicy(signer=signer)) as log:
        stored = {record.event_id: record.position async for record in log.read()}
        assert sorted(stored.values()) == list(range(1, len(stored) + 1))
        assert story.acknowledged.items() <= stored.items()
        assert stored.keys() <= tried
        # Only the append that met the failing disk may be stored though it was not acknowledged.
        assert len(stored) - len(story.acknowledged) <= (
            1 if "StorePoisoned" in story.errors else 0
        )
    if stored:
        assert verify_log(path, trusted=[signer.verifier]).verdict is Verdict.INTACT


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
@pytest.mark.parametrize("suffix", ["", "-wal"])
async def test_a_disk_that_fails_at_the_opening_lets_nobody_in(
    filled: Path, call: str, suffix: str, opening: Opening
) -> None:
    assert opening[call, suffix]
    for number in range(1, opening[call, suffix] + 1):
        story = run(filled, f"{call}:error=EIO:when={number}", suffix)
        assert story.failed_calls == 1
        assert story.said == [["end", "LogInaccessible"]]
        await check_file(filled, story)


@pytest.mark.parametrize("call", [1, 2, 4, 7])
@pytest.mark.parametrize(
    "fault",
    ["fdatasync:error=EIO", "fdatasync:error=ENOSPC", "pwrite64:error=EIO"],
)
async def test_a_disk_that_fails_the_wal_poisons_the_store(
    filled: Path, fault: str, call: int, opening: Opening
) -> None:
    call += opening[fault.partition(":")[0], "-wal"]
    story = run(filled, f"{fault}:when={call}", "-wal")

    assert story.failed_calls == 1
    first = story.said.index(next(line for line in story.said if line[0] == "error"))
    assert set(story.errors) == {"StorePoisoned"}
    assert all(line[0] == "error" for line in story.said[first:])  # it never goes on by itself
    assert len(story.errors) >= 2
    await check_file(filled, story)


@pytest.mark.parametrize("call", [1, 2, 3, 6, 20])
async def test_a_write_that_finds_no_room_rejects_one_append_and_nothing_else(
    filled: Path, call: int, opening: Opening
) -> None:
    call += opening["pwrite64", "-wal"]
    story = run(filled, f"pwrite64:error=ENOSPC:when={call}", "-wal")

    assert story.failed_calls == 1
    assert set(story.errors) <= {"StoreFull"}
    assert story.errors or "seal.failed reason=no space left" in story.warnings
    assert sorted(story.acknowledged.values(), key=str) == sorted(range(1, APPENDS + 1), key=str)
    await check_file(filled, story)


async def test_a_disk_that_stays_full_rejects_every_append(filled: Path) -> None:
    story = run(filled, "pwrite64:error=ENOSPC:when=30+", "-wal")

    assert story.failed_calls > 3
    assert set(story.errors) == {"StoreFull"}
    assert 0 < len(story.acknowledged) < APPENDS
    await check_file(filled, story)


@pytest.mark.parametrize("fault", ["pwrite64:error=EIO", "fdatasync:error=EIO"])
async def test_a_disk_that_fails_a_checkpoint_poisons_the_store(
    filled: Path, fault: str, opening: Opening
) -> None:
    call = 1 + opening[fault.partition(":")[0], ""]
    story = run(filled, f"{fault}:when={call}", "")

    assert story.failed_calls == 1
    assert "checkpoint.failed reason=writing" in story.warnings
    assert set(story.errors) == {"StorePoisoned"}
    assert story.acknowledged
    await check_file(filled, story)


async def test_a_checkpoint_that_finds_no_room_costs_nothing(
    filled: Path, opening: Opening
) -> None:
    call = 1 + opening["pwrite64", ""]
    story = run(filled, f"pwrite64:error=ENOSPC:when={call}", "")

    assert story.failed_calls == 1
    assert "checkpoint.failed reason=no space left" in story.warnings
    assert story.errors == []
    assert len(story.acknowledged) == APPENDS
    await check_file(filled, story)


@pytest.mark.parametrize(
    ("fault", "suffix", "error"),
    [
        ("fdatasync:error=EIO:when=1", "-wal", "LogInaccessible"),
        ("pwrite64:error=EIO:when=1", "-wal", "LogInaccessible"),
        ("pwrite64:error=ENOSPC:when=1", "-wal", "StoreFull"),
        ("pwrite64:error=ENOSPC:when=1", "", "StoreFull"),
        ("openat:error=EACCES:when=1", "", "LogInaccessible"),
    ],
)
async def test_a_log_that_cannot_be_made_can_be_made_later(
    path: Path, fault: str, suffix: str, error: str
) -> None:
    story = run(path, fault, suffix)

    assert story.failed_calls == 1
    assert story.said == [["end", error]]
    await check_file(path, story)
