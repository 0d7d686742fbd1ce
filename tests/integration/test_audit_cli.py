"""``sandtrail audit``: what it prints, and the exit codes that scripts go by."""

import json
import os
import pty
import sqlite3
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner

from eventstore import ANY, NewEvent, SealPolicy, Snapshot, load_signer, open_log
from manager.cli import cli
from manager.domain.state import Sandbox
from manager.schema.layout import LOG_FILE, SEAL_KEY_FILE
from manager.schema.node_fold import FoldedSandbox
from manager.schema.node_snapshot import encode_sandboxes, node_snapshots
from tests.patience import PATIENCE_S


async def write(root: Path, how_many: int, key: str = SEAL_KEY_FILE) -> None:
    seal = SealPolicy(signer=load_signer(root / key)) if key else None
    async with open_log(root / LOG_FILE, seal=seal) as log:
        for number in range(how_many):
            await log.append("s", [NewEvent(type="counted", data={"n": number})], expected=ANY)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    anyio.run(write, tmp_path, 3)
    return tmp_path


def audit(root: Path, *args: str, **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-m", "manager.cli", "audit", *args],
        text=True,
        check=False,
        timeout=PATIENCE_S,
        **({"capture_output": True, "env": {**os.environ, "SANDTRAIL_ROOT": str(root)}} | options),
    )


def alter(root: Path, statement: str) -> None:
    raw = sqlite3.connect(root / LOG_FILE, isolation_level=None)
    triggers = raw.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        raw.execute(f"DROP TRIGGER {name}")
    raw.execute(statement)
    for _, sql in triggers:
        raw.execute(sql)
    raw.close()


def test_an_intact_log(root: Path) -> None:
    done = audit(root, "verify")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:8]] == [
        ["file", "PASS"],
        ["sequence", "PASS"],
        ["content", "PASS"],
        ["tree", "PASS"],
        ["signature", "PASS"],
        ["history", "SKIP"],
        ["witness", "SKIP"],
        ["state", "PASS"],
    ]
    assert lines[8].startswith("VERIFIED #1 to #3. Proves: nothing between")
    assert lines[9] == "Does not prove:"
    assert "it lies beside the log" in lines[-1]
    assert done.stderr == ""


def test_with_a_key_and_a_checkpoint_from_elsewhere(root: Path, tmp_path: Path) -> None:
    kept = audit(root, "checkpoint")
    assert kept.returncode == 0
    (tmp_path / "kept.note").write_text(kept.stdout)
    anyio.run(write, root, 2)
    key = str(root / (SEAL_KEY_FILE + ".pub"))
    args = ("verify", "--key", key, "--checkpoint", str(tmp_path / "kept.note"), "--json")
    done = audit(root, *args)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["schema"], told["verdict"], told["head"], told["sealed"]) == (
        "sandtrail.verification/v1", "intact", 5, 5,
    )  # fmt: skip
    outcomes = {each["layer"]: each["outcome"] for each in told["findings"]}
    assert {layer for layer, outcome in outcomes.items() if outcome != "PASS"} == {"witness"}
    assert not [each for each in told["unproven"] if "beside the log" in each]

    both = ("--checkpoint", str(tmp_path / "kept.note"))
    (tmp_path / "other.note").write_text(audit(root, "checkpoint").stdout)
    both += ("--checkpoint", str(tmp_path / "other.note"))
    assert audit(root, "verify", "--key", key, *both).returncode == 0

    alter(root, "DELETE FROM event_record WHERE position > 2")
    alter(root, "DELETE FROM checkpoints")
    assert audit(root, "verify", "--no-memory").returncode == 4
    rolled_back = audit(root, *args)
    assert rolled_back.returncode == 3
    assert json.loads(rolled_back.stdout)["first_bad"] == 3


def test_a_broken_log(root: Path) -> None:
    alter(root, "UPDATE event_record SET data = '{}' WHERE position = 2")
    done = audit(root, "verify")
    assert done.returncode == 3
    assert "content    FAIL   #2: the stored columns hash to " in done.stdout
    assert "BROKEN at #2. Keep the file as it is" in done.stdout
    assert "What else there is of #1 to #3 is as it was sealed." in done.stdout


def test_what_leaves_the_question_open(root: Path, tmp_path: Path) -> None:
    log = str(root / LOG_FILE)
    done = audit(root, "verify", "--log", log)
    assert done.returncode == 4
    assert "no verifier key was given" in done.stdout
    assert "INCONCLUSIVE" in done.stdout
    no_key = audit(root, "verify", "--key", str(tmp_path / "missing.pub"))
    assert (no_key.returncode, "cannot be read" in no_key.stderr) == (4, True)
    (tmp_path / "bad.note").write_text("not a note\n")
    no_note = audit(root, "verify", "--checkpoint", str(tmp_path / "bad.note"))
    assert (no_note.returncode, "not signed" in no_note.stderr) == (4, True)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    anyio.run(write, fresh, 1, "")
    assert audit(fresh, "checkpoint").returncode == 4


def test_what_cannot_be_read(root: Path, tmp_path: Path) -> None:
    (tmp_path / "other.db").write_bytes(b"x" * 4096)
    for path in ("missing.db", "other.db"):
        for command in ("verify", "checkpoint"):
            done = audit(root, command, "--log", str(tmp_path / path))
            assert (done.returncode, done.stdout) == (5, ""), done
            assert done.stderr.startswith("sandtrail: ")
            assert "Traceback" not in done.stderr


