"""The benches of the log run, and print every row that they promise."""

import subprocess
import sys
from pathlib import Path

from benchmarks.bench_log import ABSOLUTE, RATIOS

REPOSITORY = Path(__file__).parents[2]


def test_a_quick_run_prints_every_figure() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_log", "--quick"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert result.returncode == 0, result.stderr
    for name in (*ABSOLUTE, *(ratio.name for ratio in RATIOS)):
        assert any(line.startswith(name) for line in result.stdout.splitlines()), name


def test_a_quick_look_at_a_follower_finds_no_gap() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_follow", "--quick"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(" p99 ") == 4
    assert "203 events, none is missing, none came twice" in result.stdout
