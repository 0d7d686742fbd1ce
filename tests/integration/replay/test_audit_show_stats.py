"""`audit show --proof` and the parts of `audit stats`."""

import json
from pathlib import Path

import anyio
import jsonschema
import pytest

from eventstore import ANY, NewEvent
from manager.domain.mark import MarkAdded
from manager.schema.layout import SEAL_KEY_FILE
from tests.integration.decided_log import Historian
from tests.integration.replay.conftest import Run

SCHEMAS = Path(__file__).resolve().parents[3] / "docs" / "schemas"


def test_an_event_with_its_proof_that_anybody_can_check(
    audit: Run, root: Path, tmp_path: Path
) -> None:
    told = json.loads(audit("show", "#4", "--proof", "--json").stdout)
    jsonschema.validate(told, json.loads((SCHEMAS / "show.v1.json").read_text()))
    made = json.loads(audit("prove", "#4").stdout)
    assert told["proof"] == made
    (tmp_path / "proof.json").write_text(json.dumps(told["proof"]))
    key = ("--key", str(root / f"{SEAL_KEY_FILE}.pub"))
    checked = audit("check-proof", str(tmp_path / "proof.json"), *key)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    shown = audit("show", "#4", "--proof").stdout
    lines = shown[shown.index("proof: from leaf 3") :].splitlines()
    assert [each for each in made["hashes"] if f"  {each}" not in shown] == []
    assert "  | " + made["checkpoint"].splitlines()[2] in lines
    assert "sandtrail audit prove '#4'" in shown


def test_without_it_there_is_none(audit: Run) -> None:
    told = json.loads(audit("show", "#4", "--json").stdout)
    assert told["proof"] is None
    assert "proof: from" not in audit("show", "#4").stdout


def test_what_is_not_sealed_cannot_be_proven(audit: Run, tmp_path: Path) -> None:
    async def write() -> None:
        async with Historian(tmp_path / "r") as historian:
            await historian.note(MarkAdded(name="one"))
            (told,) = [audit("show", "#1", "--proof", "--log", str(tmp_path / "r/events.db"))]
            codes.append(told.returncode)

    codes: list[int] = []
    anyio.run(write)
    assert codes == [4]


@pytest.mark.parametrize(
    ("args", "heads"),
    [
        (("--by", "actor"), ["events by actor"]),
        (("--by", "type", "--by", "outcome"), ["events by type", "events by outcome"]),
        (("--by", "hour"), ["events by hour"]),
        (("--latency", "exec"), ["exec  n=0  failed=0 (0.0%)"]),
        (("--by", "sandbox", "--latency", "restore"), ["events by sandbox", "restore  n=0"]),
    ],
)
def test_only_what_was_asked_for_is_counted_out(
    audit: Run, args: tuple[str, ...], heads: list[str]
) -> None:
    lines = audit("stats", *args).stdout.splitlines()
    titles = [line for line in lines if not line.startswith(" ")]
    assert len(titles) == len(heads)
    for title, head in zip(titles, heads, strict=True):
        assert title.startswith(head)


def test_hours_are_in_order_of_time(audit: Run) -> None:
    told = json.loads(audit("stats", "--json").stdout)
    assert [*told["by_hour"]] == sorted(told["by_hour"])
    assert sum(told["by_hour"].values()) == told["events"]
    (line,) = audit("stats", "--by", "hour").stdout.splitlines()[1:]
    (hour,) = told["by_hour"]
    assert line.split()[:2] == [str(told["events"]), hour[:16]]


def test_of_an_effect_its_failures_are_told_and_no_others(audit: Run, tmp_path: Path) -> None:
    async def write() -> None:
        async with Historian(tmp_path / "r") as historian:
            for tag, error in (("container.start_failed", "no such program"),
                               ("process.exec_failed", "no such user")):  # fmt: skip
                event = NewEvent(type=tag, data={"failure": {"error": error}})
                await historian.log.append("sandbox-s", [event], expected=ANY)

    anyio.run(write)
    log = ("--log", str(tmp_path / "r" / "events.db"))
    part = audit("stats", "--latency", "start", *log).stdout
    assert "1  container.start_failed: no such program  (last: #1)" in part
    assert "start  n=1  failed=1 (100.0%)" in part
    assert "exec" not in part
    assert "no such user" in audit("stats", *log).stdout


@pytest.mark.parametrize("args", [("--by", "moon"), ("--latency", "life")])
def test_what_there_is_not_is_refused_with_what_there_is(audit: Run, args: tuple[str, str]) -> None:
    done = audit("stats", *args)
    assert done.returncode == 2
    assert "is not one of" in done.stderr
