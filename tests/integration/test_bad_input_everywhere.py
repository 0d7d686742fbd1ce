"""Every command that reads a log, on every kind of bad file and question: one line, its code."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner, Result

from eventstore import ANY, NewEvent, open_log
from manager.cli import cli
from manager.schema.layout import LOG_FILE
from tests.integration.damaged_logs import (
    another_database,
    directory,
    empty,
    garbage,
    half,
    newer,
    without_wal,
)
from tests.integration.decided_log import write_story
from tests.patience import PATIENCE_S

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "logs"
HOSTILE = "</script><b>\x1b]0;x\x07\x1b[31m\u202eevil\u2066\r\n"
READERS: dict[str, tuple[str, ...]] = {
    "ps": ("ps", "--at", "head"),
    "inspect": ("inspect", "web", "--at", "head"),
    "log": ("log",),
    "log --json": ("log", "--json"),
    "log -f": ("log", "-f", "--timeout", "5s"),
    "mark ls": ("mark", "ls"),
    "replay show": ("replay", "show"),
    "replay diff": ("replay", "diff", "1", "head"),
    "replay step": ("replay", "step", "--json"),
    "replay why": ("replay", "why", "web"),
    "replay check": ("replay", "check"),
    "replay whatif": ("replay", "whatif", "--set", "engine=crun"),
    "replay bisect": ("replay", "bisect", "--bad", "any(status == lost)"),
    "audit show": ("audit", "show", "#1"),
    "audit stats": ("audit", "stats"),
    "audit export": ("audit", "export"),
    "audit prove": ("audit", "prove", "#1"),
}
"""`audit verify`, `checkpoint`, `snapshot` and `report` have tests of their own."""


def call(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args), env={"TZ": "UTC"}, prog_name="sandtrail")


def missing(path: Path, _: Path) -> None:
    pass


CODES: dict[Callable[[Path, Path], None], int] = {
    garbage: 5, empty: 5, directory: 5, missing: 5, another_database: 5, half: 3, without_wal: 5,
    newer: 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in one file."""
    root = tmp_path_factory.mktemp("whole")
    anyio.run(write_story, root)
    made = root / "whole.db"
    assert call("audit", "snapshot", str(made), "--log", str(root / LOG_FILE)).exit_code == 0
    return made


