"""``sandtrail replay step`` on a terminal, ids that a shell completes, and one event looked at."""

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
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from manager.cli import cli
from manager.domain.mark import MarkAdded
from manager.schema.layout import LOG_FILE
from tests.integration.decided_log import Historian, write_story
from tests.patience import PATIENCE_S

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "logs" / "log_v1.db"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copy(GOLDEN, tmp_path / LOG_FILE)
    return tmp_path


class Terminal:
    """A command on a terminal of 80 columns and 24 rows."""

    def __init__(self, root: Path, *args: str) -> None:
        self.fd, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs
        self.process = subprocess.Popen(
            [sys.executable, "-m", "manager.cli", "replay", "step", *args],
            env={**os.environ, "SANDTRAIL_ROOT": str(root), "TZ": "UTC"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )

    def see(self, text: str) -> str:
        """Read until the terminal shows something."""
        seen = ""
        while text not in seen:
            seen += os.read(self.fd, 65536).decode(errors="replace")
        return seen

    def press(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.fd)
        os.close(self.theirs)


@pytest.fixture
def terminal(root: Path) -> Iterator[Terminal]:
    opened = Terminal(root)
    yield opened
    opened.close()


def test_a_walk_through_a_log(terminal: Terminal) -> None:
    assert "manager.started" in terminal.see("q quit")
    for keys, position in (
        ("l", "#2"),
        ("\x1b[C", "#3"),
        ("h", "#2"),
        ("f", "#12"),
        ("f", "#16"),
        ("G", "#43"),
        ("\x1b[H", "#1 "),
        ("x", "#1 "),
        ("p", "#1 "),
    ):
        terminal.press(keys)
        screen = terminal.see("q quit")
        assert f"   {position}" in screen.splitlines()[0]
        assert all(len(line) <= 80 + len("\x1b[H\x1b[2J") for line in screen.split("\r\n"))
    terminal.press("q")
    assert terminal.process.wait(timeout=PATIENCE_S) == 0
    assert termios.tcgetattr(terminal.theirs) == terminal.before


def test_states_are_those_of_the_event(root: Path) -> None:
    opened = Terminal(root, "web", "--since", "25", "--until", "31")
    try:
        first = opened.see("q quit")
        assert "1 of 6   #25" in first
        assert "side       starting" in first
        opened.press("G")
        assert "side       stopped (signal 9)" in opened.see("q quit")
        opened.press("\x03")
        assert opened.process.wait(timeout=PATIENCE_S) == 0
    finally:
        opened.close()


def test_looking_for_a_text(terminal: Terminal) -> None:
    terminal.see("q quit")
    terminal.press("/Sandbox.STARTED")
    terminal.see("/Sandbox.STARTED")
    terminal.press("x\x7f\r")
    assert "sandbox.started" in terminal.see("   #6   ")
    terminal.press("/\r")  # the same again
    terminal.see("   #11   ")
    terminal.press("/nowhere to be \u00fcber\r")
    terminal.see("no event after this one has 'nowhere to be \u00fcber'")
    terminal.press("/\x1b")  # thought better of it
    assert "   #11   " in terminal.see("q quit")
    terminal.press("q")
    assert terminal.process.wait(timeout=PATIENCE_S) == 0


def test_what_an_event_changed_and_why(root: Path) -> None:
    opened = Terminal(root, "--since", "25", "--until", "31")
    try:
        opened.see("q quit")
        opened.press("Gd")
        screen = opened.see("stopped\r\n")
        assert "~ web.containers.side.status: running -> stopped" in screen
        opened.press("hhh")
        opened.see("this event changed no state")
        opened.press("Gy")
        screen = opened.see("none can be left out")
        assert "web.containers.side.status is stopped since #31" in screen
        assert all(len(line) <= 80 for line in re.split(r"\r\n|\x1b\[H\x1b\[2J", screen))
        opened.press("x")
        opened.see("~ web.containers.side.status")
        opened.press("d")
        opened.see("side       stopped (signal 9)")
    finally:
        opened.close()


def test_the_last_event_of_a_sandbox_and_one_of_none(root: Path) -> None:
    opened = Terminal(root, "--since", "20")
    try:
        opened.see("q quit")
        opened.press("/deleted\r")
        opened.see("sandbox.deleted")
        opened.press("y")
        opened.see("Needed for it")
    finally:
        opened.close()
    first = Terminal(root, "--until", "2")
    try:
        first.see("q quit")
        first.press("y")
        first.see("this event is about no sandbox that was there")
        first.press("wengine=crun\r")
        first.see("this event was not decided: it tells of the node")
    finally:
        first.close()


async def test_marks(tmp_path: Path) -> None:
    await write_story(tmp_path)
    async with Historian(tmp_path) as to:
        for name, at in (("two", 22), ("one", 9), ("too", 9), ("now", 0)):
            await to.note(MarkAdded(name=name, at=at))
    opened = Terminal(tmp_path)
    try:
        opened.see("q quit")
        for key, position, names in (
            ("]", "#9", "   mark:one   mark:too"), ("]", "#22", "   mark:two"),
            ("]", "#33", "   mark:now"), ("[", "#22", "   mark:two"), ("[", "#9", "   mark:one"),
        ):  # fmt: skip
            opened.press(key)
            head = opened.see("q quit").split("\r\n")[0]
            assert f"   {position}   " in head
            assert names in head
        opened.press("[")
        opened.see("no mark")
    finally:
        opened.close()
    one = Terminal(tmp_path, "lenient")  # the event of a mark may be left out
    try:
        one.see("q quit")
        one.press("]]")
        seen = one.see("mark:two\r\nsandbox.restored")
        assert re.search(r"#10   \S+   mark:two\r\nsandbox.restored", seen)
    finally:
        one.close()


async def test_what_if(tmp_path: Path) -> None:
    await write_story(tmp_path)
    opened = Terminal(tmp_path, "strict", "--until", "16")
    try:
        opened.see("q quit")
        opened.press("Gw")
        opened.see("what if ")
        opened.press("restore-spec-validation=ignore\r")
        screen = opened.see("NOW")
        assert "strict/web: widened" in screen
        assert "RECORDED  refused: failed to" in screen
        opened.press("wcolour=red\r")
        opened.see("'colour=red' is no setting: want restore-spec-validation=ignore")
        opened.press("wengine=runsc\r")
        opened.see(": same")
    finally:
        opened.close()


def test_without_a_terminal_all_of_it_as_json(root: Path) -> None:
    done = call(root, "replay", "step", "web", "--since", "25", "--until", "31", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["event"]["position"] for each in lines] == [25, 26, 27, 29, 30, 31]
    for each in lines:
        at = f"#{each['event']['position']}"
        shown = json.loads(call(root, "ps", "--at", at, "--json").stdout)["items"]
        assert each["items"] == [item for item in shown if item["ID"] == "web"]


def call(root: Path, *args: str) -> Result:
    env = {"SANDTRAIL_ROOT": str(root), "TZ": "UTC"}
    return CliRunner().invoke(cli, list(args), env=env, prog_name="sandtrail")


def test_what_is_no_terminal_is_refused(root: Path) -> None:
    done = call(root, "replay", "step")
    assert (done.exit_code, "step needs a terminal" in done.stderr) == (2, True)


# --- completion ----------------------------------------------------------------------------------


def completed(root: Path, line: str) -> list[str]:
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-c", "from manager.cli import main; main()"],
        env={
            **os.environ,
            "SANDTRAIL_ROOT": str(root),
            "_SANDTRAIL_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return [each.partition(",")[2] for each in done.stdout.split()]


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("sandtrail insp", ["inspect"]),
        ("sandtrail replay wh", ["why", "whatif"]),
        ("sandtrail inspect --at 30 w", ["web"]),
        ("sandtrail inspect --at 30 web/", ["web/web", "web/side"]),
        ("sandtrail replay why --at 9 ", ["hello", "fails"]),
        ("sandtrail inspect --at 4711 w", []),
        ("sandtrail inspect --at 30 nobody/", []),
        ("sandtrail inspect --log /nowhere ", []),
    ],
)
def test_a_shell_completes(root: Path, line: str, offers: list[str]) -> None:
    assert completed(root, line) == offers


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell(root: Path, shell: str) -> None:
    done = call(root, "completion", shell)
    assert done.exit_code == 0
    assert f"_SANDTRAIL_COMPLETE={shell}_complete" in done.stdout


