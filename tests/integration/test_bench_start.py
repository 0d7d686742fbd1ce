"""The bench of a start runs, and prints every row that it promises."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.runtime
REPOSITORY = Path(__file__).parents[2]
ROWS = (
    "crun run ",
    "bwrap ",
    "sandtrail crun -> running",
    "sandtrail crun -> exit on record",
    "memory of manager and worker",
    "raw commit, durable",
    "rejected start, Python",
    "sandtrail serve to ready",
    "| sandtrail crun -> running | ",
    "| lives per second, at once | 1 | 2 |",
    "1 at once: sandtrail crun -> running, to crun run",
)


@pytest.mark.skipif(os.geteuid() != 0, reason="containers with donated mounts need root")
@pytest.mark.skipif(
    not all(map(shutil.which, ("crun", "busybox"))), reason="needs crun and busybox"
)
def test_a_quick_run_prints_every_figure() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_start", "--quick", "--markdown"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert result.returncode == 0, result.stderr
    for row in ROWS:
        assert any(line.startswith(row) for line in result.stdout.splitlines()), row
