"""Whatever file is named and whoever reads: one clear line, the right exit code."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner

from eventstore import ANY, NewEvent, open_log
from manager.cli import cli
from manager.schema.layout import LOG_FILE, SEAL_KEY_FILE
from tests.integration.damaged_logs import (
    another_database,
    directory,
    empty,
    garbage,
    half,
    newer,
    without_wal,
)
from tests.integration.replay.conftest import Run
from tests.patience import PATIENCE_S

GOLDEN = Path(__file__).parents[2] / "golden" / "logs"
OUT = "{out}"
COMMANDS: dict[str, tuple[str, ...]] = {
    "verify": ("verify",),
    "checkpoint": ("checkpoint",),
    "snapshot": ("snapshot", OUT),
    "prove": ("prove", "#1"),
    "stats": ("stats",),
    "jsonl": ("export", "-o", "jsonl"),
    "perfetto": ("export", "-o", "perfetto"),
    "bundle": ("export", "-o", "bundle", "--out", OUT),
    "report": ("report", "--out", OUT),
}


def unknown_event(path: Path, _: Path) -> None:
    shutil.copy(GOLDEN / "unknown_type_v1.db", path)


CASES: list[tuple[Callable[[Path, Path], None], dict[str, int]]] = [
    (garbage, dict.fromkeys(COMMANDS, 5)),
    (empty, dict.fromkeys(COMMANDS, 5)),
    (directory, dict.fromkeys(COMMANDS, 5)),
    (another_database, dict.fromkeys(COMMANDS, 5)),
    (newer, dict.fromkeys(COMMANDS, 6)),
    (without_wal, {**dict.fromkeys(COMMANDS, 5), "verify": 4, "checkpoint": 0}),
    (half, dict.fromkeys(COMMANDS, 3)),
    (unknown_event, {**dict.fromkeys(COMMANDS, 0), "verify": 4, "perfetto": 6, "report": 6}),
]  # fmt: skip


@pytest.fixture
def whole(audit: Run, tmp_path: Path) -> Path:
    """The log in one file."""
    made = tmp_path / "whole.db"
    assert audit("snapshot", str(made)).returncode == 0
    return made


@pytest.mark.parametrize(("make", "codes"), CASES, ids=lambda each: getattr(each, "__name__", ""))
def test_files_that_are_no_good(
    root: Path,
    whole: Path,
    tmp_path: Path,
    make: Callable[[Path, Path], None],
    codes: dict[str, int],
) -> None:
    path = tmp_path / "bad.db"
    make(path, whole)
    found = {}
    for name, args in COMMANDS.items():
        out = tmp_path / f"out-{name}"
        given = [str(out) if each == OUT else each for each in args]
        key = ["--key", str(root / f"{SEAL_KEY_FILE}.pub")] if name == "verify" else []
        done = CliRunner().invoke(cli, ["audit", *given, *key, "--log", str(path)])
        assert isinstance(done.exception, SystemExit | None), done.exception
        found[name] = done.exit_code
        if done.exit_code in {3, 5, 6} and name != "verify":
            assert done.stdout == "" or name == "perfetto"  # which is written as it is read
            assert done.stderr.startswith("sandtrail: "), done
            assert len(done.stderr.splitlines()) == 1
            assert not out.exists()
    assert found == codes
    assert {each.name for each in tmp_path.iterdir()} <= {
        "bad.db", "whole.db", *(f"out-{name}" for name, code in found.items() if not code),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (("stats", "--since", "20260101"), 2, "can be read as #20260101 or as 2026-01-01"),
        (("export", "--since", "tomorrow"), 2, "is no point of a log"),
        (("export", "--since", "#5", "--until", "#99"), 5, "there is no #99"),
        (("stats", "-t", "container.started", "-t", "no.such"), 2, "no event has the type"),
        (("stats", "--grep", "("), 2, "is no regular expression"),
        (("stats", "--since", "#9", "--until", "#2"), 0, "window: empty"),
        (("prove", "evt:nobody"), 5, "no event has the id"),
        (("export", "-s", "nobody"), 0, "0 events exported"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_questions_that_are_no_good(
    audit: Run, args: tuple[str, ...], code: int, text: str
) -> None:
    done = audit(*args)
    assert (done.returncode, text in done.stderr) == (code, True), done


@pytest.mark.parametrize("args", ["export", "export -o csv", "prove 1..head", "stats"])
def test_whoever_reads_has_had_enough(root: Path, args: str) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "manager.cli", "audit", *args.split()],
            stdout=theirs, stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE_S,
            env={**os.environ, "SANDTRAIL_ROOT": str(root)},
        )  # fmt: skip
    finally:
        os.close(theirs)
    assert (done.returncode, done.stderr) == (141, "")


def test_what_is_for_people_is_plain_text(audit: Run, root: Path) -> None:
    environment = {**os.environ, "SANDTRAIL_ROOT": str(root), "NO_COLOR": "1", "COLUMNS": "80"}
    for command in ("verify", "stats", "reconcile"):
        shown = audit(command, env=environment).stdout
        assert shown
        assert [char for char in shown if not char.isprintable() and char != "\n"] == []


def test_the_log_is_not_touched(root: Path, tmp_path: Path) -> None:
    before = {each: each.stat().st_mtime_ns for each in root.iterdir()}
    assert LOG_FILE in {each.name for each in before}
    for args in COMMANDS.values():
        given = [str(tmp_path / args[0]) if each == OUT else each for each in args]
        CliRunner().invoke(cli, ["audit", *given, "--root", str(root)])
    assert {each: each.stat().st_mtime_ns for each in root.iterdir()} == before


async def test_a_log_that_was_never_sealed_gives_no_evidence(tmp_path: Path) -> None:
    async with open_log(tmp_path / LOG_FILE) as log:
        await log.append("s", [NewEvent(type="counted", data=b"{}")], expected=ANY)
    out = tmp_path / "e.trail"
    args = ["-m", "manager.cli", "audit", "export", "-o", "bundle", "--out", str(out)]
    done = await anyio.run_process([sys.executable, *args, "--root", str(tmp_path)], check=False)
    assert (done.returncode, b"was never sealed" in done.stderr, out.exists()) == (4, True, False)
