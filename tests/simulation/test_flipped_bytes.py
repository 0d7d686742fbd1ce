"""One flipped bit anywhere in a log's files: it is said, or nothing that anybody reads has changed.

``make sim`` flips a bit of every byte; otherwise only of some, SANDTRAIL_FLIP_STRIDE apart.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventstore import (
    ANY,
    Actor,
    Checkpoint,
    Document,
    EventStoreError,
    LogCorrupt,
    LogUnusable,
    NewEvent,
    RecordedEvent,
    SealPolicy,
    Signer,
    Verdict,
    load_signer,
    newest_note,
    open_checkpoint,
    open_log,
    verify_log,
)

STRIDE = int(os.environ.get("SANDTRAIL_FLIP_STRIDE", "97"))
EVENTS = 8


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return load_signer(tmp_path_factory.mktemp("keys") / "log.key")


@pytest.fixture
async def files(signer: Signer, tmp_path: Path) -> dict[str, bytes]:
    """A log of which half is still in the WAL, as after a crash; sealed to the end."""
    path = tmp_path / "made" / "events.db"
    path.parent.mkdir()
    for opening in range(2):
        async with open_log(path, seal=SealPolicy(signer=signer, events=EVENTS // 2)) as log:
            for number in range(EVENTS // 2):
                event = NewEvent(
                    type="counted",
                    data={"n": number},
                    actor=Actor(uid=1, gid=2, pid=3),
                    correlation_id="req",
                    documents=(Document(media_type="text/plain", body=b"%d" % number),),
                )
                await log.append(f"s{number % 2}", [event], expected=ANY)
            while opening and (await sealed_to(path, signer)) < EVENTS:
                pass
            copied = {each.name: each.read_bytes() for each in path.parent.glob("events.db*")}
    return {name: copied[name] for name in ("events.db", "events.db-wal")}


async def sealed_to(path: Path, signer: Signer) -> int:
    async with open_log(path, read_only=True) as log:
        await log.head()
    note = newest_note(path)
    return 0 if note is None else open_checkpoint(note, [signer.verifier]).size


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where flipped copies are made: in memory if that can be had, as there are many."""
    shared = Path("/dev/shm")
    directory = shared if os.access(shared, os.W_OK) else tmp_path
    directory /= f"sandtrail-flipped-{os.getpid()}"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


def put(directory: Path, files: dict[str, bytes]) -> Path:
    for old in directory.iterdir():
        old.unlink()
    for name, contents in files.items():
        (directory / name).write_bytes(contents)
    return directory / "events.db"


def flipped(files: dict[str, bytes], name: str) -> Iterator[tuple[int, dict[str, bytes]]]:
    original = files[name]
    for at in range(0, len(original), STRIDE):
        changed = bytearray(original)
        changed[at] ^= 1 << at % 8
        yield at, files | {name: bytes(changed)}


async def contents(path: Path, **how: SealPolicy) -> list[tuple[RecordedEvent, tuple[bytes, ...]]]:
    """All events with their documents' bodies; by one who seals, then an append.

    Who does not seal only reads: a byte of SQLite's header can make a file one that nobody may
    write, and leave its contents as they were.
    """
    found = []
    async with open_log(path, read_only=not how, **how) as log:  # type: ignore[arg-type]  # as its caller gave it
        async for record in log.read():
            bodies = [(await log.document(digest)).body for digest in record.documents]
            found.append((record, tuple(bodies)))
        if how:
            await log.append("after", [NewEvent(type="t", data={})], expected=ANY)
    return found


@pytest.mark.parametrize("name", ["events.db", "events.db-wal"])
async def test_the_writer_says_so_in_its_own_terms(
    files: dict[str, bytes], directory: Path, signer: Signer, name: str
) -> None:
    honest = await contents(put(directory, files))
    counts: Counter[str] = Counter()
    for at, changed in flipped(files, name):
        path = put(directory, changed)
        try:
            found = await contents(path, seal=SealPolicy(signer=signer))
        except EventStoreError as error:
            counts[type(error).__name__] += 1
        else:
            counts["opened"] += 1
            assert [record.position for record, _ in found] == list(range(1, len(found) + 1)), at
            if name == "events.db-wal":  # SQLite's own checksums: a whole part of it is taken
                assert found == honest[: len(found)], at
    print(name, counts)
    assert counts["opened"]
    assert counts["LogCorrupt"] or name == "events.db-wal"


@pytest.mark.parametrize("name", ["events.db", "events.db-wal"])
async def test_a_verification_with_a_checkpoint_from_elsewhere_misses_nothing(
    files: dict[str, bytes], directory: Path, signer: Signer, name: str
) -> None:
    path = put(directory, files)
    note = newest_note(path)
    assert note is not None
    pinned = open_checkpoint(note, [signer.verifier])
    assert pinned.size == EVENTS
    honest = await contents(put(directory, files))
    assert len(honest) == EVENTS
    counts: Counter[str] = Counter()
    for at, changed in flipped(files, name):
        verdict = judge(put(directory, changed), signer, pinned)
        counts[verdict] += 1
        if verdict == "intact":
            # Free space, or the few fields of which verify_log says that nothing covers them: what
            # is no text any more stops its reader.
            try:
                read = await contents(put(directory, changed))
            except LogCorrupt as error:
                read = honest if "media_type" in str(error) else []
            assert read == honest, at
    print(name, counts)
    assert counts["intact"]
    assert counts["broken"]


def judge(path: Path, signer: Signer, pinned: Checkpoint) -> str:
    try:
        found = verify_log(path, trusted=[signer.verifier], pinned=[pinned])
    except LogUnusable:
        return "no log any more"
    assert found.verdict is not Verdict.INCONCLUSIVE or found.head < EVENTS
    return found.verdict.value


async def test_a_wal_that_is_lost_leaves_a_file_that_says_so(
    files: dict[str, bytes], directory: Path, signer: Signer
) -> None:
    found = verify_log(put(directory, files | {"events.db-wal": b""}), trusted=[signer.verifier])

    assert found.verdict is Verdict.INCONCLUSIVE
    assert "without" in {each.layer: each.text for each in found.findings}["complete"]


async def test_a_wal_that_is_cut_only_shows_with_a_checkpoint_from_elsewhere(
    files: dict[str, bytes], directory: Path, signer: Signer
) -> None:
    """And exactly that is said."""
    note = newest_note(put(directory, files))
    assert note is not None
    pinned = open_checkpoint(note, [signer.verifier])
    size = len(files["events.db-wal"])
    for left in (size // 4, size // 2):
        path = put(directory, files | {"events.db-wal": files["events.db-wal"][:left]})
        alone = verify_log(path, trusted=[signer.verifier])
        assert alone.verdict is Verdict.INTACT
        assert alone.head < EVENTS
        assert any(
            "nothing after the newest checkpoint here was cut off" in each
            for each in alone.unproven
        )
        history = {each.layer: each.text for each in alone.findings}["history"]
        assert "anybody could have put back an older copy" in history

        found = verify_log(path, trusted=[signer.verifier], pinned=[pinned])
        assert found.verdict is Verdict.BROKEN
        assert found.first_bad == found.head + 1
        history = {each.layer: each.text for each in found.findings}["history"]
        assert "cut or rolled back" in history
