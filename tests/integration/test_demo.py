"""``sandtrail demo``: an incident that answers the acceptance script of the auditor's tools."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from manager.cli import cli
from tests.integration.damaged_logs import unlocked

REPOSITORY = Path(__file__).resolve().parents[2]
END = "2026-02-14T12:00:00Z"
Ask = Callable[..., Result]


def call(*args: str | Path, code: int = 0, home: Path | None = None) -> Result:
    env = {"TZ": "UTC", **({} if home is None else {"XDG_STATE_HOME": str(home)})}
    done = CliRunner().invoke(cli, [str(each) for each in args], env=env, prog_name="sandtrail")
    assert done.exit_code == code, done.stderr
    return done


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("demo") / "d.db"
    call("demo", "--out", made, "--end", END)
    return made


@pytest.fixture
def ask(made: Path, tmp_path: Path) -> Ask:
    """Asks the log that was made."""

    def ask(*args: str | Path, code: int = 0) -> Result:
        return call(*args, "--log", made, code=code, home=tmp_path)

    return ask


def told(done: Result) -> Any:
    return json.loads(done.stdout)


def test_the_same_seed_gives_the_same_thousand_events(tmp_path: Path) -> None:
    def events(seed: int, end: str) -> str:
        out = tmp_path / f"{seed}-{end}.db"
        shown = told(call("demo", "--out", out, "--seed", str(seed), "--end", end, "--json"))
        jsonschema.validate(
            shown, json.loads((REPOSITORY / "docs/schemas/demo.v1.json").read_text())
        )
        lines = call("log", "--json", "--log", out).stdout
        out.unlink()
        out.with_name(f"{out.name}.key").unlink()
        return lines

    once = events(7, END)
    assert len(once.splitlines()) == 1_000
    assert once == events(7, END)
    for other in (events(8, END), events(7, "2026-02-15")):
        assert len(other.splitlines()) == 1_000
        assert not set(other.splitlines()) & set(once.splitlines())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "d.db"
    for name in ("d.db", "d.db.key"):
        (tmp_path / name).write_text("mine")
        assert f"{name} exists" in call("demo", "--out", out, code=5).stderr
        assert [each.name for each in tmp_path.iterdir()] == [name]
        (tmp_path / name).unlink()
    assert "is no directory" in call("demo", "--out", out / "d.db", code=5).stderr
    assert "'head' is no time" in call("demo", "--out", out, "--end", "head", code=2).stderr


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "d.db"

    def interrupt(*_: object, **__: object) -> None:
        assert out.with_name("d.db.key").exists()
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as amid:
        amid.setattr("manager.cli.demo.copy_log", interrupt)
        call("demo", "--out", out, code=1)  # click.testing has it so: a shell sees 130
    assert list(tmp_path.iterdir()) == []
    call("demo", "--out", out)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    script = 'mount --bind -o ro "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    demo = [sys.executable, "-m", "manager.cli", "demo", "--out", tmp_path / "d.db"]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, tmp_path, *demo],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "d.db cannot be made: " in done.stderr
    assert "Read-only file system" in done.stderr


def test_what_it_says_to_try_next_can_be_tried(tmp_path: Path) -> None:
    """Step 1: from nothing to answers; and what went wrong was within the last hour."""
    shown = call("demo", "--out", tmp_path / "a demo.db").stdout
    commands = [line.strip() for line in shown.splitlines() if line.startswith("  sandtrail")]
    assert len(commands) == 4
    program = f"{sys.executable} -m manager.cli"
    found = subprocess.run(
        "; ".join(each.replace("sandtrail", program, 1) for each in commands),
        shell=True, cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for says in ("sandbox.restore_failed", "green.phase is restoreFailed", "running", "VERIFIED"):
        assert says in found.stdout


def test_what_failed(ask: Ask) -> None:
    """Step 2. The window echoed, names and reasons inline, a line of count and completeness."""
    done = ask("log", "--since", "2026-02-14T11:00", "--outcome", "fail")
    assert 'container: "web", checkpoint true restore false' in done.stdout
    assert re.match(r"window: #\d+ to #1000, 2026-02-14T11:", done.stderr)
    last = r"window #(\d+)\u2013#1000 · \d of \d\d events match · log complete from #1, 0 dropped, "
    assert re.match(rf"{last}sealed to #1000$", done.stderr.splitlines()[-1])
    kinds = {"restore.validated", "sandbox.restore_failed", "container.restore_rejected"}
    assert all(each in done.stdout for each in kinds)


def test_what_failed_of_one_container(ask: Ask) -> None:
    """Why its restore was refused is among what concerns it, though the sandbox was restored."""
    lines = ask("log", "-c", "web", "--outcome", "fail", "--json").stdout.splitlines()
    kinds = [json.loads(line)["type"] for line in lines]
    assert kinds[:3] == [
        "container.exited", "restore.validated", "container.restore_rejected",
    ]  # fmt: skip


def test_why(ask: Ask) -> None:
    """Step 3. One screen, the policy's change nine days before with its maker, every # shown."""
    shown = ask("replay", "why", "web").stdout
    assert len(shown.splitlines()) <= 24
    first = shown.splitlines()[0]
    assert re.match(r"green\.phase is restoreFailed since #\d+ ", first)
    (policy,) = (line for line in shown.splitlines() if "9 days earlier" in line)
    assert re.search(r"sandbox\.created .*policy enforce for restores  by uid:1001, ", policy)
    assert "restore.begun  policy enforce" in shown
    for text in ('"Root.Readonly" does not match', '"Args" does not match', "--port=8080"):
        assert text in shown
    assert "Checked: these alone give the same value" in shown
    named = set(re.findall(r"#\d+", shown))
    assert len(named) > 5
    for position in named:
        assert ask("audit", "show", position).stdout.startswith(f"{position} ")


