"""Sealing a log: when, what is stored, and what a log refuses to sign."""

import sqlite3
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

from eventstore import (
    ANY,
    EventLog,
    LogCorrupt,
    NewEvent,
    SealPolicy,
    Signer,
    load_signer,
    open_checkpoint,
    open_log,
    read_checkpoints,
)
from eventstore.merkle import tree_root
from eventstore.sqlite import sealer as sealer_module
from tests.patience import PATIENCE_S

NEVER_S = 3600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return load_signer(tmp_path / "keys" / "log.key")


async def fill(log: EventLog, how_many: int) -> None:
    for number in range(how_many):
        await log.append("s", [NewEvent(type="counted", data={"n": number})], expected=ANY)


def rows(path: Path) -> list[tuple[int, bytes, str]]:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as raw:
        found = raw.execute("SELECT size, root, note FROM checkpoints ORDER BY size").fetchall()
    raw.close()
    return found


def leaves(path: Path) -> list[bytes]:
    raw = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    found = [row[0] for row in raw.execute("SELECT leaf_hash FROM events ORDER BY position")]
    raw.close()
    return found


async def until(path: Path, reached: Callable[[list[int]], bool]) -> list[int]:
    with anyio.fail_after(PATIENCE_S):
        while not reached(sizes := [row[0] for row in rows(path)]):
            await anyio.sleep(0.002)
    return sizes


def check_all(path: Path, signer: Signer) -> None:
    all_leaves = leaves(path)
    for size, root, note in rows(path):
        told = open_checkpoint(note, [signer.verifier])
        assert (told.origin, told.size, told.root) == (signer.name, size, root)
        assert root == tree_root(all_leaves[:size])


async def test_a_log_is_sealed_when_it_is_closed(path: Path, signer: Signer) -> None:
    policy = SealPolicy(signer=signer, events=1000, seconds=NEVER_S)
    for _ in range(3):
        async with open_log(path, seal=policy) as log:
            await fill(log, 5)
    async with open_log(path, seal=policy):
        pass
    assert [row[0] for row in rows(path)] == [5, 10, 15]
    check_all(path, signer)


async def test_a_log_is_sealed_by_count(path: Path, signer: Signer) -> None:
    policy = SealPolicy(signer=signer, events=4, seconds=NEVER_S)
    async with open_log(path, seal=policy) as log:
        await fill(log, 3)
        assert rows(path) == []
        await fill(log, 1)
        assert await until(path, bool) == [4]
        await fill(log, 30)
        sizes = await until(path, lambda sizes: sizes[-1] > 30)
    assert all(after - before >= 4 for before, after in pairwise(sizes))
    check_all(path, signer)


async def test_a_log_is_sealed_by_time(path: Path, signer: Signer) -> None:
    policy = SealPolicy(signer=signer, events=1000, seconds=0.02)
    async with open_log(path, seal=policy) as log:
        await fill(log, 2)
        await until(path, lambda sizes: sizes[-1:] == [2])
        await fill(log, 1)
        await until(path, lambda sizes: sizes[-1:] == [3])
    check_all(path, signer)


async def test_a_log_that_was_never_sealed_is_caught_up_with(
    path: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealer_module, "GROW_EVENTS_MAX", 7)
    async with open_log(path) as log:
        await fill(log, 28)
    assert rows(path) == []
    async with open_log(path, seal=SealPolicy(signer=signer, events=5, seconds=NEVER_S)):
        assert await until(path, bool) == [28]
    check_all(path, signer)


async def test_every_append_is_still_synced_while_seals_are_not(path: Path, signer: Signer) -> None:
    async with open_log(path, seal=SealPolicy(signer=signer, events=1, seconds=NEVER_S)) as log:
        await fill(log, 3)
        await until(path, bool)
        synchronous = await log._connection.run(  # type: ignore[attr-defined]  # SQLite's own answer
            lambda raw: raw.execute("PRAGMA synchronous").fetchone()[0]
        )
    assert synchronous == 2


