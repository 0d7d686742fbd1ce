"""States in sealed checkpoints: what `replay check` and `audit verify` make of each kind."""

import json
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import anyio
import jsonschema
import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from eventstore import ANY, NewEvent, SealPolicy, load_signer, open_log
from manager.cli import cli
from manager.schema.layout import LOG_FILE, SEAL_KEY_FILE
from manager.schema.node_events import NODE_STREAM, ManagerStopped, encode_node_event
from manager.schema.node_snapshot import open_fold
from manager.schema.state_seal import StateDigests, StateSeal, seal_state
from tests.integration.decided_log import write_story

SCHEMAS = Path(__file__).resolve().parents[3] / "docs" / "schemas"
OTHER = "0" * 16
WRONG = "f" * 64


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("story")
    anyio.run(write_story, root)
    return root


@pytest.fixture
def root(story: Path, tmp_path: Path) -> Path:
    shutil.copytree(story, tmp_path / "root")
    return tmp_path / "root"


async def true_state(root: Path) -> StateSeal:
    async with open_log(root / LOG_FILE, read_only=True) as log:
        fold = await open_fold(log, None)
    return seal_state(fold.position, StateDigests().of(fold.live.items()))


async def add_seal(root: Path, line: str) -> None:
    async def extensions(_: bool) -> Sequence[str]:
        return (line,)

    policy = SealPolicy(signer=load_signer(root / SEAL_KEY_FILE), extensions=extensions)
    tag, data = encode_node_event(ManagerStopped(reason="asked to stop"))
    async with open_log(root / LOG_FILE, seal=policy) as log:
        await log.append(NODE_STREAM, [NewEvent(type=tag, data=data)], expected=ANY)


def sealed(root: Path, **changes: str) -> StateSeal:
    """Seal the true state, with some changes, beside one more event."""
    seal = replace(anyio.run(true_state, root), **changes)
    anyio.run(add_seal, root, seal.line())
    return seal


def call(root: Path, *args: str) -> Result:
    env = {"SANDTRAIL_ROOT": str(root), "XDG_STATE_HOME": str(root / "home")}
    return CliRunner().invoke(cli, args, env=env, prog_name="sandtrail")


def state_of(verified: Result) -> str:
    (line,) = (each for each in verified.stdout.splitlines() if each.startswith("state "))
    return line.removeprefix("state ").strip()


def test_the_true_state(root: Path) -> None:
    seal = sealed(root)
    checked = call(root, "replay", "check")
    assert checked.exit_code == 0, checked.output
    assert "1 of 1 sealed states are those of the fold" in checked.stdout
    verified = call(root, "audit", "verify")
    assert verified.exit_code == 0, verified.output
    assert "1 sealed states are those of the fold" in state_of(verified)
    note = json.loads(call(root, "audit", "checkpoint", "--json").stdout)
    jsonschema.validate(note, json.loads((SCHEMAS / "checkpoint-note.v1.json").read_text()))
    assert note["state"]["position"] == seal.position
    assert note["state"]["digest"] == seal.digest


def test_another_state_by_the_very_same_code(root: Path) -> None:
    seal = sealed(root, digest=WRONG)
    checked = call(root, "replay", "check", "--json")
    assert checked.exit_code == 1
    told = json.loads(checked.stdout)
    jsonschema.validate(told, json.loads((SCHEMAS / "check.v1.json").read_text()))
    assert told["states"] == {"different": 1}
    (finding,) = told["state_findings"]
    assert (finding["position"], finding["recorded"]) == (seal.position, WRONG)
    shown = call(root, "replay", "check").stdout
    assert f"state at #{seal.position}: different\n  RECORDED  {WRONG}" in shown
    verified = call(root, "audit", "verify")
    assert verified.exit_code == 3
    assert state_of(verified).startswith(f"FAIL   the state at #{seal.position} is ")
    assert f"BROKEN at #{seal.position}." in verified.stdout


def test_another_state_by_other_code(root: Path) -> None:
    sealed(root, digest=WRONG, code=OTHER)
    checked = call(root, "replay", "check")
    assert checked.exit_code == 1
    assert f"otherwise\n  RECORDED  {WRONG}  by program {OTHER}" in checked.stdout
    verified = call(root, "audit", "verify")
    assert verified.exit_code == 0, "no fault of the log's"
    assert state_of(verified).startswith("SKIP")
    assert "were sealed by another version of the program" in state_of(verified)


def test_states_of_another_shape_are_compared_by_nobody(root: Path) -> None:
    sealed(root, digest=WRONG, code=OTHER, shape=OTHER)
    checked = call(root, "replay", "check")
    assert checked.exit_code == 0, checked.output
    assert "1 sealed states are of another version's shape and were not compared" in checked.stdout
    assert call(root, "audit", "verify").exit_code == 0


def test_one_that_is_compared_stands_for_the_layer(root: Path) -> None:
    sealed(root, digest=WRONG, code=OTHER, shape=OTHER)
    sealed(root)
    verified = call(root, "audit", "verify")
    assert verified.exit_code == 0
    assert state_of(verified).startswith("PASS")
    assert "1 sealed states are those of the fold" in state_of(verified)
    assert "1 states were sealed by another version" in state_of(verified)


def test_a_line_that_says_nothing_is_no_state(root: Path) -> None:
    anyio.run(add_seal, root, "sandtrail-state-v1 what")
    verified = call(root, "audit", "verify")
    assert verified.exit_code == 3
    assert state_of(verified).startswith("FAIL")
    assert call(root, "replay", "check").exit_code == 5


def test_a_digest_that_was_changed_without_the_key(root: Path) -> None:
    seal = sealed(root)
    raw = sqlite3.connect(root / LOG_FILE)
    (guard,) = raw.execute(
        "SELECT sql FROM sqlite_schema WHERE name = 'checkpoints_no_update'"
    ).fetchone()
    raw.execute("DROP TRIGGER checkpoints_no_update")
    raw.execute("UPDATE checkpoints SET note = replace(note, ?, ?)", (seal.digest, WRONG))
    raw.execute(guard)
    raw.commit()
    raw.close()
    verified = call(root, "audit", "verify")
    assert verified.exit_code == 3
    (line,) = (each for each in verified.stdout.splitlines() if each.startswith("signature"))
    assert "FAIL" in line


def test_a_verification_may_go_deep(root: Path) -> None:
    sealed(root)
    sealed(root, digest=WRONG)
    sealed(root)
    shallow = call(root, "audit", "verify")
    assert shallow.exit_code == 0, shallow.output
    assert state_of(shallow).endswith("2 sealed states are those of the fold, 1 between them were "
                                      "not compared")  # fmt: skip
    deep = call(root, "audit", "verify", "--deep")
    assert deep.exit_code == 3
    assert call(root, "replay", "check").exit_code == 1, "it always does"


def test_part_of_a_log_is_compared_with_what_was_sealed_in_it(root: Path) -> None:
    seal = sealed(root)
    before = call(root, "replay", "check", "--until", f"#{seal.position - 1}")
    assert "sealed states" not in before.stdout
    part = call(root, "replay", "check", "--since", f"#{seal.position}")
    assert "1 of 1 sealed states are those of the fold" in part.stdout


def test_a_log_without_sealed_states_is_as_good_as_ever(root: Path) -> None:
    checked = call(root, "replay", "check", "--json")
    assert checked.exit_code == 0
    assert json.loads(checked.stdout)["states"] == {}
    assert state_of(call(root, "audit", "verify")).startswith("PASS")
