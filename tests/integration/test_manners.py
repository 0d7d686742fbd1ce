"""What every command takes, before its name or after it; and how the answer looks on a terminal."""

import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from eventstore import SCHEMA_VERSION
from manager.cli import COMMANDS, SECTIONS, cli
from manager.cli.mark import COMMANDS as MARK
from manager.schema.layout import LOG_FILE
from manager.schema.node_snapshot import fold_fingerprint
from replay.cli.audit import COMMANDS as AUDIT
from replay.cli.replay import COMMANDS as REPLAY

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "logs" / "log_v1.db"
COLOR = re.compile(r"\x1b\[[0-9;]*(?:3|4|9|10)[0-7]m")
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copy(GOLDEN, tmp_path / LOG_FILE)
    return tmp_path


@pytest.fixture(autouse=True)
def same_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Options act on the process, which is that of the tests here."""
    for name in ("TZ", "NO_COLOR", "FORCE_COLOR", "SANDTRAIL_ROOT", "SANDTRAIL_LOG"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    yield
    monkeypatch.undo()
    time.tzset()


def call(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args), prog_name="sandtrail")


@pytest.mark.parametrize(
    ("zone", "clock"),
    [(("--utc",), "00:00:00"), (("--tz", "Asia/Tokyo"), "09:00:00"), (("--tz", "UTC"), "00:00:00")],
)
def test_whose_time(root: Path, zone: tuple[str, ...], clock: str) -> None:
    asked = ("log", "--root", str(root), "--until", "1")
    before, after = call(*zone, *asked), call(*asked, *zone)
    assert before.stdout == after.stdout
    assert f"1  {clock}" in after.stdout


def test_a_zone_counts_for_what_is_asked_for_too(root: Path) -> None:
    done = call("--root", str(root), "log", "--count", "--until", "2026-01-01T09:00:00.5",
                "--tz", "Asia/Tokyo")  # fmt: skip
    assert done.stdout == "3\n"


def test_no_such_zone(root: Path) -> None:
    for name in ("Europe/Wien", "../../etc/passwd", "", "/etc/localtime"):
        done = call("ps", "--root", str(root), "--at", "9", "--tz", name)
        assert (done.exit_code, "is no time zone: want a name such as" in done.stderr) == (2, True)


def test_before_the_name_of_a_command(root: Path) -> None:
    path = str(root / LOG_FILE)
    there = call("-q", "-o", "json", "--log", path, "replay", "show", "--at", "9")
    here = call("replay", "show", "--at", "9", "--log", path, "--json")
    assert there.stderr == ""
    assert json.loads(there.stdout) == json.loads(here.stdout)
    assert call("--json", "--root", str(root), "ps", "--at", "9").stdout == there.stdout


def test_quiet_leaves_the_answer_and_errors(root: Path) -> None:
    loud, quiet = [call("ps", "--root", str(root), "--at", "9", *more) for more in ((), ("-q",))]
    assert (loud.stdout, quiet.stderr) == (quiet.stdout, "")
    assert "containers: 2; sandboxes: 2" in loud.stderr
    assert "there is no #99" in call("ps", "-q", "--root", str(root), "--at", "99").stderr


@pytest.mark.parametrize("write", ["create", "start", "kill", "rm", "pause", "checkpoint", "run"])
def test_the_past_cannot_be_changed(write: str) -> None:
    done = call(write, "web", "--at", "#9")
    assert (done.exit_code, "o such option" in done.stderr and "--at" in done.stderr) == (2, True)


def commands() -> Iterator[tuple[str, ...]]:
    yield from ((name,) for name in COMMANDS)
    for group, members in (("replay", REPLAY), ("audit", AUDIT), ("mark", MARK)):
        yield from ((group, name) for name in members)


@pytest.mark.parametrize("names", list(commands()), ids=" ".join)
def test_every_command_takes_them(names: tuple[str, ...]) -> None:
    done = call(*names, "--utc", "--color", "never", "-q", "--no-pager", "--no-input", "--help")
    assert (done.exit_code, done.stdout.startswith("Usage: sandtrail")) == (0, True), done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_the_help_has_each_command_once() -> None:
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(COMMANDS)
    told = call("--help").stdout
    for title in SECTIONS:
        assert f"\n{title}:\n" in told
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", told, re.MULTILINE)


@pytest.mark.parametrize("args", [("--version", "--json"), ("--json", "--version")])
def test_the_version_of_all_that_matters(args: tuple[str, ...]) -> None:
    assert json.loads(call(*args).stdout) == {
        "schema": "sandtrail.version/v1",
        "version": version("sandtrail"),
        "log_format": SCHEMA_VERSION,
        "fold": fold_fingerprint(),
        "python": sys.version.split()[0],
    }
    assert call("--version").stdout == f"sandtrail {version('sandtrail')}\n"


def on_terminal(root: Path, *args: str, keys: bytes = b"", **env: str) -> str:
    """What a terminal of 24 lines of 80 columns shows of a command.

    ``keys`` are pressed when the first screen is full; they make the pager leave.
    """
    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    plain = {name: text for name, text in os.environ.items() if name not in {"COLUMNS", "CI"}}
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", sys.executable, "-m", "manager.cli", *args],
        env={**plain, "TERM": "xterm-256color", "PAGER": "cat", "SANDTRAIL_ROOT": str(root), **env},
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(mine, 65536):
            shown += chunk
            if keys and shown.count(b"\n") >= 20:
                os.write(mine, keys)
                keys = b""
    except OSError:  # EIO: the last of its ends was closed
        pass
    os.close(mine)
    assert process.wait() == 0
    return shown.decode()


PREFIX = "sed s/^/PAGED:/"


def test_a_person_gets_a_pager_with_all_that_is_told(root: Path) -> None:
    shown = on_terminal(root, "log", "-s", "hello", PAGER=PREFIX)
    lines = shown.splitlines()
    assert all(line.startswith("PAGED:") for line in lines)
    assert COLOR.search(shown) or "\x1b[1m" in shown
    assert all(len(ESCAPE.sub("", line)) <= 80 + len("PAGED:") for line in lines[:-2])
    assert "events match" in lines[-1]


@pytest.mark.parametrize(
    ("args", "env"),
    [
        (("--no-pager",), {}),
        (("--no-input",), {}),
        ((), {"SANDTRAIL_PAGER": ""}),
        ((), {"SANDTRAIL_PAGER": "cat"}),
        ((), {"SANDTRAIL_PAGER": "/no/such/pager -x"}),
        ((), {"SANDTRAIL_PAGER": "less '"}),
        ((), {"TERM": "dumb"}),
        (("-f", "--timeout", "0.1", "--until-match", "position == 9"), {}),
        (("--count",), {}),
    ],
)
def test_nobody_else_does(root: Path, args: tuple[str, ...], env: dict[str, str]) -> None:
    assert "PAGED" not in on_terminal(root, "log", *args, **{"PAGER": PREFIX, **env})


def test_a_cursor_knows_no_pager(root: Path, tmp_path: Path) -> None:
    """Whoever leaves it has not seen what it has read."""
    cursor = ("--cursor-file", str(tmp_path / "cursor"))
    for how in ((), ("--json",)):
        assert "PAGED" not in on_terminal(root, "log", *cursor, *how, PAGER=PREFIX)


def test_a_pipe_has_no_pager(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGER", PREFIX)
    assert "PAGED" not in call("log", "--root", str(root)).output


@pytest.mark.skipif(shutil.which("less") is None, reason="less is not installed")
def test_less_shows_a_screen_and_can_be_left(root: Path) -> None:
    shown = on_terminal(root, "log", keys=b"q", PAGER="less")
    assert "manager.started" in shown
    assert "events match" not in shown, "it was left after the first screen"
    short = on_terminal(root, "log", "--until", "2", PAGER="less")
    assert "2 of 2 events match" in short, "what fits is not waited for"


def test_a_pager_that_is_left_in_the_middle_is_no_failure(root: Path, tmp_path: Path) -> None:
    """More than a pipe holds is still to be printed when the pager is gone."""
    made = tmp_path / "d.db"
    call("demo", "--out", str(made))
    shown = on_terminal(root, "log", "--log", str(made), PAGER="head -n 1")
    assert len(shown.splitlines()) == 1


def test_without_input_nothing_is_read(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from manager.cli import cli; "
         "cli.main(['--no-input', '--root', sys.argv[1], '-q', 'log', '--count'], "
         "standalone_mode=False); print(repr(sys.stdin.read()))", str(root)],
        input="keys", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "''"


def test_verbose_tells_what_is_read_and_from_where(root: Path) -> None:
    def told(*args: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "manager.cli", *args, "ps", "--root", str(root), "--at", "9"],
            capture_output=True, text=True, check=True,
        ).stderr  # fmt: skip

    assert re.search(r" ms log\.read path=\S+ how=alone\n", told("-v"))
    assert " ms log.folded after=0 until=9\n" in told("--verbose")
    assert "log.read" not in told()


@pytest.mark.parametrize(
    ("args", "env"),
    [
        ((), {}),
        ((), {"NO_COLOR": "1"}),
        (("--color", "never"), {}),
        ((), {"TERM": "dumb"}),
        (("-o", "plain"), {}),
    ],
)
def test_on_a_terminal(root: Path, args: tuple[str, ...], env: dict[str, str]) -> None:
    shown = on_terminal(root, "log", "-s", "hello", *args, **env)
    assert "sandbox.started" in shown
    if args or env:
        assert not COLOR.search(shown)
    if "plain" in args or "TERM" in env:
        assert "\x1b" not in shown
    if "plain" not in args:
        rows = shown.split("window:")[0]
        assert all(len(ESCAPE.sub("", line)) <= 80 for line in rows.splitlines())


def test_what_is_beside_the_answer_fits_a_terminal(root: Path) -> None:
    shown = ESCAPE.sub("", on_terminal(root, "log", "--count"))
    assert "window: #1 to #43, " in shown
    assert max(map(len, shown.splitlines())) <= 80
    piped = call("log", "--root", str(root), "--count").stderr
    assert max(map(len, piped.splitlines())) > 80, "where nobody looks it is one line"


def test_colour_where_nobody_looks_only_if_asked_for(root: Path) -> None:
    asked = ("log", "--root", str(root), "--until", "2")
    assert "\x1b" not in call(*asked).stdout
    assert "\x1b[" in call(*asked, "--color", "always").stdout
    assert "\x1b" not in call(*asked, "--color", "never").stdout


def test_what_is_taken_everywhere_hides_nothing_of_a_command() -> None:
    export = cli.get_command(click.Context(cli), "audit")
    assert isinstance(export, click.Group)
    found = export.get_command(click.Context(export), "export")
    assert found is not None
    names = [name for param in found.params for name in param.opts]
    assert len(names) == len(set(names))


def test_a_point_and_fields_before_the_name_of_a_command(root: Path) -> None:
    place = ("--root", str(root))
    for names in (("ps",), ("replay", "show"), ("inspect", "hello")):
        before = call(*place, "--at", "#9", *names, "-o", "json")
        assert before.exit_code == 0, before.output
        assert before.stdout == call(*place, *names, "--at", "#9", "-o", "json").stdout
    assert call(*place, "--at", "#3", "ps", "--at", "#9", "--json").stdout == (
        call(*place, "ps", "--at", "#9", "--json").stdout
    ), "what stands after it counts"
    assert call(*place, "--fields", "position", "log", "-n", "1").stdout.split()[0] == "position"


@pytest.mark.parametrize("names", [("rm", "web"), ("mark", "add", "x"), ("log",), ("top", "web")])
def test_a_point_is_never_ignored(names: tuple[str, ...]) -> None:
    done = call("--at", "#9", *names)
    assert (done.exit_code, f"{names[-2 if names[0] == 'mark' else 0]} does not take --at" in (
        done.stderr
    )) == (2, True)  # fmt: skip


def test_one_line_for_line_readers(root: Path) -> None:
    one = call("ps", "--root", str(root), "--at", "9", "-o", "jsonl").stdout
    assert one.count("\n") == 1
    assert json.loads(one) == json.loads(
        call("ps", "--root", str(root), "--at", "9", "--json").stdout
    )


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("lgo",), "No such command 'lgo'. Did you mean log?"),
        (("audit", "verfy"), "Did you mean verify?"),
        (("xyzzy",), "No such command 'xyzzy'.\n"),
        (("log", "-t", "container.exitd"), "did you mean 'container.exited'?"),
    ],
)
def test_a_slip_of_the_finger_is_answered_with_what_there_is(
    args: tuple[str, ...], says: str
) -> None:
    done = call(*args)
    assert (done.exit_code, says in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("ps --at h", ["head"]),
        ("log --since to", ["today"]),
        ("log -t container.st", ["container.start_accepted", "container.start_failed",
                                 "container.start_rejected", "container.start_translated",
                                 "container.started"]),
        ("log -s he", ["hello"]),
        ("log -c he", ["hello"]),
        ("log -s web -c he", []),
        ("--at 1 inspect h", []),
        ("--at 9 inspect h", ["hello"]),
        ("replay diff ye", ["yesterday"]),
    ],
)  # fmt: skip
def test_a_shell_completes(root: Path, line: str, completed: list[str]) -> None:
    words = f"sandtrail {line}"
    done = subprocess.run(
        [sys.executable, "-c", "from manager.cli import cli; cli.main(prog_name='sandtrail')"],
        env={**os.environ, "SANDTRAIL_ROOT": str(root), "COMP_WORDS": words,
             "COMP_CWORD": str(len(words.split()) - 1), "_SANDTRAIL_COMPLETE": "bash_complete"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [each.partition(",")[2] for each in done.stdout.split()] == completed


COMMANDS_THAT_PRINT = ("log", "ps --at head", "audit stats", "help when", "--version", "doctor")


@pytest.mark.parametrize("arguments", COMMANDS_THAT_PRINT)
@pytest.mark.parametrize(
    ("closed", "code", "says"),
    [
        ("<&-", 0, ""),
        ("2>&-", 0, ""),
        (">&-", 5, "sandtrail: [Errno 9] Bad file descriptor\n"),
        ("<&- >&- 2>&-", 5, ""),
        (">/dev/full", 5, "sandtrail: [Errno 28] No space left on device\n"),
    ],
)
def test_a_stream_that_is_closed_or_full(
    root: Path, arguments: str, closed: str, code: int, says: str
) -> None:
    environment = {**os.environ, "SANDTRAIL_ROOT": str(root)}
    environment.pop("PYTHONUNBUFFERED", None)
    command = f"{sys.executable} -m manager.cli {arguments} {closed}"
    done = subprocess.run(
        command, shell=True, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.endswith(says)) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_cursor_does_not_pass_what_went_to_a_closed_stream(root: Path, tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    command = f"{sys.executable} -m manager.cli log --json --cursor-file {cursor} >&-"
    environment = {**os.environ, "SANDTRAIL_ROOT": str(root)}
    done = subprocess.run(command, shell=True, env=environment, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 5
    assert not cursor.exists()