async def test_a_seal_that_fails_costs_no_append_and_is_made_up_for(
    path: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    policy = SealPolicy(signer=signer, events=1, seconds=NEVER_S)
    async with open_log(path, seal=policy) as log:
        full = sqlite3.OperationalError("database or disk is full")
        full.sqlite_errorcode = sqlite3.SQLITE_FULL

        def refuse(*args: object) -> None:
            raise full

        with monkeypatch.context() as broken:
            broken.setattr(sealer_module.Sealer, "_store", refuse)
            await fill(log, 1)
            with anyio.fail_after(PATIENCE_S):
                while "seal.failed" not in caplog.text:
                    await anyio.sleep(0.002)
        assert rows(path) == []
        await fill(log, 1)
        await until(path, lambda sizes: sizes == [2])
    check_all(path, signer)


async def test_other_keys_go_on_from_the_same_tree(
    path: Path, signer: Signer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = load_signer(tmp_path / "other.key")
    for each in (signer, other):
        async with open_log(path, seal=SealPolicy(signer=each)) as log:
            await fill(log, 3)
    assert "seal.other_key size=3" in caplog.text
    assert rows(path)[1][1] == tree_root(leaves(path))
    open_checkpoint(rows(path)[1][2], [other.verifier])


def alter(path: Path, *statements: str) -> None:
    raw = sqlite3.connect(path, isolation_level=None)
    for (name,) in raw.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        raw.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        raw.execute(statement)
    raw.close()


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("DELETE FROM event_record WHERE position > 3", "sealed up to position 6, but ends at 3"),
        ("UPDATE checkpoints SET root = zeroblob(32) WHERE size = 6", "is about another one"),
        ("UPDATE checkpoints SET size = 5 WHERE size = 6", "is about another one"),
        ("UPDATE checkpoints SET peaks = zeroblob(64)", "its peaks do not give its root"),
        ("UPDATE checkpoints SET peaks = zeroblob(65)", "has 2 peaks, not 3"),
        ("UPDATE checkpoints SET note = 'x'", "not signed"),
        ("UPDATE checkpoints SET note = replace(note, char(10) || '6', char(10) || '7')", "fit"),
    ],
)
async def test_nothing_is_signed_on_top_of_a_broken_checkpoint(
    path: Path, signer: Signer, statement: str, problem: str
) -> None:
    policy = SealPolicy(signer=signer)
    async with open_log(path, seal=policy) as log:
        await fill(log, 6)
    alter(path, statement)
    with pytest.raises(LogCorrupt, match=problem):
        async with open_log(path, seal=policy):
            pass
    async with open_log(path) as log:  # whoever does not seal may go on
        await fill(log, 1)


async def test_rewritten_rows_are_not_taken_into_the_tree(path: Path, signer: Signer) -> None:
    policy = SealPolicy(signer=signer)
    async with open_log(path, seal=policy) as log:
        await fill(log, 6)
    honest = leaves(path)
    alter(path, "UPDATE event_record SET leaf_hash = zeroblob(32) WHERE position = 2")
    async with open_log(path, seal=policy) as log:
        await fill(log, 2)
    assert rows(path)[-1][1] == tree_root(honest + leaves(path)[6:])


@pytest.mark.parametrize(("events", "seconds"), [(0, 1.0), (1, 0.0), (1, float("nan"))])
def test_a_policy_that_makes_no_sense(signer: Signer, events: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="cannot seal every"):
        SealPolicy(signer=signer, events=events, seconds=seconds)


async def test_what_is_said_beside_the_tree_is_signed_and_covers_no_less(
    path: Path, signer: Signer
) -> None:
    heads: list[tuple[int, bool]] = []

    async def extensions(final: bool) -> Sequence[str]:
        heads.append((await log.head() if not final else -1, final))
        return (f"at {len(heads)}", "beside")

    policy = SealPolicy(signer=signer, events=2, seconds=NEVER_S, extensions=extensions)
    async with open_log(path, seal=policy) as log:
        await fill(log, 2)
        await until(path, lambda sizes: sizes == [2])
        await fill(log, 1)
    told = [open_checkpoint(note, [signer.verifier]) for _, _, note in rows(path)]
    assert [each.size for each in told] == [2, 3]
    assert [each.extensions for each in told] == [("at 1", "beside"), ("at 2", "beside")]
    assert heads == [(2, False), (-1, True)]
    assert read_checkpoints(path) == told
    assert read_checkpoints(path, after=2) == told[1:]
    assert read_checkpoints(path, limit=1) == told[:1]
