"""``audit verify`` of a stretch, and against evidence that was exported before."""

import json
import shutil
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventstore import ANY, NewEvent, SealPolicy, load_signer, open_log, verify_log_stretch
from tests.integration.damaged_logs import unlocked
from tests.integration.test_demo import call

END = "2026-02-14T12:00:00Z"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("demo") / "d.db"
    call("demo", "--out", made, "--end", END)
    call("audit", "export", "-o", "bundle", "--log", made, "--since", "#500", "--until", "#520",
         "--out", made.with_name("kept.trail"))  # fmt: skip
    return made


@pytest.fixture
def log(made: Path, tmp_path: Path) -> Path:
    """A copy, to be changed."""
    return Path(shutil.copy(made, tmp_path / "copy.db"))


def verified(log: Path, key: Path, *args: str | Path, code: int = 0) -> Any:
    asked = ("audit", "verify", "--log", log, "--key", f"{key}.key.pub", "--no-memory", "--json")
    return json.loads(call(*asked, *args, code=code).stdout)


def layers(told: Any) -> dict[str, str]:
    return {each["layer"]: each["outcome"] for each in told["findings"]}


def text_of(told: Any, layer: str) -> str:
    return next(each["text"] for each in told["findings"] if each["layer"] == layer)


def test_a_stretch_is_checked_from_seal_to_seal_and_the_rest_is_named(made: Path) -> None:
    told = verified(made, made, "--from", "#500", "--to", "#520")
    with closing(sqlite3.connect(made)) as raw:
        sizes = raw.execute("SELECT size FROM checkpoints ORDER BY size").fetchall()
    before = max(size for (size,) in sizes if size < 500)
    after = min(size for (size,) in sizes if size >= 520)
    assert (told["verdict"], told["first"], told["head"], told["sealed"]) == (
        "intact", before + 1, after, after,
    )  # fmt: skip
    assert layers(told) == {
        "sequence": "PASS", "content": "PASS", "tree": "PASS", "signature": "PASS", "range": "INFO",
    }  # fmt: skip
    assert f"only #{before + 1} to #{after}" in text_of(told, "range")
    assert f"before #{before + 1} and after #{after}" in " ".join(told["unproven"])
    shown = call("audit", "verify", "--log", made, "--from", "mark:deploy", code=4).stdout
    assert "INCONCLUSIVE" in shown, "no key was given"


CHANGES = {
    "a payload": ("UPDATE event_record SET data = data || ' ' WHERE position = {}", "content"),
    "a leaf": ("UPDATE event_record SET leaf_hash = zeroblob(32) WHERE position = {}", "tree"),
    "a version": (
        "UPDATE event_record SET version = version + 9000 WHERE position = {}",
        "sequence",
    ),
    "a row": ("DELETE FROM event_record WHERE position = {}", "sequence"),
    "a document": (
        "UPDATE documents SET body = CAST(body || ' ' AS BLOB) WHERE digest = "
        "(SELECT digest FROM event_documents WHERE position >= {} LIMIT 1)",
        "content",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_changed_in_it_is_found_and_what_was_elsewhere_is_not_looked_at(
    log: Path, made: Path, what: str
) -> None:
    statement, layer = CHANGES[what]
    with unlocked(log) as raw:
        (position,) = raw.execute(
            "SELECT position FROM event_record WHERE position >= 510 AND documents NOT NULL"
        ).fetchone()
        raw.execute(statement.format(position))
    told = verified(log, made, "--from", "#500", "--to", "#520", code=3)
    assert layers(told)[layer] == "FAIL"
    assert told["verdict"] == "broken"
    if what != "a document":  # which events elsewhere may name, too
        assert verified(log, made, "--from", "#900", "--to", "#910")["verdict"] == "intact"
        assert verified(log, made, "--from", "#100", "--to", "#110")["verdict"] == "intact"


def test_a_seal_of_another_key_in_it_does_not_count(log: Path, made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    load_signer(f"{other}.key")
    told = verified(log, other, "--from", "#500", "--to", "#520", code=4)
    assert (layers(told)["signature"], told["sealed"]) == ("SKIP", 0)


def test_wrong_peaks_before_it_are_no_way_to_hide_anything(log: Path, made: Path) -> None:
    with unlocked(log) as raw:
        raw.execute("UPDATE checkpoints SET peaks = zeroblob(length(peaks)) WHERE size < 500")
    told = verified(log, made, "--from", "#500", "--to", "#520", code=3)
    assert (told["first"], layers(told)["tree"]) == (1, "FAIL")


async def test_what_is_not_sealed_yet_is_inconclusive(tmp_path: Path) -> None:
    signer = load_signer(tmp_path / "log.key")
    path = tmp_path / "events.db"
    seal = SealPolicy(signer=signer, events=10**6, seconds=3600)

    async def append(count: int, policy: SealPolicy | None) -> None:
        async with open_log(path, seal=policy) as log:
            for number in range(count):
                event = NewEvent(type="counted", data={"n": number})
                await log.append("s", [event], expected=ANY)

    await append(4, seal)
    await append(4, None)
    for first, last, verdict, tail in (
        (2, 4, "intact", None),
        (3, 6, "inconclusive", "#5 to #6 are not sealed yet"),
        (6, 8, "inconclusive", "#6 to #8 are not sealed yet"),
    ):
        found = await anyio.to_thread.run_sync(
            lambda first=first, last=last: verify_log_stretch(
                path, first, last, trusted=[signer.verifier]
            )
        )
        told = {each.layer: each.text for each in found.findings}
        assert (found.verdict.value, "tail" in told) == (verdict, tail is not None)
        assert tail is None or tail in told["tail"]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("--from", "#3", "--to", "#2"), 5, "no event between"),
        (("--from", "#2000"), 5, "there is no #2000"),
        (("--from", "soon"), 2, "is no point of a log"),
        (("--from", "#3", "--deep"), 2, "not with --checkpoint, --witness-key, --against"),
        (("--against", "/no/such"), 5, "No such file"),
        (("--against", __file__), 4, "is neither a bundle nor a proof"),
    ],
)
def test_what_cannot_be_asked(made: Path, args: tuple[str, ...], code: int, says: str) -> None:
    done = call("audit", "verify", "--log", made, *args, code=code)
    assert says in " ".join(done.stderr.split())


