"""Snapshots are believed only if everything fits; what else is there costs time, never truth."""

import logging
import os
import stat
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore import (
    ANY,
    EventLog,
    MemoryLog,
    NewEvent,
    Snapshot,
    SnapshotFiles,
    SnapshotKind,
    SnapshotUnusable,
    load_newest,
    memory_log,
)
from eventstore import snapshots as module
from eventstore.snapshots import SNAPSHOTS_NEWEST_MAX, SNAPSHOTS_OLDER_MAX, surplus

KIND = SnapshotKind(fold="sums", fingerprint="a1" * 32)
OTHER = SnapshotKind(fold="sums", fingerprint="b2" * 32)
ELSEWHERE = SnapshotKind(fold="counts", fingerprint="a1" * 32)


def a_snapshot(position: int = 3, body: bytes = b"body", leaf_hash: bytes = b"L" * 32) -> Snapshot:
    return Snapshot(position=position, leaf_hash=leaf_hash, body=body)


@pytest.fixture
def files(tmp_path: Path) -> SnapshotFiles:
    return SnapshotFiles(tmp_path / "snapshots", KIND)


async def a_log(events: int = 5) -> MemoryLog:
    log = memory_log()
    for number in range(events):
        await log.append("s", [NewEvent(type="t", data={"n": number})], expected=ANY)
    return log


async def save_at(log: EventLog, files: SnapshotFiles, *positions: int) -> None:
    """Save snapshots whose body is their position."""
    records = [record async for record in log.read()]
    for position in positions:
        leaf_hash = records[position - 1].leaf_hash
        files.save(a_snapshot(position, str(position).encode(), leaf_hash))


def ignored(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "ignored" in record.getMessage()]


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"x", b"line\nline\n", b"\0" * 100_000])
def test_what_was_saved_is_loaded(files: SnapshotFiles, body: bytes) -> None:
    snapshot = a_snapshot(body=body)
    files.save(snapshot)
    assert files.load(3) == snapshot
    assert files.positions() == [3]


def test_nothing_is_there_before_the_first_is_saved(files: SnapshotFiles) -> None:
    assert files.positions() == []
    with pytest.raises(SnapshotUnusable, match="No such file"):
        files.load(3)
    files.discard(3)
    files.tidy()


def test_snapshots_are_for_their_owner_alone(files: SnapshotFiles) -> None:
    files.save(a_snapshot())
    path = files.path(3)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_saving_again_replaces(files: SnapshotFiles) -> None:
    files.save(a_snapshot(body=b"old"))
    files.save(a_snapshot(body=b"new"))
    assert files.load(3).body == b"new"
    assert files.positions() == [3]


def test_every_flipped_bit_is_noticed(files: SnapshotFiles) -> None:
    snapshot = a_snapshot()
    files.save(snapshot)
    whole = files.path(3).read_bytes()
    for index in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[index] ^= 1 << bit
            files.path(3).write_bytes(changed)
            with pytest.raises(SnapshotUnusable):
                files.load(3)
    files.path(3).write_bytes(whole)
    assert files.load(3) == snapshot


def test_every_truncation_and_every_addition_is_noticed(files: SnapshotFiles) -> None:
    files.save(a_snapshot())
    whole = files.path(3).read_bytes()
    for changed in (*(whole[:size] for size in range(len(whole))), whole + b"x", b"\n" + whole):
        files.path(3).write_bytes(changed)
        with pytest.raises(SnapshotUnusable):
            files.load(3)


def test_a_file_under_the_name_of_another_position_is_not_believed(files: SnapshotFiles) -> None:
    files.save(a_snapshot())
    files.path(3).rename(files.path(4))
    with pytest.raises(SnapshotUnusable, match="damaged, or of another fold"):
        files.load(4)


@pytest.mark.parametrize("kind", [OTHER, ELSEWHERE])
def test_another_fold_has_no_use_for_it(files: SnapshotFiles, kind: SnapshotKind) -> None:
    files.save(a_snapshot())
    theirs = SnapshotFiles(files.path(3).parent, kind)
    assert theirs.positions() == []
    files.path(3).rename(theirs.path(3))
    with pytest.raises(SnapshotUnusable, match="of another fold"):
        theirs.load(3)


def test_tidying_leaves_other_folds_and_strange_files_alone(files: SnapshotFiles) -> None:
    files.save(a_snapshot())
    directory = files.path(3).parent
    SnapshotFiles(directory, ELSEWHERE).save(a_snapshot(9))
    (directory / "notes.txt").write_text("mine")
    (directory / f"{files.path(5).stem}.unfinished").write_text("half a snap")
    SnapshotFiles(directory, OTHER).save(a_snapshot(7))
    left = {path.name for path in directory.iterdir()}
    assert left == {
        "notes.txt",
        SnapshotFiles(directory, OTHER).path(7).name,
        SnapshotFiles(directory, ELSEWHERE).path(9).name,
    }


def test_too_large_a_body_is_neither_written_nor_read(
    files: SnapshotFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.save(a_snapshot(body=b"12345"))
    monkeypatch.setattr(module, "SNAPSHOT_BYTES_MAX", 4)
    with pytest.raises(SnapshotUnusable, match="over 4 bytes"):
        files.save(a_snapshot(body=b"12345"))
    with pytest.raises(SnapshotUnusable, match="over 4 bytes"):
        files.load(3)


def test_a_directory_that_cannot_be_written_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "snapshots").write_text("a file is in the way")
    files = SnapshotFiles(tmp_path / "snapshots", KIND)
    with pytest.raises(SnapshotUnusable, match="the log itself is not affected"):
        files.save(a_snapshot())
    assert files.positions() == []


