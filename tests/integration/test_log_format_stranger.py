"""docs/log-format.md is enough: a verifier written from that page alone agrees with ours."""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from eventstore import (
    ANY,
    Actor,
    Document,
    NewEvent,
    SealPolicy,
    Signer,
    Verdict,
    load_signer,
    newest_note,
    open_log,
    read_checkpoint,
    verify_log,
)
from tests.integration import log_format_stranger
from tests.patience import PATIENCE_S

PROGRAM = Path(log_format_stranger.__file__)
PAGE = (PROGRAM.parents[2] / "docs" / "log-format.md").read_text(encoding="utf-8")
EVENTS = 9


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return load_signer(tmp_path / "log.key")


@pytest.fixture
async def path(tmp_path: Path, signer: Signer) -> Path:
    path = tmp_path / "events.db"
    for session in range(3):

        async def extensions(_: bool, session: int = session) -> Sequence[str]:
            return ("something new", "and more") if session else ()

        policy = SealPolicy(signer=signer, extensions=extensions)
        async with open_log(path, seal=policy) as log:
            for number in range(EVENTS // 3):
                event = NewEvent(
                    type="counted",
                    data={"n": number, "name": "Zoë 🌊"},
                    actor=Actor(uid=1000, gid=1000, pid=number + 1) if number else None,
                    correlation_id="req-1" if number else None,
                    causation=1 if number else None,
                    documents=tuple(
                        Document(media_type="text/plain", body=b"%d" % each)
                        for each in range(number)
                    ),
                )
                await log.append(f"s{number % 2}", [event], expected=ANY)
    return path


def stranger(path: Path, signer: Signer, kept: str | None = None) -> str:
    done = subprocess.run(
        [
            *(sys.executable, "-I", "-S", PROGRAM, path, signer.verifier.text()),
            *([] if kept is None else [kept]),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.stderr == ""
    assert (done.returncode == 0) == done.stdout.startswith("ok ")
    return done.stdout.strip()


def alter(path: Path, *statements: str) -> None:
    raw = sqlite3.connect(path, isolation_level=None)
    triggers = raw.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        raw.execute(f"DROP TRIGGER {name}")
    for statement in (*statements, *(sql for _, sql in triggers)):
        raw.execute(statement)
    raw.close()


async def test_a_stranger_finds_an_honest_log_honest(path: Path, signer: Signer) -> None:
    note = newest_note(path)
    assert note is not None
    told = read_checkpoint(note)

    assert told.size == EVENTS
    assert stranger(path, signer, note) == f"ok {EVENTS} {told.root.hex()}"


@pytest.mark.parametrize(
    ("statement", "step"),
    [
        ("DELETE FROM event_record WHERE position = 3", 2),
        ("UPDATE event_record SET version = 77 WHERE position = 9", 2),
        ("UPDATE event_record SET data = '{}' WHERE position = 2", 3),
        ("UPDATE event_record SET causation = 2 WHERE position = 6", 3),
        ("UPDATE event_record SET documents = NULL WHERE position = 3", 3),
        ("UPDATE documents SET body = x'00'", 3),
        ("DELETE FROM documents", 3),
        ("DELETE FROM event_record WHERE position > 8", 4),
        ("UPDATE checkpoints SET root = zeroblob(32) WHERE size = 9", 4),
        ("UPDATE checkpoints SET note = replace(note, char(10) || '9', char(10) || '8')", 5),
        ("DELETE FROM event_record WHERE position > 6; DELETE FROM checkpoints WHERE size > 6", 6),
    ],
)
async def test_a_stranger_notices_what_we_notice(
    path: Path, signer: Signer, statement: str, step: int
) -> None:
    kept = newest_note(path)
    assert kept is not None
    alter(path, *statement.split("; "))

    assert stranger(path, signer, kept).startswith(f"step {step}: ")
    pinned = read_checkpoint(kept)
    found = verify_log(path, trusted=[signer.verifier], pinned=[pinned])
    assert found.verdict is Verdict.BROKEN


async def test_a_stranger_does_not_trust_another_key(path: Path, tmp_path: Path) -> None:
    other = load_signer(tmp_path / "other.key")

    assert stranger(path, other) == "step 5: not signed by the key"


def block(name: str) -> str:
    found = re.search(rf"```{name}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def test_a_stranger_can_follow_the_worked_example() -> None:
    first, last = (bytes.fromhex(line) for line in block("tree").split())
    leaves = [bytes.fromhex(each) for each in re.findall(r"```leaf\n(.*?)```", PAGE, re.DOTALL)]
    second, third, one = leaves  # in the order of the page

    assert log_format_stranger.root([one, second]) == first
    assert log_format_stranger.root([one, second, third]) == last
    for note in ("note", "note-with-state"):
        assert log_format_stranger.open_note(block(note), block("vkey")) == (3, last)
    forged = block("note-with-state").replace("-v1 3 ", "-v1 2 ")
    with pytest.raises(log_format_stranger.BadError, match="signature is wrong"):
        log_format_stranger.open_note(forged, block("vkey"))
    forged = block("note").replace("\n3\n", "\n4\n")
    with pytest.raises(log_format_stranger.BadError, match="signature is wrong"):
        log_format_stranger.open_note(forged, block("vkey"))