def test_how_it_was(ask: Ask) -> None:
    """Step 4. The layout of the present; a container by its own name; times outside are told."""
    before = ask("ps", "--at", "mark:deploy", "--filter", "name=web")
    assert re.search(r"^blue +web +running ", before.stdout, re.MULTILINE)
    now = ask("ps", "--filter", "name=web")
    assert re.search(r"^green +web +restoreFailed ", now.stdout, re.MULTILINE)
    assert now.stdout.splitlines()[0].split() == before.stdout.splitlines()[0].split()
    shown = told(ask("inspect", "web", "--at", "2026-02-14T11:17", "--json"))
    assert (shown["item"]["status"], shown["schema"]) == ("running", "sandtrail.inspect/v1")
    assert shown["as_of"]["position"] < told(ask("inspect", "web", "--json"))["as_of"]["position"]
    assert "the log has #1 to #1000" in ask("ps", "--at", "2001-01-01", code=5).stderr


def test_the_difference(ask: Ask) -> None:
    """Step 5. Field by field, what was added and removed first, exit 1; the same exits 0."""
    shown = ask("replay", "diff", "mark:deploy", "head", code=1).stdout
    signs = [line[0] for line in shown.splitlines()]
    assert signs == sorted(signs, key="+-~".index)
    assert "- blue: " in shown
    assert "~ green.phase: created -> restoreFailed" in shown
    assert "no difference" in ask("replay", "diff", "mark:deploy", "mark:deploy").stderr


def test_following(ask: Ask) -> None:
    """Step 6. It ends with a match, or with 124."""
    until = ("log", "-f", "--timeout", "20s", "--until-match")
    done = ask(*until, "type == sandbox.restore_failed && sandbox == green", "--json")
    assert json.loads(done.stdout.splitlines()[-1])["type"] == "sandbox.restore_failed"
    ask("log", "-f", "--after", "1000", "--timeout", "50ms", code=124)


def test_decided_again(ask: Ask) -> None:
    """Steps 7 to 9. As recorded; what enforcing would have refused; and the first bad event."""
    checked = ask("replay", "check").stdout
    assert re.match(r"#1 to #1000: (\d+) decisions, \1 as recorded; 1 of 1 sealed states", checked)
    asked = ("replay", "whatif", "--set", "restore-spec-validation=enforce", "--json")
    once = ask(*asked, "--fail-on", "widened")
    verdicts = told(once)["verdicts"]
    assert (verdicts["narrowed"], verdicts["widened"], verdicts["unreplayable"]) == (2, 0, 0)
    assert ask(*asked, "--fail-on", "widened").stdout == once.stdout
    assert {each["sandbox"] for each in told(once)["findings"]} == {"cache-2", "queue-2"}
    found = told(ask("replay", "bisect", "--bad", "count(phase == restoreFailed) > 0", "--json"))
    assert found["event"]["type"] == "sandbox.restore_failed"


def test_the_evidence(ask: Ask, made: Path, tmp_path: Path) -> None:
    """Steps 10 and 11. What was changed is found; a proof that needs nothing of sandtrail."""
    key = f"{made}.key.pub"
    whole = ask("audit", "verify", "--key", key).stdout
    assert "VERIFIED #1 to #1000" in whole
    assert "1 sealed states are those of the fold" in whole
    bad = tmp_path / "bad.db"
    shutil.copy(made, bad)
    with unlocked(bad) as raw:
        raw.execute(
            "UPDATE event_record SET data = replace(data, 'enforces', 'enforced') "
            "WHERE data LIKE '%enforces%'"
        )
    broken = call("audit", "verify", "--log", bad, "--key", key, "--no-memory", code=3).stdout
    changed = told(ask("mark", "ls", "--json"))["items"][0]["position"]
    assert f"BROKEN at #{changed}" in broken
    proof = tmp_path / "p.json"
    proof.write_text(ask("audit", "prove", "#996").stdout)
    done = subprocess.run(
        [sys.executable, "-I", "-S", REPOSITORY / "replay/verify_trail.py", proof, "--key", key],
        capture_output=True, text=True, check=True, env={},
    )  # fmt: skip
    assert "PROVEN: #996 is in the log" in done.stdout
