"""Commands that are interrupted, whose reader left, or that have no stream: they end quietly."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from manager.schema.layout import LOG_FILE
from tests.patience import PATIENCE_S

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "logs" / "log_v1.db"
ENTRY = "import sys; from manager.entry import main; main()"
AT_IMPORT = """
import builtins, os, signal
real = builtins.__import__
def interrupted(name, *how):
    if name == {name!r}:
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *how)
builtins.__import__ = interrupted
"""
AT_EXIT = "import atexit, os, signal; atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
Done = subprocess.CompletedProcess[str]


@pytest.fixture(autouse=True)
def interrupts_are_heeded() -> Iterator[None]:
    """A shell has what it runs in the background ignore them, and the children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copy(GOLDEN, tmp_path / LOG_FILE)
    return tmp_path


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "SANDTRAIL_ROOT": str(root), "XDG_STATE_HOME": str(root / "home")}


def command(root: Path, *args: str, before: str = "") -> Done:
    return subprocess.run(
        [sys.executable, "-c", before + ENTRY, *args],
        check=False, capture_output=True, text=True, timeout=PATIENCE_S, env=environment(root),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["click", "replay.cli.log_table"])
def test_interrupted_before_it_has_begun(root: Path, name: str) -> None:
    done = command(root, "log", before=AT_IMPORT.format(name=name))
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("args", [("log",), ("--help",)])
def test_interrupted_when_all_was_said(root: Path, args: tuple[str, ...]) -> None:
    whole, done = command(root, *args), command(root, *args, before=AT_EXIT)
    assert (done.stdout, done.stderr) == (whole.stdout, whole.stderr)
    assert (whole.returncode, done.returncode) == (0, -signal.SIGINT)


def test_interrupted_while_it_follows(root: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENTRY, "log", "-f", "--since", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(root),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "manager.started" in first
    assert "Traceback" not in told
    assert "Error" not in told


def test_an_interrupt_that_is_ignored_stays_so(root: Path) -> None:
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    done = command(root, "log", "--count", before=ignoring + AT_IMPORT.format(name="click"))
    assert (done.returncode, done.stdout) == (0, "43\n")


@pytest.mark.parametrize("args", ["--help", "--version --json", "audit --help", "log"])
def test_whoever_reads_has_left_already(root: Path, args: str) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [sys.executable, "-c", ENTRY, *args.split()],
        check=False, stdout=theirs, stderr=subprocess.PIPE, timeout=PATIENCE_S,
        env=environment(root),
    )  # fmt: skip
    os.close(theirs)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    "args",
    ["log --count", "audit verify", "replay check"],
)
def test_without_a_stream_for_what_is_beside_the_answer(root: Path, args: str) -> None:
    whole = command(root, *args.split())
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" "$@" 2>&-', sys.executable, "-c", ENTRY, *args.split()],
        check=False, stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S, env=environment(root),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (whole.returncode, whole.stdout)
    assert whole.stdout
