"""What the auditor's commands print as JSON has the shape that is published under docs/schemas."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from manager.schema.layout import LOG_FILE, SEAL_KEY_FILE
from tests.integration.replay.conftest import Run

SCHEMAS = Path(__file__).resolve().parents[3] / "docs" / "schemas"


def validate(text: str) -> Any:
    told = json.loads(text)
    name, _, version = told["schema"].removeprefix("sandtrail.").partition("/")
    schema = json.loads((SCHEMAS / f"{name}.{version}.json").read_text())
    jsonschema.validate(told, schema, cls=jsonschema.Draft202012Validator)
    for wrong in ({**told, "more": 1}, {"schema": told["schema"]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
    return told


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("verify", "--json"), 0),
        (("verify", "--json", "--log", LOG_FILE), 4),
        (("checkpoint", "--json"), 0),
        (("prove", "#3..#9", "--json"), 0),
        (("prove", "#3", "--documents"), 0),
        (("stats", "--json"), 0),
        (("stats", "--json", "--since", "#9", "--until", "#2"), 0),
        (("reconcile", "--json"), 1),
    ],
)
def test_commands(audit: Run, root: Path, args: tuple[str, ...], code: int) -> None:
    done = audit(*args, cwd=str(root))
    assert done.returncode == code, done.stderr
    validate(done.stdout)


def test_a_snapshot(audit: Run, tmp_path: Path) -> None:
    done = audit("snapshot", str(tmp_path / "copy.db"), "--json")
    assert validate(done.stdout)["verdict"] == "intact"


def test_a_report(audit: Run, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    told = validate(audit("report", "--out", str(out), "--json").stdout)
    assert (told["report"], told["verdict"]) == (str(out), "intact")


def test_proofs_checked(audit: Run, root: Path, tmp_path: Path) -> None:
    proof, kept = tmp_path / "proof.json", tmp_path / "kept.note"
    kept.write_text(audit("checkpoint").stdout)
    made = audit("prove", "#4", "--since", str(kept)).stdout
    validate(made)
    proof.write_text(made)
    key = ("--key", str(root / f"{SEAL_KEY_FILE}.pub"))
    for args, verdict in (
        ((*key, "--checkpoint", str(kept)), "proven"),
        (key, "proven"),
        ((), "inconclusive"),
        (("--key", "/dev/null"), "unreadable"),
    ):
        done = audit("check-proof", str(proof), "--json", *args)
        told = json.loads(done.stdout)
        schema = json.loads((SCHEMAS / "check-proof.v1.json").read_text())
        jsonschema.validate(told, schema)
        assert told["verdict"] == verdict
