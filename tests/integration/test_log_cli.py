"""``sandtrail log``: what its options choose, on a log whose content never changes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from manager.adapters.client import LOG_FILE

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "logs" / "log_v1.db"
START = 1767225600  # 2026-01-01T00:00:00Z, when its first event was recorded


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copy(GOLDEN, tmp_path / LOG_FILE)
    return tmp_path


def log(root: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "manager.cli", "log", *args],
        env={**os.environ, "SANDTRAIL_ROOT": str(root), "TZ": "UTC"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("args", "positions"),
    [
        ((), range(1, 44)),
        (("--after", "5", "--until", "8"), [6, 7, 8]),
        (("-n", "2", "-r"), [43, 42]),
        (("-r", "--until", "3"), [3, 2, 1]),
        (("-t", "container.exited"), [7, 12, 31, 36]),
        (("-t", "container.exited", "-t", "sandbox.stopped", "-s", "web"), [31, 36, 37]),
        (("--before", "2026-01-01T00:00:00.5"), [1, 2, 3]),
        (("--before", "2026-01-01T01:00:00.5+01:00"), [1, 2, 3]),
        (("--since", str(START + 2), "--until", "29", "--type", "sandbox.start_rejected"), [28]),
        (("--since", str(START + 60)), []),
    ],
)
def test_log_prints_what_is_asked_for(
    root: Path, args: tuple[str, ...], positions: range | list[int]
) -> None:
    done = log(root, "--json", *args)

    assert done.returncode == 0, done.stderr
    printed = [json.loads(line)["position"] for line in done.stdout.splitlines()]
    assert printed == list(positions)


def test_a_table_for_people(root: Path) -> None:
    done = log(root, "-s", "fails", "--limit", "1")

    assert "sandbox.created" in done.stdout
    assert done.stdout.count("sandbox.") == 1


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--since", "yesterday"), "'yesterday' is no time, such as 2026-01-31T12:00"),
        (("--follow", "--limit", "3"), "--follow goes on for ever"),
        (("--limit", "-1"), "-1 is not in the range"),
    ],
)
def test_what_makes_no_sense_is_refused(root: Path, args: tuple[str, ...], says: str) -> None:
    done = log(root, *args)

    assert done.returncode == 2
    assert says in done.stderr