def test_a_disk_that_fails_midway_leaves_the_older_one(
    files: SnapshotFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.save(a_snapshot(body=b"old"))

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(SnapshotUnusable, match="No space left"):
        files.save(a_snapshot(body=b"new"))
    assert files.load(3).body == b"old"
    assert [path.suffix for path in files.path(3).parent.iterdir()] == [".snapshot"]


@pytest.mark.parametrize(
    ("fold", "fingerprint"),
    [("", "a" * 64), ("../x", "a" * 64), ("Sums", "a" * 64), ("sums", ""), ("sums", "g" * 64)],
)
def test_a_kind_is_fit_for_a_file_name(fold: str, fingerprint: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        SnapshotKind(fold=fold, fingerprint=fingerprint)


# --- how many are kept ---------------------------------------------------------------------------


@given(st.sets(st.integers(1, 10**12), max_size=40))
def test_the_newest_are_kept_and_never_too_many(positions: set[int]) -> None:
    gone = set(surplus(positions))
    kept = positions - gone
    assert gone <= positions
    assert set(sorted(positions)[-SNAPSHOTS_NEWEST_MAX:]) <= kept
    assert len(kept) == min(len(kept), SNAPSHOTS_NEWEST_MAX + SNAPSHOTS_OLDER_MAX)
    assert surplus(kept) == []


def test_older_ones_stay_all_over_the_log() -> None:
    kept: set[int] = set()
    for position in range(20_000, 5_000_001, 20_000):
        kept.add(position)
        kept -= set(surplus(kept))
    assert len(kept) > SNAPSHOTS_OLDER_MAX
    bounds = [0, *sorted(kept)]
    assert max(after - before for before, after in pairwise(bounds)) < 2_000_000


# --- which one is believed -----------------------------------------------------------------------


async def test_the_newest_is_taken(files: SnapshotFiles) -> None:
    log = await a_log()
    assert await load_newest(log, files, int) is None
    await save_at(log, files, 2, 4)
    assert await load_newest(log, files, int) == (4, 4)


@pytest.mark.parametrize(
    ("until", "expected"), [(5, (4, 4)), (4, (4, 4)), (3, (2, 2)), (2, (2, 2)), (1, None)]
)
async def test_none_beyond_the_wanted_position_is_taken(
    files: SnapshotFiles, until: int, expected: tuple[int, int] | None
) -> None:
    log = await a_log()
    await save_at(log, files, 2, 4)
    assert await load_newest(log, files, int, until=until, discard=True) == expected
    assert files.positions() == [4, 2]


async def test_a_damaged_one_is_passed_over(
    files: SnapshotFiles, caplog: pytest.LogCaptureFixture
) -> None:
    log = await a_log()
    await save_at(log, files, 2, 4)
    with files.path(4).open("ab") as file:
        file.write(b"!")
    assert await load_newest(log, files, int) == (2, 2)
    assert files.positions() == [4, 2], "a reader deletes nothing"
    assert await load_newest(log, files, int, discard=True) == (2, 2)
    assert files.positions() == [2]
    assert len(ignored(caplog)) == 2
    assert str(files.path(4)) in ignored(caplog)[0]


async def test_a_body_that_cannot_be_understood_is_passed_over(
    files: SnapshotFiles, caplog: pytest.LogCaptureFixture
) -> None:
    log = await a_log()
    await save_at(log, files, 2)
    record = await anext(log.read(after=3))
    files.save(a_snapshot(4, b"four", record.leaf_hash))
    assert await load_newest(log, files, int, discard=True) == (2, 2)
    assert files.positions() == [2]
    assert "cannot be understood" in ignored(caplog)[0]


@pytest.mark.parametrize("events", [0, 3, 5])
async def test_a_snapshot_of_another_log_is_not_believed(
    files: SnapshotFiles, caplog: pytest.LogCaptureFixture, events: int
) -> None:
    """A log that was made anew, rolled back, or forked before that position."""
    caplog.set_level(logging.WARNING)
    await save_at(await a_log(), files, 4)
    other = await a_log(events)
    assert await load_newest(other, files, int, discard=True) is None
    assert files.positions() == []
    assert "of another log" in ignored(caplog)[0]


async def test_a_common_past_is_still_believed(files: SnapshotFiles) -> None:
    """A log that was restored from a copy: what was snapshot before the copy is still of use."""
    log = await a_log()
    await save_at(log, files, 2, 4)
    past = [record async for record in log.read(limit=3)]
    restored = memory_log(clock=iter([record.recorded_at_ns for record in past]).__next__)
    await append_again(restored, [(record.event_id, record.data) for record in past])
    assert await load_newest(restored, files, int, discard=True) == (2, 2)
    assert files.positions() == [2]


async def append_again(log: MemoryLog, events: Sequence[tuple[str, bytes]]) -> None:
    for event_id, data in events:
        await log.append("s", [NewEvent(type="t", data=data, event_id=event_id)], expected=ANY)