def one_line(done: Result) -> str:
    """The only thing that a command says when it does not do what was asked."""
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.stdout == "", done
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("sandtrail: "), done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("make", CODES, ids=lambda each: each.__name__)
def test_files_that_are_no_good(
    whole: Path, tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    path = tmp_path / "bad.db"
    make(path, whole)
    for args in READERS.values():
        done = call(*args, "--log", str(path))
        assert (args, done.exit_code) == (args, CODES[make]), done.stderr
        assert "bad.db" in one_line(done)
    assert {each.name for each in tmp_path.iterdir()} <= {"bad.db"}


def test_an_event_of_a_newer_program(tmp_path: Path) -> None:
    """Only what folds or decides must know all; what shows the log shows this one, too."""
    shutil.copy(GOLDEN / "unknown_type_v1.db", tmp_path / LOG_FILE)
    codes = {
        name: call(*args, "--root", str(tmp_path)).exit_code
        for name, args in READERS.items()
        if name not in {"inspect", "replay why", "log -f"}
    }
    shows = {"log", "log --json", "mark ls", "audit show", "audit stats", "audit export"}
    assert codes == {name: 0 if name in shows | {"audit prove"} else 6 for name in codes}


SILENT = {"log -f", "mark ls"}
"""What would wait, and what has nothing to print of a log without marks."""
SINCE = {"log", "replay step", "replay check", "replay whatif", "audit stats", "audit export"}


@pytest.mark.parametrize("name", sorted(SINCE))
def test_windows(whole: Path, name: str) -> None:
    asked = (*READERS[name], "--log", str(whole))
    twice = call(*asked, "--since", "20260101")
    assert (twice.exit_code, "can be read as #20260101 or as 2026-01-01" in twice.stderr) == (
        2, True,
    )  # fmt: skip
    beyond = call(*asked, "--since", "#4711")
    assert (beyond.exit_code, "there is no #4711; the log has #1 to #" in beyond.stderr) == (
        5,
        True,
    )
    nothing = call(*asked, "--since", "#9", "--until", "#2")
    assert nothing.exit_code == 0, nothing.stderr


@pytest.mark.parametrize("name", ["ps", "inspect", "replay show", "replay diff", "replay why"])
def test_points(whole: Path, name: str) -> None:
    at = ("20260101",) if name == "replay diff" else ("--at", "20260101")
    args = [*READERS[name][:2], "lenient"] if name == "replay why" else list(READERS[name][:2])
    args = args[: 1 if name == "ps" else 2]
    if name == "replay why":
        args.append("lenient")
    done = call(*args, *at, *(("head",) if name == "replay diff" else ()), "--log", str(whole))
    assert (done.exit_code, "can be read as #20260101 or as" in done.stderr) == (2, True), done


@pytest.mark.parametrize(
    "args",
    [
        ("inspect", "lenint", "--at", "head"),
        ("inspect", "lenient/wep", "--at", "head"),
        ("replay", "show", "lenint"),
        ("replay", "diff", "1", "head", "lenint"),
        ("replay", "why", "lenint"),
        ("replay", "why", "lenient/wep"),
    ],
)
def test_an_unknown_id_is_answered_with_one_that_is_there(
    whole: Path, args: tuple[str, ...]
) -> None:
    done = call(*args, "--log", str(whole))
    right = "web" if "lenient/wep" in args else "lenient"
    assert (done.exit_code, f"did you mean '{right}'?" in done.stderr) == (5, True), done.stderr


def test_a_name_that_several_containers_have(whole: Path) -> None:
    done = call("inspect", "web", "--log", str(whole))
    assert done.exit_code == 2
    assert "'web' can be lenient/web or strict/web or blind/web: write one" in one_line(done)


@pytest.mark.parametrize("name", [each for each in READERS if each not in SILENT])
def test_whoever_reads_has_had_enough(whole: Path, name: str) -> None:
    args = [each.replace("web", "lenient") for each in READERS[name]]
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "manager.cli", *args, "--log", str(whole)],
            stdout=theirs, stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
    finally:
        os.close(theirs)
    assert done.returncode == 141, done.stderr
    assert "Traceback" not in done.stderr
    assert "sandtrail: " not in done.stderr


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a client named and an engine complained of, as it came."""

    async def write(path: Path) -> None:
        async with open_log(path) as log:
            refused = {
                "container": HOSTILE, "error": f"no such thing: {HOSTILE}", "files": [],
            }  # fmt: skip
            events = [NewEvent(type="container.create_rejected", data=refused)]
            await log.append("sandbox-web", events, expected=ANY)

    path = tmp_path_factory.mktemp("hostile") / LOG_FILE
    anyio.run(write, path)
    return path


def commands() -> Iterator[tuple[str, ...]]:
    yield from (args for name, args in READERS.items() if name != "log -f")
    yield "audit", "verify"
    yield from (("audit", "export", "-o", each) for each in ("csv", "cloudevents", "otlp"))


@pytest.mark.parametrize("args", list(commands()), ids=" ".join)
def test_names_and_errors_that_are_hostile(hostile: Path, args: tuple[str, ...]) -> None:
    done = call(*args, "--log", str(hostile))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    text = done.stdout + done.stderr
    assert [char for char in text if not char.isprintable() and char not in "\r\n"] == []
    assert "\r" not in text.replace("\r\n", "\n") or "csv" in args


@pytest.mark.parametrize(
    "args",
    [
        ("inspect", HOSTILE, "--at", "head"),
        ("ps", "--at", HOSTILE),
        ("ps", "--filter", HOSTILE),
        ("ps", "--filter", f"state={HOSTILE}"),
        ("log", "--since", HOSTILE),
        ("log", "-t", HOSTILE),
        ("log", "--where", HOSTILE),
        ("log", "--grep", f"({HOSTILE}"),
        ("log", "--actor", HOSTILE),
        ("log", "--fields", HOSTILE),
        ("replay", "why", HOSTILE),
        ("replay", "whatif", "--set", HOSTILE),
        ("replay", "whatif", "--policy", HOSTILE),
        ("replay", "bisect", "--bad", HOSTILE),
        ("replay", "diff", HOSTILE, "head"),
        ("audit", "show", HOSTILE),
        ("audit", "prove", HOSTILE),
        ("audit", "verify", "--from", HOSTILE),
        ("audit", "verify", "--against", HOSTILE),
        ("audit", "verify", "--checkpoint", "x", "--witness-key", HOSTILE),
        ("audit", "checkpoint", "--sign", HOSTILE),
        ("audit", "checkpoint", "--witness", HOSTILE),
        ("demo", "--out", "x", "--end", HOSTILE),
        ("demo", "--out", f"/nowhere/{HOSTILE}"),
        ("urpc", "x", HOSTILE),
        ("help", HOSTILE),
        (HOSTILE,),
    ],
    ids=lambda args: " ".join(args[:-1]),
)
def test_questions_that_are_hostile(
    whole: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]
) -> None:
    monkeypatch.setenv("SANDTRAIL_LOG", str(whole))
    done = call(*args)
    assert done.exit_code in {2, 5}, done
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    assert "\u202e" not in done.stderr
