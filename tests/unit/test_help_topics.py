"""Help topics, and how a bug ends."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from manager.cli import COMMANDS, cli
from manager.cli.help import TOPICS
from manager.schema.events import EVENT_TYPES
from manager.schema.node_events import NODE_EVENT_TYPES
from manager.terminal.ending import EXIT_CODES
from replay.cli.audit import COMMANDS as AUDIT
from replay.cli.replay import COMMANDS as REPLAY


@pytest.mark.parametrize(
    ("topic", "says"),
    [
        ("exit-codes", "124  the time given with --timeout is over"),
        ("when", "evt:ID               an event by its id"),
        ("events", "container.exited"),
        ("expressions", 'count(status == "failed") > 0'),
        ("log", "--until-match"),
    ],
)
def test_topics(topic: str, says: str) -> None:
    done = CliRunner().invoke(cli, ["help", topic])
    assert done.exit_code == 0
    assert says in done.stdout
    assert "``" not in done.stdout


@pytest.mark.parametrize("topic", TOPICS)
def test_topics_fit_a_terminal(topic: str) -> None:
    told = CliRunner().invoke(cli, ["help", topic]).stdout
    assert [line for line in told.splitlines() if len(line) > 80] == []


def test_every_code_and_event_is_told() -> None:
    codes = CliRunner().invoke(cli, ["help", "exit-codes"]).stdout
    assert [int(line.split()[0]) for line in codes.splitlines()] == sorted(EXIT_CODES)
    events = CliRunner().invoke(cli, ["help", "events"]).stdout
    named = {line.split()[0] for line in events.splitlines() if not line.startswith(" ")}
    assert named >= set(EVENT_TYPES)
    assert named <= {*EVENT_TYPES, *NODE_EVENT_TYPES}


def test_without_a_topic_the_commands_are_told() -> None:
    done = CliRunner().invoke(cli, ["help"])
    assert all(name in done.stdout for name in COMMANDS)
    assert "Topics: exit-codes, when" in done.stdout


def test_no_such_topic() -> None:
    done = CliRunner().invoke(cli, ["help", "exit-code"])
    assert done.exit_code == 5
    assert "did you mean 'exit-codes'?" in done.stderr


@pytest.mark.parametrize("debug", [False, True])
def test_a_bug_shows_its_traceback_only_when_asked(debug: bool) -> None:
    script = (
        "import manager.cli, sys\n"
        "manager.cli.LazyGroup.get_command = lambda *_: 1 / 0\n"
        "manager.cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *(["--debug"] if debug else []), "ps"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ("Traceback" in done.stderr) is debug
    if not debug:
        assert done.returncode == 70
        assert done.stderr.startswith("sandtrail: a bug: ZeroDivisionError: division by zero;")


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [(["nonsense"], 2, "No such command 'nonsense'"), (["ps", "--nonsense"], 2, "--nonsense")],
)
def test_usage(args: list[str], code: int, says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "manager.cli", *args], capture_output=True, text=True, check=False
    )
    assert (done.returncode, says in done.stderr) == (code, True)


GROUPS = {"": COMMANDS, "replay": REPLAY, "audit": AUDIT}


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group, found in GROUPS.items() for name in found]
)
def test_every_command_has_help_that_fits_80_columns(group: str, name: str) -> None:
    args = [*([group] if group else []), name, "--help"]
    done = CliRunner().invoke(cli, args, prog_name="sandtrail", terminal_width=80)
    assert done.exit_code == 0
    assert "\\b" not in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert len(GROUPS[group][name][1]) <= 75


def test_help_imports_no_command() -> None:
    script = (
        "import sys, manager.cli\n"
        "try: manager.cli.cli(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*sorted(name for name in sys.modules if '.cli.' in name))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == ""