# --- one event -----------------------------------------------------------------------------------


def test_an_event_with_its_causes_and_effects(root: Path) -> None:
    done = call(root, "audit", "show", "6")
    lines = done.stdout.splitlines()
    assert lines[0] == "#6 sandbox.started  ok"
    assert "by:       uid:0 gid:0 pid 5237" in [
        line.replace("pid 5236", "pid 5237") for line in lines
    ]
    assert any(line.startswith("  #5 sandbox.start_requested") for line in lines)
    found = json.loads(call(root, "audit", "show", "#5", "--json").stdout)
    assert [each["position"] for each in found["effects"]] == [6, 7, 8]
    assert found["causes"] == []
    assert found["sealed"] is True


def test_no_such_event(root: Path) -> None:
    assert call(root, "audit", "show", "#44").exit_code == 5
    assert "no event before the first one" in call(root, "audit", "show", "0").stderr


def test_a_sandbox_that_is_gone_is_told_when(root: Path) -> None:
    done = call(root, "inspect", "absent", "--at", "30")
    assert done.exit_code == 5
    assert "not found any more; look at it with --at '#19'" in done.stderr
    why = call(root, "replay", "why", "absent")
    assert "as of #19" in why.stderr
    assert "absent.phase is stopped since #16" in why.stdout
