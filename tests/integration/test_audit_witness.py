"""Further signatures of a checkpoint, and what a witness's is worth."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eventstore import Note, Witness, load_signer, load_verifier, open_checkpoint
from replay.evidence.verification import LAST_S, Sighting
from tests.integration.damaged_logs import unlocked
from tests.integration.test_demo import call

END = "2026-02-14T12:00:00Z"
WITNESS = Path(__file__).with_name("a_witness.py")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("demo") / "d.db"
    call("demo", "--out", made, "--end", END)
    return made


@pytest.fixture
def witness(tmp_path: Path) -> str:
    """The witness as a command; its key is in w.pub."""
    command = f"{sys.executable} {WITNESS}"
    key = subprocess.check_output([*command.split(), "key"], text=True)
    (tmp_path / "w.pub").write_text(key)
    return command


def verified(log: Path, key: Path, *args: str | Path, code: int = 0) -> dict[str, Any]:
    asked = ("audit", "verify", "--log", log, "--key", f"{key}.key.pub", "--no-memory", "--json")
    told = json.loads(call(*asked, *args, code=code).stdout)
    return {each["layer"]: (each["outcome"], each["text"]) for each in told["findings"]}


@pytest.mark.parametrize("how", ["line", "whole"])
def test_a_witness_is_asked_and_counts(made: Path, tmp_path: Path, witness: str, how: str) -> None:
    kept = tmp_path / "kept.note"
    asked = ("audit", "checkpoint", "--log", made, "--witness", f"{witness} {how}")
    kept.write_text(call(*asked).stdout)
    assert len(Note.parse(kept.read_text()).signatures) == 2
    against = ("--checkpoint", kept, "--witness-key", tmp_path / "w.pub")
    outcome, text = verified(made, made, *against)["witness"]
    assert outcome == "PASS"
    assert text.startswith("#1000 was seen by witness.example/w1+")
    assert text.endswith("at 2026-02-14T12:00:00Z")
    assert verified(made, made, "--checkpoint", kept)["witness"][0] == "SKIP"


def test_what_was_cut_since_it_was_seen(made: Path, tmp_path: Path, witness: str) -> None:
    kept = tmp_path / "kept.note"
    asked = ("audit", "checkpoint", "--log", made, "--witness", f"{witness} line")
    kept.write_text(call(*asked).stdout)
    cut = Path(shutil.copy(made, tmp_path / "cut.db"))
    with unlocked(cut) as raw:
        raw.execute("DELETE FROM event_record WHERE position > 960")
        raw.execute("DELETE FROM checkpoints WHERE size > 960")
    against = ("--checkpoint", kept, "--witness-key", tmp_path / "w.pub")
    found = verified(cut, made, *against, code=3)
    assert (found["history"][0], found["witness"][0]) == ("FAIL", "FAIL")


def test_a_signature_of_ones_own_key(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "ops.key"
    load_signer(other)
    note = call("audit", "checkpoint", "--log", made, "--sign", other).stdout
    for key in (f"{other}.pub", f"{made}.key.pub"):
        assert open_checkpoint(note, [load_verifier(key)]).size == 1_000
    kept = tmp_path / "kept.note"
    kept.write_text(note)
    asked = ("--checkpoint", kept, "--witness-key", f"{other}.pub")
    outcome, text = verified(made, made, *asked)["witness"]
    assert (outcome, " at " in text) == ("PASS", False)
    shown = json.loads(call("audit", "checkpoint", "--log", made, "--sign", other, "--json").stdout)
    assert shown["note"] == note
    again = load_signer(other).cosign(Note.parse(note))
    assert len(again.signatures) == 2, "its former signature is replaced"


def test_signatures_that_do_not_count(made: Path, tmp_path: Path, witness: str) -> None:
    kept, key = tmp_path / "kept.note", tmp_path / "w.pub"
    note = call("audit", "checkpoint", "--log", made, "--witness", f"{witness} line").stdout
    plain = call("audit", "checkpoint", "--log", made).stdout
    verify = ("audit", "verify", "--log", made, "--key", f"{made}.key.pub", "--no-memory")
    asked = (*verify, "--checkpoint", kept, "--witness-key", key)
    kept.write_text(plain)
    assert "has signed none of the given checkpoints" in call(*asked, code=4).stderr
    *lines, last = note.splitlines()
    later = last.replace("AABp", "AABq", 1)  # another time than was signed
    assert later != last
    kept.write_text("\n".join([*lines, later, ""]))
    assert "witness.example/w1" in call(*asked, code=4).stderr
    assert "name one" in call(*verify, "--witness-key", key, code=2).stderr
    key.write_text("witness.example/w1+00000000+AAAA")
    assert "is not a verifier key" in call(*asked, code=4).stderr


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("false", 4, "the witness did not sign: false exited with 1"),
        ("true", 4, "true answered with nothing"),
        ("echo hello", 4, "is not a signature line"),
        ("printf '\\n\N{EM DASH} other Zm9vYmFyMTIz\\n'", 4, "printf answered with another note"),
        ("printf '\\377'", 4, "is UTF-8, this is not"),
        ("/no/such/program", 5, "No such file"),
        ("", 2, "is empty"),
        ("sign 'it", 2, "No closing quotation"),
    ],
)
def test_witnesses_that_do_not_sign(made: Path, command: str, code: int, says: str) -> None:
    done = call("audit", "checkpoint", "--log", made, "--witness", command, code=code)
    assert (done.stdout, says in done.stderr) == ("", True), done.stderr


def test_a_key_that_is_not_there_is_not_made(made: Path, tmp_path: Path) -> None:
    call("audit", "checkpoint", "--log", made, "--sign", tmp_path / "none.key", code=2)
    assert list(tmp_path.iterdir()) == []


def test_a_key_says_its_kind(witness: str, tmp_path: Path) -> None:
    text = (tmp_path / "w.pub").read_text()
    assert str(Witness.parse(text)) == "+".join(text.split("+")[:2])


@pytest.mark.parametrize(
    ("at_s", "told"),
    [
        (0, ""),
        (1, " at 1970-01-01T00:00:01Z"),
        (LAST_S, " at 9999-12-31T23:59:59Z"),
        (LAST_S + 1, " in second 253402300800 since 1970"),
        (2**64 - 1, " in second 18446744073709551615 since 1970"),
    ],
)
def test_a_witness_may_name_any_second(at_s: int, told: str) -> None:
    assert Sighting(size=1, witness="w", at_s=at_s).when == told