def test_a_person_sees_a_bar(root: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        done = audit(root, "verify", capture_output=False, stdout=subprocess.PIPE, stderr=theirs)
        shown = os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0
    assert b"verifying" in shown


def test_a_copy_without_its_wal_is_inconclusive(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"

    async def take() -> None:
        async with open_log(root / LOG_FILE) as log:
            await log.append("s", [NewEvent(type="counted", data=b"{}")], expected=ANY)
            copy.write_bytes((root / LOG_FILE).read_bytes())

    anyio.run(take)
    key = str(root / (SEAL_KEY_FILE + ".pub"))
    done = audit(root, "verify", "--log", str(copy), "--key", key)

    assert done.returncode == 4
    assert "complete   SKIP   is not the whole log" in done.stdout
    assert "Give the key" not in done.stdout


def findings(done: "subprocess.CompletedProcess[str]") -> dict[str, tuple[str, str]]:
    return {
        each["layer"]: (each["outcome"], each["text"])
        for each in json.loads(done.stdout)["findings"]
    }


def put_back(root: Path, old: bytes) -> None:
    for each in root.glob(f"{LOG_FILE}*"):
        each.unlink()
    (root / LOG_FILE).write_bytes(old)


def test_the_head_that_was_seen_here_must_be_extended(root: Path) -> None:
    old = (root / LOG_FILE).read_bytes()
    assert findings(audit(root, "verify", "--json"))["history"][0] == "SKIP"
    anyio.run(write, root, 2)
    outcome, text = findings(audit(root, "verify", "--json"))["history"]
    assert (outcome, text) == (
        "PASS",
        "extends the given checkpoint #3 (#3 is the head that you last saw here)",
    )
    put_back(root, old)  # yesterday's file, in which every seal is genuine
    done = audit(root, "verify", "--json")
    outcome, text = findings(done)["history"]
    assert (done.returncode, outcome) == (3, "FAIL")
    assert "ends at #3, before the given checkpoint #5: cut or rolled back" in text
    forget = Path(text.partition("on purpose, remove ")[2].removesuffix(")"))
    assert audit(root, "verify", "--no-memory").returncode == 0
    forget.unlink()
    assert audit(root, "verify").returncode == 0
    assert forget.exists()


def test_another_log_where_one_was_seen(root: Path) -> None:
    assert audit(root, "verify").returncode == 0
    for each in (*root.glob(f"{LOG_FILE}*"), *(root / "keys").iterdir()):
        each.unlink()
    anyio.run(write, root, 4)  # a log of its own, with its own key beside it
    done = audit(root, "verify", "--json")
    outcome, text = findings(done)["history"]
    assert (done.returncode, outcome) == (4, "SKIP")
    assert "is of log" in text


def test_a_memory_that_cannot_be_used(root: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    environment = {**os.environ, "SANDTRAIL_ROOT": str(root), "XDG_STATE_HOME": str(home)}
    assert audit(root, "verify", env=environment).returncode == 0
    [file] = home.rglob("*.note")
    file.write_text("nonsense")
    done = audit(root, "verify", env=environment)
    assert (done.returncode, "remove it to begin anew" in done.stderr) == (4, True), done
    file.unlink()
    file.parent.rmdir()
    file.parent.symlink_to("nowhere/at/all")
    done = audit(root, "verify", env=environment)
    assert done.returncode == 0, done
    assert "memory     INFO   the head cannot be remembered for the next time: " in done.stdout


def test_who_has_no_home_has_no_memory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")  # as of a user of no list

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    for options, told in (((), "set XDG_STATE_HOME to one"), (("--no-memory",), "")):
        command = ["audit", "verify", "--root", str(root), *options]
        done = CliRunner().invoke(cli, command)
        assert (done.exit_code, told in done.stdout) == (0, True), done.output


def test_snapshots_are_compared_with_the_log(root: Path) -> None:
    async def snap(live: dict[str, FoldedSandbox]) -> None:
        async with open_log(root / LOG_FILE, read_only=True) as log:
            [record] = [record async for record in log.read(after=1, limit=1)]
        body = encode_sandboxes(live.items())
        node_snapshots(root).save(Snapshot(position=2, leaf_hash=record.leaf_hash, body=body))

    anyio.run(snap, {})
    done = audit(root, "verify", "--json")
    assert findings(done)["state"] == (
        "PASS",
        "#1 to #3 fold to 0 sandboxes; 1 snapshots, to #2, say the same",
    )
    anyio.run(snap, {"web": FoldedSandbox(state=Sandbox(id="web", phase="started"))})
    done = audit(root, "verify", "--json")
    outcome, text = findings(done)["state"]
    assert (done.returncode, outcome) == (3, "FAIL")
    assert "snapshot #2: other states than the log's: sandboxes web. It is no part of" in text


def test_an_event_of_a_newer_program(root: Path) -> None:
    async def append() -> None:
        seal = SealPolicy(signer=load_signer(root / SEAL_KEY_FILE))
        async with open_log(root / LOG_FILE, seal=seal) as log:
            await log.append("sandbox-x", [NewEvent(type="x.tomorrow", data=b"{}")], expected=ANY)

    anyio.run(append)
    done = audit(root, "verify", "--json")
    assert done.returncode == 4
    assert findings(done)["state"][0] == "SKIP"
    assert "x.tomorrow" in findings(done)["state"][1]
