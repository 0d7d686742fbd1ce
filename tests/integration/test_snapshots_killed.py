"""A process that is killed while it writes snapshots leaves nothing that anybody would believe."""

import subprocess
import sys
from pathlib import Path

import pytest

from eventstore import Snapshot, SnapshotFiles, SnapshotKind

KIND = SnapshotKind(fold="sums", fingerprint="a1" * 32)
BODY_BYTES = 3_000_000
KILLS = 6

SAVER = f"""
import sys
from pathlib import Path
from eventstore import Snapshot, SnapshotFiles, SnapshotKind

files = SnapshotFiles(Path(sys.argv[1]), SnapshotKind(fold="sums", fingerprint="a1" * 32))
for position in range(int(sys.argv[2]), 10**9):
    print(position, flush=True)
    body = bytes([position % 251]) * {BODY_BYTES}
    files.save(Snapshot(position=position, leaf_hash=b"L" * 32, body=body))
"""


def kill_while_saving(directory: Path, first: int, saves: int) -> int:
    """Kill a saver in its n-th save; returns the position that it was at."""
    command = [sys.executable, "-c", SAVER, str(directory), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        position = 0
        for _ in range(saves):
            position = int(process.stdout.readline())
        process.kill()
    return position


def test_whatever_has_its_name_is_whole(tmp_path: Path) -> None:
    directory = tmp_path / "snapshots"
    files = SnapshotFiles(directory, KIND)
    position = 0
    for number in range(KILLS):
        position = kill_while_saving(directory, position + 1, saves=1 + number % 3)
        for each in files.positions():
            assert files.load(each).body == bytes([each % 251]) * BODY_BYTES
    files.save(Snapshot(position=position + 1, leaf_hash=b"L" * 32, body=b""))
    assert {path.suffix for path in directory.iterdir()} == {".snapshot"}


def test_what_is_unfinished_is_not_taken_for_a_snapshot(tmp_path: Path) -> None:
    """The state that the rarest of the kills above leaves, made by hand."""
    files = SnapshotFiles(tmp_path, KIND)
    files.save(Snapshot(position=1, leaf_hash=b"L" * 32, body=b"one"))
    unfinished = files.path(2).with_suffix(".unfinished")
    unfinished.write_bytes(files.path(1).read_bytes()[:-1])
    assert files.positions() == [1]
    files.tidy()
    assert not unfinished.exists()
    assert files.load(1).body == b"one"


@pytest.fixture(autouse=True)
def _sources_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
