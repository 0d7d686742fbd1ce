"""``sandtrail replay``: on a log of three restores, and on one from before there were any."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner, Result

from manager.cli import cli
from manager.schema.layout import LOG_FILE
from tests.integration.decided_log import write_story

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "logs" / "log_v1.db"
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("story")
    anyio.run(write_story, root)
    return root


@pytest.fixture
def root(story: Path, tmp_path: Path) -> Path:
    shutil.copy(story / LOG_FILE, tmp_path / LOG_FILE)
    return tmp_path


@pytest.fixture
def old(tmp_path: Path) -> Path:
    (tmp_path / "old").mkdir()
    shutil.copy(GOLDEN, tmp_path / "old" / LOG_FILE)
    return tmp_path / "old"


def call(root: Path, *args: str) -> Result:
    env = {"SANDTRAIL_ROOT": str(root), "TZ": "UTC"}
    return CliRunner().invoke(cli, ["replay", *args], env=env, prog_name="sandtrail")


def told(root: Path, *args: str) -> dict[str, Any]:
    done = call(root, *args, "--json")
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# --- show, diff ----------------------------------------------------------------------------------


def test_show_is_what_ps_and_inspect_show(old: Path) -> None:
    env = {"SANDTRAIL_ROOT": str(old), "TZ": "UTC"}
    for args in ([], ["--json"]):
        for ours, theirs in (([], ["ps"]), (["web"], ["inspect", "web"])):
            shown = call(old, "show", *ours, "--at", "30", *args)
            expected = CliRunner().invoke(cli, [*theirs, "--at", "30", *args], env=env)
            assert shown.stdout == expected.stdout != ""
            assert shown.exit_code == 0


def test_diff_names_each_field(old: Path) -> None:
    done = call(old, "diff", "29", "31", "web")
    assert done.exit_code == 1
    assert "~ web.containers.side.status: running -> stopped" in done.stdout
    assert "from #29 2026-01-01T00:00:02.243+00:00 to #31" in done.stderr
    lines = call(old, "diff", "8", "30", "hello", "web").stdout.splitlines()
    assert [line[0] for line in lines] == sorted((line[0] for line in lines), key="+-~".index)
    same = call(old, "diff", "30", "#30")
    assert (same.exit_code, same.stdout) == (0, "")
    assert "no difference" in same.stderr


def test_diff_as_json(old: Path) -> None:
    found = told(old, "diff", "8", "9")
    (added,) = found["differences"]
    assert (added["path"], added["kind"]) == (["fails"], "added")
    assert "before" not in added
    assert found["patch"] == [{"op": "add", "path": "/fails", "value": added["after"]}]
    back = told(old, "diff", "9", "8")
    assert back["patch"] == [{"op": "remove", "path": "/fails"}]


def test_diff_with_the_events_between(old: Path) -> None:
    done = call(old, "diff", "head", "29", "--events")
    assert "container.exited" in done.stdout
    assert done.stdout.count("sandbox.delete_rejected") == 1
    assert "did you mean 'web'?" in call(old, "diff", "8", "30", "wab").stderr


# --- why -----------------------------------------------------------------------------------------


def test_why_a_container_stopped(root: Path) -> None:
    done = call(root, "why", "lenient/web")
    assert done.exit_code == 0
    assert "lenient.containers.web.status is stopped since #27" in done.stdout
    assert "likely by: #25 container.signal_requested  signal 9  by uid:0, pid 4411" in done.stdout
    assert "Shown: 2 of 13 events of the sandbox. Checked: these alone give" in done.stdout


def test_why_with_the_mismatches(root: Path) -> None:
    done = call(root, "why", "strict")
    assert "strict.phase is restoreFailed since #16" in done.stdout
    found = told(root, "why", "strict")
    assert found["value"] == "restoreFailed"
    assert [each["position"] for each in found["essential"]] == [16]
    assert [each["type"] for each in found["causes"]] == [
        "sandbox.restore_failed",
        "restore.validated",
        "container.restore_accepted",
    ]
    assert '"Args" does not match across checkpoint restore' in done.stdout
    assert done.stdout.count('"Args" does not match across checkpoint restore') == 3
    assert [each["position"] for each in found["decided_on"]] == [11, 12]
    assert "decided on: #12 restore.begun  policy enforce, image sha256:" in done.stdout


def test_why_of_any_field_and_time(root: Path) -> None:
    found = told(root, "why", "lenient/web.launched.pid", "--at", "20")
    assert (found["value"], found["since"]) == (11, 9)
    assert [each["type"] for each in found["essential"]] == [
        "container.created",
        "container.started",
    ]
    never = call(root, "why", "blind.deleting")
    assert "blind.deleting is false, as it was from the beginning" in never.stdout


def test_a_bare_name_is_a_container_if_only_one_has_it(root: Path) -> None:
    assert told(root, "why", "late")["path"] == ["containers", "late", "status"]
    two = call(root, "why", "web")
    assert two.exit_code == 2
    assert "'web' can be lenient/web or strict/web or blind/web: write one of these" in two.stderr


def test_why_not(root: Path, old: Path) -> None:
    gone = call(root, "why", "lenient/web", "--not", "running")
    assert "is not running any more since #27" in gone.stdout
    never = call(root, "why", "lenient/late", "--not", "running")
    assert "lenient.containers.late.status is creating and never was running" in never.stdout
    assert "joining the network namespace" in never.stdout
    assert told(root, "why", "lenient/late", "--not", "running")["reasons"][-1]["position"] == 29
    nothing = call(old, "why", "hello", "--not", "deleted", "--at", "12")
    assert "nothing was refused and nothing failed" in nothing.stdout
    assert call(root, "why", "blind", "--not", "restored").exit_code == 5


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("lenint", "did you mean 'lenient'?"),
        ("lenient/wob", "container 'wob' not found; did you mean 'web'?"),
        ("nope/web", "sandbox 'nope' not found"),
    ],
)
def test_why_of_nobody(root: Path, target: str, says: str) -> None:
    done = call(root, "why", target)
    assert (done.exit_code, says in done.stderr) == (5, True)


# --- check ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_every_recorded_decision_is_taken_again(tmp_path: Path, version: int) -> None:
    shutil.copy(GOLDEN.with_name(f"log_v{version}.db"), tmp_path / LOG_FILE)
    done = call(tmp_path, "check")
    assert done.stdout == "#1 to #43: 32 decisions, 32 as recorded\n"
    assert done.exit_code == 0


def test_part_of_a_log_can_be_checked(root: Path) -> None:
    assert told(root, "check", "--since", "14", "--until", "20")["decisions"] == 5


def test_a_decision_of_other_rules_is_told_with_its_place(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import manager.domain.start

    monkeypatch.setattr(manager.domain.start, "check_limits", lambda _: "limits are out of fashion")
    done = call(root, "check")
    assert done.exit_code == 1
    assert "#3 sandbox.created  lenient/lenient: narrowed" in done.stdout
    assert "RECORDED  allowed" in done.stdout
    assert "NOW       refused: limits are out of fashion  [manager/domain/start.py:" in done.stdout
    assert "(check_start)]" in done.stdout


def test_other_events_than_recorded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import manager.domain.decide_restore

    monkeypatch.setattr(manager.domain.decide_restore, "ENFORCE", 7)
    found = told(root, "check")
    assert found["verdicts"]["widened"] == 1
    (wide,) = [each for each in found["findings"] if each["verdict"] == "widened"]
    assert wide["sandbox"] == "strict"
    assert "Args" in wide["recorded"]


def test_a_body_that_is_gone_is_not_guessed(root: Path) -> None:
    raw = sqlite3.connect(root / LOG_FILE, isolation_level=None)
    for (name,) in raw.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'documents'"
    ).fetchall():
        raw.execute(f"DROP TRIGGER {name}")
    raw.execute("DELETE FROM documents WHERE CAST(body AS TEXT) LIKE '%--port=8080%'")
    raw.close()
    done = call(root, "check")
    assert done.exit_code == 4
    assert "not in the log: the spec sha256:" in done.stdout


# --- whatif --------------------------------------------------------------------------------------


def test_would_enforce_have_refused(root: Path) -> None:
    done = call(root, "whatif", "--set", "restore-spec-validation=enforce")
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert "  RECORDED allow -> NOW refuse           2" in lines
    assert any("#6 lenient/web: failed to handle restore spec validation" in each for each in lines)
    assert "manager/domain/decide_restore.py" in done.stdout


def test_would_ignore_have_allowed(root: Path) -> None:
    args = ("whatif", "--set", "restore-spec-validation=ignore")
    found = told(root, *args)
    assert found["verdicts"]["widened"] == 1
    assert found["findings"][0]["sandbox"] == "strict"
    assert call(root, *args, "--fail-on", "narrowed").exit_code == 0
    assert call(root, *args, "--fail-on", "widened").exit_code == 1
    assert call(root, *args, "--fail-on", "any").exit_code == 1


def test_the_same_question_has_the_same_answer_to_the_byte(root: Path) -> None:
    args = ("whatif", "--json", "--set", "engine=bwrap", "--set", "restore-spec-validation=ignore")
    assert call(root, *args).stdout_bytes == call(root, *args).stdout_bytes


def test_what_nobody_can_know_is_not_replayable(root: Path) -> None:
    found = told(root, "whatif", "--set", "engine=crun")
    assert found["verdicts"]["unreplayable"] == found["decisions"] - found["verdicts"]["same"] > 0
    assert {each["now"] for each in found["findings"]} == {"what the engine crun could do then"}


def test_cascade_goes_on_from_what_would_have_been(root: Path) -> None:
    alone = told(root, "whatif", "--set", "engine=bwrap")["verdicts"]
    after = told(root, "whatif", "--set", "engine=bwrap", "--cascade")["verdicts"]
    assert alone["narrowed"] == 3
    assert after["narrowed"] > 3


def test_nothing_changed_changes_nothing(root: Path) -> None:
    done = call(root, "whatif", "--since", "#5", "--until", "#20")
    assert done.exit_code == 0
    assert told(root, "whatif")["verdicts"]["same"] == told(root, "whatif")["decisions"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ('restore-spec-validation = "ignore"\nengine = "bwrap"', ("ignore", "bwrap")),
        ('{"restore-spec-validation": "ignore", "engine": "bwrap"}', ("ignore", "bwrap")),
    ],
)
def test_a_policy_in_a_file(root: Path, tmp_path: Path, text: str, meant: tuple[str, str]) -> None:
    file = tmp_path / "policy"
    file.write_text(text)
    policy, engine = meant
    by_hand = ("--set", f"restore-spec-validation={policy}", "--set", f"engine={engine}")
    assert told(root, "whatif", "--policy", str(file)) == told(root, "whatif", *by_hand)
    over = told(root, "whatif", "--policy", str(file), "--set", "engine=crun")
    assert over["settings"]["engine"] == "crun", "--set goes before the file"
    file.write_text('permit = ["hooks", "namespace-paths"]\nignore-namespace-paths = false')
    settings = told(root, "whatif", "--policy", str(file))["settings"]
    assert (settings["permits"], settings["ignore_namespace_paths"]) == (
        ["hooks", "namespace-paths"], False,
    )  # fmt: skip
    file.write_text("permit = []")
    assert told(root, "whatif", "--policy", str(file))["settings"]["permits"] == []


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("restore-spec-validation = strict", 2, "neither TOML nor JSON"),
        ('{"engine": "crun"', 2, "neither TOML nor JSON"),
        ("colour = 'red'", 2, "'colour=red' is no setting: want restore-spec-validation="),
        ("engine = 3", 2, "engine: want text, true, false or a list of names, not 3"),
        ("restore-spec-validation = 'strict'", 2, "want ignore, warning or enforce"),
        (None, 5, "No such file"),
    ],
)
def test_files_that_are_no_policy(
    root: Path, tmp_path: Path, text: str | None, code: int, says: str
) -> None:
    file = tmp_path / "policy"
    if text is not None:
        file.write_text(text)
    done = call(root, "whatif", "--policy", str(file))
    assert (done.exit_code, done.stdout) == (code, "")
    assert says in " ".join(done.stderr.replace("│", "").split())


@pytest.mark.parametrize("command", ["check", "whatif"])
def test_other_code_decides(root: Path, tmp_path: Path, command: str) -> None:
    other = tmp_path / "code"
    for package in ("eventstore", "manager", "replay"):
        shutil.copytree(REPOSITORY / package, other / package)
    rules = other / "manager" / "domain" / "start.py"
    text = rules.read_text()
    assert "\n    process = spec.process or Process()\n" in text
    rules.write_text(
        text.replace(
            "\n    process = spec.process or Process()\n", '\n    return "no starts today"\n', 1
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "manager.cli", "replay", command, "--code", str(other), "--json"],
        env={**os.environ, "SANDTRAIL_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["verdicts"]["narrowed"] > 0
    assert found["findings"][0]["now"] == "no starts today"


# --- bisect --------------------------------------------------------------------------------------


def test_the_first_bad_event(root: Path) -> None:
    done = call(root, "bisect", "--bad", "any(phase == restoreFailed)")
    assert done.exit_code == 0
    assert done.stdout.startswith("first bad: #16  2026-01-01")
    found = told(root, "bisect", "--bad", "containers.web.exit.signal == 9", "-s", "lenient")
    assert (found["first_bad"], found["flip_count"], found["event"]["position"]) == (27, 1, 27)


def test_an_answer_that_changes_more_than_once(old: Path) -> None:
    done = call(old, "bisect", "--bad", "any(status == failed)")
    assert "first bad: #16" in done.stdout
    assert "the answer changed 2 times; it is not a matter of one event:" in done.stdout
    assert "#19 good again" in done.stdout


def test_never_or_always(root: Path) -> None:
    misspelt = call(root, "bisect", "--bad", "any(state == failed)")
    assert misspelt.exit_code == 1
    assert "note: 'state' led nowhere in anything that was looked at; there are cid, status" in (
        misspelt.stderr
    )
    never = call(root, "bisect", "--bad", "any(status == lost)")
    assert "note:" not in never.stderr
    assert (never.exit_code, never.stdout) == (
        1,
        "it never was so (#1 to #29, 30 states looked at)\n",
    )
    always = call(root, "bisect", "--bad", "len(sandboxes) > 0", "--good", "#10")
    assert "it was so before the window already" in always.stdout


@pytest.mark.parametrize(
    ("program", "code", "says"),
    [
        ("exit 0", 1, "it never was so"),
        ("exit 127", 1, "it was so before the window already"),
        ("exit 125", 4, "nothing can be told of #1 to #9: #9 cannot be judged"),
        ("[ $SANDTRAIL_POSITION != 0 ] || exit 125; exit 1", 4, "#0 cannot be judged"),
        ("exit 130", 4, "the command ended with 130 at #9: the search is given up"),
    ],
)
def test_what_a_command_leaves_open(root: Path, program: str, code: int, says: str) -> None:
    done = call(root, "bisect", "--run", program, "--bad-at", "9")
    assert (done.exit_code, says in done.output) == (code, True), done.output


def test_a_command_judges(root: Path) -> None:
    script = (
        "import json, os, sys; state = json.load(sys.stdin);"
        "assert state['position'] == int(os.environ['SANDTRAIL_POSITION']);"
        "bad = any(each['phase'] == 'restoreFailed' for each in state['containers']);"
        "sys.exit(125 if state['position'] == 17 else 3 if bad else 0)"
    )
    found = told(root, "bisect", "--run", f'{sys.executable} -c "{script}"')
    assert found["first_bad"] == 16
    assert found["looked_at"] < 10
    ended = call(root, "bisect", "--run", "exit 128")
    assert ended.exit_code == 4
    assert "the command ended with 128 at #29: the search is given up" in ended.stderr
    assert call(root, "bisect").exit_code == 2
    assert call(root, "bisect", "--bad", "a ==").exit_code == 2
