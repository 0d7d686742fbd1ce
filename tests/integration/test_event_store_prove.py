"""Proofs made from a log's file: what they hold, and when there is none."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from eventstore import (
    ANY,
    Actor,
    Checkpoint,
    CheckpointStale,
    Document,
    EventStoreError,
    LimitExceeded,
    LogCorrupt,
    LogNotFound,
    NewEvent,
    NoteRejected,
    SealPolicy,
    SignatureAbsent,
    Signer,
    load_signer,
    newest_note,
    open_checkpoint,
    open_log,
    prove_events,
    read_checkpoint,
)
from eventstore.merkle import consistency_holds, selection_root

SEALED = 7


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return load_signer(tmp_path_factory.mktemp("keys") / "log.key")


async def write(path: Path, signer: Signer | None, how_many: int) -> None:
    seal = None if signer is None else SealPolicy(signer=signer, events=10**6, seconds=3600)
    async with open_log(path, seal=seal) as log:
        for number in range(how_many):
            event = NewEvent(
                type="counted",
                data={"n": number},
                actor=Actor(uid=1, gid=2, pid=3) if number % 2 else None,
                documents=(Document(media_type="text/plain", body=b"%d" % (number % 2)),),
            )
            await log.append(f"s{number % 3}", [event], expected=ANY)


@pytest.fixture
def log(tmp_path: Path, signer: Signer) -> Path:
    """Seven events that are sealed at 3 and 7, and one that is not."""
    path = tmp_path / "events.db"
    anyio.run(write, path, signer, 3)
    (tmp_path / "kept.note").write_text(newest_note(path) or "")
    anyio.run(write, path, signer, 4)
    anyio.run(write, path, None, 1)
    return path


@pytest.mark.parametrize("positions", [[1], [7], [2, 3, 4], [1, 5, 7], list(range(1, 8))])
def test_the_events_give_the_signed_root(log: Path, signer: Signer, positions: list[int]) -> None:
    proof = prove_events(log, positions)
    head = open_checkpoint(proof.note, [signer.verifier])
    leaves = {each.position - 1: each.leaf_hash() for each in proof.events}
    assert [each.position for each in proof.events] == positions
    assert selection_root(leaves, proof.size, proof.hashes) == head.root
    assert (proof.size, proof.consistency, proof.documents) == (SEALED, None, ())


def test_with_documents_and_an_older_checkpoint(log: Path, tmp_path: Path) -> None:
    kept = read_checkpoint((tmp_path / "kept.note").read_bytes())
    proof = prove_events(log, range(1, 5), since=kept, documents=True)
    assert sorted(each.body for each in proof.documents) == [b"0", b"1"]
    assert {each.digest for each in proof.documents} == {
        digest for each in proof.events for digest in each.documents
    }
    assert proof.consistency is not None
    assert consistency_holds(
        old_size=3, old_root=kept.root, size=SEALED,
        root=read_checkpoint(proof.note).root, proof=proof.consistency.hashes,
    )  # fmt: skip
    empty = Checkpoint(origin="x", size=0, root=b"")
    nothing = prove_events(log, [1], since=empty).consistency
    assert nothing is not None
    assert nothing.hashes == ()


def alter(log: Path, statement: str) -> None:
    raw = sqlite3.connect(log, isolation_level=None)
    for (name,) in raw.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        raw.execute(f"DROP TRIGGER {name}")
    raw.execute(statement)
    raw.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event_record SET data = '{}' WHERE position = 2",
        "UPDATE event_record SET leaf_hash = zeroblob(32) WHERE position = 6",
        "UPDATE event_record SET leaf_hash = zeroblob(31) WHERE position = 6",
        "DELETE FROM event_record WHERE position = 2",
        "DELETE FROM event_record WHERE position = 6",
        "DELETE FROM event_record WHERE position > 5",
        "UPDATE documents SET body = x'00'",
        "DELETE FROM documents",
    ],
)
def test_a_broken_log_gives_no_proof(log: Path, statement: str) -> None:
    alter(log, statement)
    with pytest.raises(LogCorrupt):
        prove_events(log, [2], documents=True)


def no_checkpoint(log: Path) -> None:
    alter(log, "DELETE FROM checkpoints")


def as_it_is(_: Path) -> None:
    """Nothing is wrong with it."""


@pytest.mark.parametrize(
    ("prepare", "positions", "error"),
    [
        (as_it_is, [8], CheckpointStale),
        (as_it_is, [5, 8], CheckpointStale),
        (as_it_is, range(1, 200_000), LimitExceeded),
        (no_checkpoint, [1], SignatureAbsent),
    ],
)
def test_what_cannot_be_proven(
    log: Path, prepare: Callable[[Path], None], positions: list[int], error: type[EventStoreError]
) -> None:
    prepare(log)
    with pytest.raises(error):
        prove_events(log, positions)


@pytest.mark.parametrize("positions", [[], [0], [3, 2], [2, 2]])
def test_what_is_no_question(log: Path, positions: list[int]) -> None:
    with pytest.raises(ValueError, match="rise from 1 on"):
        prove_events(log, positions)


def test_a_checkpoint_of_another_history(log: Path) -> None:
    for size, error in ((3, NoteRejected), (9, CheckpointStale)):
        with pytest.raises(error):
            prove_events(log, [1], since=Checkpoint(origin="x", size=size, root=b"x" * 32))
    with pytest.raises(LogNotFound):
        prove_events(log.parent / "nothing", [1])