def test_what_was_exported_is_still_there(made: Path, tmp_path: Path) -> None:
    kept = made.with_name("kept.trail")
    told = verified(made, made, "--against", kept)
    assert "21 events" in text_of(told, "bundle")
    assert (layers(told)["bundle"], layers(told)["history"]) == ("PASS", "PASS")
    proof = tmp_path / "p.json"
    proof.write_text(call("audit", "prove", "#7", "--log", made).stdout)
    assert layers(verified(made, made, "--against", proof))["bundle"] == "PASS"


async def test_history_written_anew_with_the_stolen_key(made: Path, tmp_path: Path) -> None:
    """Nothing in the log shows it; what was exported before does."""
    forged = tmp_path / "forged.db"
    seal = SealPolicy(signer=load_signer(f"{made}.key"))
    async with open_log(made, read_only=True) as true, open_log(forged, seal=seal) as false:
        async for each in true.read(until=600):
            data = bytes(each.data)
            if each.position == 510:
                data = data.replace(b"}", b" }")
            event = NewEvent(type=each.type, data=data, event_id=each.event_id)
            await false.append(each.stream, [event], expected=ANY)

    def check() -> tuple[Any, Any]:
        alone = verified(forged, made)
        return alone, verified(forged, made, "--against", made.with_name("kept.trail"), code=3)

    alone, compared = await anyio.to_thread.run_sync(check)
    assert alone["verdict"] == "intact"
    assert (layers(compared)["history"], layers(compared)["bundle"]) == ("FAIL", "FAIL")
    assert text_of(compared, "bundle").startswith("#500 was another event")
    assert "correlation_id, " in text_of(compared, "bundle")


def test_evidence_that_is_none(log: Path, made: Path, tmp_path: Path) -> None:
    """A bundle that somebody changed says nothing of the log; one of another log says so."""
    bad = tmp_path / "bad.trail"
    with zipfile.ZipFile(made.with_name("kept.trail")) as old, zipfile.ZipFile(bad, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"/bin/", b"/bim/", 1))
    done = call(
        "audit", "verify", "--log", made, "--key", f"{made}.key.pub", "--against", bad, code=4
    )
    assert "bad.trail is no evidence: " in done.stderr
    with unlocked(log) as raw:
        raw.execute("DELETE FROM event_record WHERE position > 515")
        raw.execute("DELETE FROM checkpoints WHERE size > 515")
    told = verified(log, made, "--against", made.with_name("kept.trail"), code=3)
    assert (layers(told)["history"], layers(told)["bundle"]) == ("FAIL", "FAIL")
    assert "#516 of " in text_of(told, "bundle")
