"""Proofs that leave the log: made by one program, checked by one that needs nothing but Python."""

import base64
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventstore import ANY, Actor, Document, NewEvent, SealPolicy, load_signer, open_log
from manager.schema.layout import LOG_FILE, SEAL_KEY_FILE
from tests.patience import PATIENCE_S

VERIFIER = Path(__file__).parents[2] / "replay" / "verify_trail.py"
SEALED = 11


async def write(root: Path, how_many: int, seal: bool = True) -> None:
    policy = SealPolicy(signer=load_signer(root / SEAL_KEY_FILE), events=10**6, seconds=3600)
    async with open_log(root / LOG_FILE, seal=policy if seal else None) as log:
        for number in range(how_many):
            event = NewEvent(
                type="counted",
                data={"n": number, "name": "Zoë\u202e"},
                correlation_id=f"req-{number}" if number % 2 else None,
                causation=number or None,
                actor=Actor(uid=0, gid=0, pid=number + 1) if number % 3 else None,
                documents=(Document(media_type="text/plain", body=b"%d" % (number % 2)),),
            )
            await log.append(f"s{number % 2}", [event], expected=ANY)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven events sealed at 4 and 11, two more that are not; ``kept.note`` is the seal at 4."""
    made = tmp_path_factory.mktemp("proved")
    anyio.run(write, made, 4)
    (made / "kept.note").write_text(run("audit", "checkpoint", "--root", str(made)).stdout)
    anyio.run(write, made, SEALED - 4)
    anyio.run(write, made, 2, False)
    return made


def run(*args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "manager.cli", *args],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip


def check(proof: object, *args: str, at: Path) -> dict[str, Any]:
    """What the verifier says in a Python that has nothing but its standard library."""
    path = at / "proof.json"
    path.write_text(proof if isinstance(proof, str) else json.dumps(proof))
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(VERIFIER), str(path), "--json", *args],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    told: dict[str, Any] = json.loads(done.stdout)
    return {**told, "exit": done.returncode}


@cache
def proof_text(root: Path, *args: str) -> str:
    done = run("audit", "prove", "--root", str(root), *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def prove(root: Path, *args: str) -> dict[str, Any]:
    proof: dict[str, Any] = json.loads(proof_text(root, *args))
    return proof


def key(root: Path) -> str:
    return str(root / f"{SEAL_KEY_FILE}.pub")


@pytest.mark.parametrize(
    ("events", "first", "last"),
    [("#5", 5, 5), ("1..11", 1, 11), ("#3-#7", 3, 7), ("2..head~2", 2, 11), ("11", 11, 11)],
)
def test_proven(root: Path, tmp_path: Path, events: str, first: int, last: int) -> None:
    told = check(prove(root, events, "--documents"), "--key", key(root), at=tmp_path)
    assert told["exit"] == 0, told
    assert (told["first"], told["last"], told["events"]) == (first, last, last - first + 1)
    assert (told["verdict"], told["all_between"], told["size"]) == ("proven", True, SEALED)


def test_an_event_by_its_id(root: Path, tmp_path: Path) -> None:
    raw = sqlite3.connect(root / LOG_FILE)
    (event_id,) = raw.execute("SELECT event_id FROM events WHERE position = 6").fetchone()
    raw.close()
    told = check(prove(root, f"evt:{event_id}"), "--key", key(root), at=tmp_path)
    assert (told["exit"], told["first"]) == (0, 6)


def test_with_a_kept_checkpoint(root: Path, tmp_path: Path) -> None:
    kept = str(root / "kept.note")
    args = ("--key", key(root), "--checkpoint", kept)
    proof = prove(root, "#9", "--since", kept)
    assert check(proof, *args, at=tmp_path)["extends"] == 4
    told = check(prove(root, "#9"), *args, at=tmp_path)
    assert (told["exit"], told["reason"]) == (4, "other-checkpoint")
    proof["consistency"]["hashes"][0] = "00" * 32
    told = check(proof, *args, at=tmp_path)
    assert (told["exit"], told["reason"]) == (3, "rewritten")


def test_a_wrong_key_a_missing_key_and_a_bad_proof_differ(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    load_signer(other)
    proof = prove(root, "#5")
    missing = check(proof, at=tmp_path)
    wrong = check(proof, "--key", f"{other}.pub", at=tmp_path)
    no_file = check(proof, "--key", str(tmp_path / "nothing.pub"), at=tmp_path)
    proof["events"][0]["data"] += " "
    bad = check(proof, "--key", f"{other}.pub", at=tmp_path)
    assert [(each["exit"], each["reason"]) for each in (missing, wrong, no_file, bad)] == [
        (4, "no-key"), (4, "other-key"), (5, "unreadable"), (3, "bad-proof"),
    ]  # fmt: skip


def forged(proof: dict[str, Any], how: str) -> dict[str, Any]:
    events = proof["events"]
    match how:
        case "removed":
            del events[1]
        case "swapped":
            events[0]["data"], events[1]["data"] = events[1]["data"], events[0]["data"]
        case "doubled":
            events.append(events[0])
        case "added":
            proof["hashes"].append(proof["hashes"][0])
        case "signature":
            head, _, line = proof["checkpoint"].rstrip("\n").rpartition(" ")
            blob = bytearray(base64.b64decode(line))
            blob[-20] ^= 1
            proof["checkpoint"] = f"{head} {base64.b64encode(blob).decode()}\n"
        case "size":
            proof["checkpoint"] = proof["checkpoint"].replace(f"\n{SEALED}\n", "\n12\n")
        case "strange document":
            body = b"never recorded"
            digest = "sha256:" + hashlib.sha256(body).hexdigest()
            proof["documents"][digest] = {
                "media_type": "x",
                "base64": base64.b64encode(body).decode(),
            }
        case "document":
            first = next(iter(proof["documents"].values()))
            first["base64"] = base64.b64encode(b"other").decode()
        case member:
            events[0][member] = 7 if isinstance(events[0][member], int) else "other"
    return proof


@pytest.mark.parametrize(
    "how",
    [
        *("removed", "swapped", "doubled", "added", "signature", "size", "document"),
        *("strange document", "position", "stream", "version", "type", "event_id"),
        *("recorded_at_ns", "correlation_id", "causation", "actor", "data"),
    ],
)
def test_every_change_is_noticed(root: Path, tmp_path: Path, how: str) -> None:
    proof = forged(prove(root, "3..5", "--documents"), how)
    told = check(proof, "--key", key(root), at=tmp_path)
    assert told["exit"] == 3, told


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"schema": "sandtrail.proof/v2"}', '{"schema":"sandtrail.proof/v1"}',
     '{"schema":"sandtrail.proof/v1","events":[],"hashes":[],"checkpoint":"x"}',
     '{"schema":"sandtrail.proof/v1","events":[{}],"hashes":["zz"],"checkpoint":7}', "[" * 100_000],
    ids=range(8),
)  # fmt: skip
def test_what_is_no_proof(root: Path, tmp_path: Path, text: str) -> None:
    told = check(text, "--key", key(root), at=tmp_path)
    assert (told["exit"], told["reason"]) == (5, "unreadable")


def test_people_are_told_what_is_proven(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "proof.json"
    path.write_text(json.dumps(prove(root, "3..5")))
    done = run("audit", "check-proof", str(path), "--key", key(root), "-v")
    assert done.returncode == 0
    assert done.stdout.startswith("PROVEN: #3 to #5 are, and nothing is missing between them,")
    assert "Does not prove: that what was recorded is true." in done.stdout
    assert f"  #1 to #{SEALED}: " in done.stderr
    done = run("audit", "check-proof", str(path))
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("INCONCLUSIVE (no-key): no key was given")


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (("#12",), 4, "covers 11 events, at least 12 are wanted; the service seals"),
        (("#99",), 5, "there is no #99"),
        (("#7..#3",), 2, "is no event and no range"),
        (("nonsense",), 2, "is no point of a log"),
        (("#2", "--since", "/dev/null"), 4, "not signed"),
        (("#2", "--log", "/dev/null"), 5, "is no file"),
    ],
)
def test_what_cannot_be_proven(root: Path, args: tuple[str, ...], code: int, text: str) -> None:
    done = run("audit", "prove", "--root", str(root), *args)
    assert (done.returncode, done.stdout, text in done.stderr) == (code, "", True), done


def test_a_broken_log_gives_no_proof(root: Path, tmp_path: Path) -> None:
    raw = sqlite3.connect(root / LOG_FILE)
    copy = sqlite3.connect(tmp_path / LOG_FILE)
    raw.backup(copy)
    copy.execute("DROP TRIGGER event_record_no_update")
    copy.execute("UPDATE event_record SET data = '{}' WHERE position = 5")
    copy.commit()
    copy.close()
    raw.close()
    done = run("audit", "prove", "#5", "--log", str(tmp_path / LOG_FILE))
    assert (done.returncode, "verify" in done.stderr) == (3, True), done
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    anyio.run(write, fresh, 1, False)
    done = run("audit", "prove", "#1", "--root", str(fresh))
    assert (done.returncode, "never sealed" in done.stderr) == (4, True), done


def test_the_verifier_can_be_read_in_one_sitting() -> None:
    text = VERIFIER.read_text()
    assert len(text.splitlines()) <= 300
    imports = [line.split()[1] for line in text.splitlines() if line.startswith(("import", "from"))]
    assert set(imports) <= sys.stdlib_module_names
