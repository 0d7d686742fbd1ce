"""Marks on the command line: listed and found in any log, taken again by the rules."""

import json
import shutil
from pathlib import Path

import anyio
import jsonschema
import pytest
from click.testing import CliRunner, Result

from manager.cli import cli
from manager.domain.mark import MarkAdded, MarkRejected
from manager.schema.layout import LOG_FILE
from replay import Trail
from tests.integration.decided_log import Historian, write_story

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
REFUSED = 'mark "deploy" already exists, at #1'


async def write_marks(root: Path) -> None:
    async with Historian(root) as historian:
        await historian.note(MarkAdded(name="deploy", message="v2 \x1b[31mgoes out"))
        await historian.note(MarkAdded(name="before", at=1))
        await historian.note(MarkRejected(name="deploy", error=REFUSED, head=2))
        await historian.note(MarkAdded(name="late"))


def call(root: Path, *args: str) -> Result:
    env = {"SANDTRAIL_ROOT": str(root), "TZ": "UTC"}
    return CliRunner().invoke(cli, args, env=env, prog_name="sandtrail")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    anyio.run(write_marks, tmp_path / "r")
    return tmp_path / "r"


def test_they_are_listed_with_who_and_what_for(root: Path) -> None:
    shown = call(root, "mark", "ls")
    assert "\x1b" not in shown.stdout
    assert [line.split()[:2] for line in shown.stdout.splitlines()] == [
        ["NAME", "POINT"], ["deploy", "#1"], ["before", "#1"], ["late", "#4"],
    ]  # fmt: skip
    assert shown.stderr == "3 marks\n"
    told = json.loads(call(root, "mark", "ls", "--json").stdout)
    jsonschema.validate(told, json.loads((SCHEMAS / "marks.v1.json").read_text()))
    items = told["items"]
    assert [(each["name"], each["at"], each["position"]) for each in items] == [
        ("deploy", 1, 1), ("before", 1, 2), ("late", 4, 4),
    ]  # fmt: skip


def test_they_are_points_for_every_command_also_in_a_copy(tmp_path: Path) -> None:
    anyio.run(write_story, tmp_path / "story")
    anyio.run(write_marks_after, tmp_path / "story")
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "story" / LOG_FILE, tmp_path / "copy" / LOG_FILE)
    copy = tmp_path / "copy"
    shown = call(copy, "ps", "--at", "mark:early", "--json")
    assert json.loads(shown.stdout)["as_of"]["position"] == 9
    done = call(copy, "replay", "diff", "mark:early", "mark:now")
    assert done.exit_code == 1, done.output
    counted = call(copy, "log", "--since", "mark:early", "--until", "mark:early", "--count")
    assert counted.stdout == "1\n"


async def write_marks_after(root: Path) -> None:
    async with Historian(root) as historian:
        await historian.note(MarkAdded(name="early", at=9))
        await historian.note(MarkAdded(name="now"))


async def test_python_programs_find_them_too(tmp_path: Path) -> None:
    await write_marks(tmp_path / "r")
    async with Trail.open(tmp_path / "r" / LOG_FILE) as trail:
        assert {name: mark.at for name, mark in (await trail.marks()).items()} == {
            "deploy": 1, "before": 1, "late": 4,
        }  # fmt: skip
        assert await trail.position("mark:late") == 4


def test_a_wrong_name_is_answered_with_one_that_is_there(root: Path) -> None:
    done = call(root, "ps", "--at", "mark:depoly")
    assert done.exit_code == 5
    assert "there is no mark 'depoly': did you mean mark:deploy?" in done.stderr


def test_they_are_decided_again(root: Path) -> None:
    done = call(root, "replay", "check", "--json")
    assert done.exit_code == 0, done.stdout
    assert json.loads(done.stdout)["verdicts"] == {"same": 4}


def test_a_mark_that_the_rules_do_not_give_is_found(root: Path) -> None:
    anyio.run(write_false_mark, root)
    done = call(root, "replay", "check", "--json")
    assert done.exit_code == 1
    (found,) = json.loads(done.stdout)["findings"]
    assert found["verdict"] == "narrowed"
    assert found["now"] == 'mark "late" already exists, at #4'
    assert "manager/domain/mark.py" in found["rule"]
    part = call(root, "replay", "check", "--since", "head", "--json")
    assert len(json.loads(part.stdout)["findings"]) == 1, "marks before the window count"


async def write_false_mark(root: Path) -> None:
    async with Historian(root) as historian:
        await historian.note(MarkAdded(name="late", at=2))


def test_the_log_tells_what_was_marked(root: Path) -> None:
    lines = call(root, "log", "--type", "mark.added").stdout
    assert "before at #1" in lines
    assert "deploy v2 \\x1b[31mgoes out" in lines
    assert REFUSED in call(root, "log", "--outcome", "refused").stdout


@pytest.mark.parametrize(
    ("when", "code", "says"),
    [
        ("mark:before", 1, "control.sock"),
        ("mark:befor", 5, "did you mean mark:before?"),
        ("#0", 5, "there is no event before the first one, #1"),
        ("99", 5, "there is no #99; the log has #1 to #4"),
        ("tomorrow", 2, "is no point of a log"),
    ],
)
def test_only_a_service_makes_them_and_only_of_points_that_there_are(
    root: Path, when: str, code: int, says: str
) -> None:
    done = call(root, "mark", "add", "x", when)
    assert (done.exit_code, done.stdout) == (code, "")
    assert says in done.stderr


def test_a_shell_completes_them(root: Path) -> None:
    env = {
        "SANDTRAIL_ROOT": str(root),
        "COMP_WORDS": "sandtrail ps --at mark:",
        "COMP_CWORD": "3",
        "_SANDTRAIL_COMPLETE": "zsh_complete",
    }
    done = CliRunner().invoke(cli, env=env, prog_name="sandtrail")
    assert [line for line in done.stdout.splitlines() if "mark" in line] == [
        "mark:deploy", "mark:before", "mark:late",
    ]  # fmt: skip
