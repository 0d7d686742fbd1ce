"""What becomes of a log that somebody altered: it is noticed, or said that it cannot be."""

import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

from eventstore import (
    ANY,
    Actor,
    Checkpoint,
    Document,
    LogNotFound,
    LogUnusable,
    NewEvent,
    Outcome,
    SealPolicy,
    Signer,
    Verdict,
    Verification,
    load_signer,
    newest_note,
    open_checkpoint,
    open_log,
    verify_log,
)
from eventstore.canonical import encode_fields, hash_leaf
from eventstore.merkle import Frontier
from eventstore.sqlite.evidence import FileEvidence
from eventstore.verify import verify, wrong_versions

EVENTS = 6
COLUMNS = {
    "event_record": (
        "position stream_id version type_id event_id recorded_at_ns correlation_id causation actor "
        "data documents leaf_hash"
    ).split(),
    "stream": ["id", "name"],
    "event_type": ["id", "name"],
    "documents": ["digest", "body"],
    "checkpoints": ["size", "root", "peaks", "note"],
}


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return load_signer(tmp_path_factory.mktemp("keys") / "log.key")


async def write(path: Path, signer: Signer | None, how_many: int = EVENTS, tag: str = "") -> None:
    seal = None if signer is None else SealPolicy(signer=signer, events=10**6, seconds=3600)
    async with open_log(path, seal=seal, clock=lambda: 1767225600000000000) as log:
        for number in range(how_many):
            event = NewEvent(
                type="counted",
                data={"n": number, "tag": tag},
                correlation_id=f"req-{number}",
                causation=number or None,
                actor=Actor(uid=0, gid=0, pid=number + 1),
                documents=(Document(media_type="text/plain", body=b"%d" % (number % 2)),),
            )
            await log.append(f"s{number % 2}", [event], expected=ANY)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Path:
    """Six events in two streams; sealed at 3 and 6."""
    path = tmp_path_factory.mktemp("log") / "events.db"
    anyio.run(write, path, signer, 3)
    anyio.run(write, path, signer, 3, "second")
    raw = sqlite3.connect(path)
    assert raw.execute("SELECT size FROM checkpoints ORDER BY size").fetchall() == [(3,), (6,)]
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    return path


@pytest.fixture
def path(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(sealed, tmp_path / "events.db"))


def unprotected(path: Path) -> tuple[sqlite3.Connection, list[str]]:
    """The log without its triggers, and how to have them back."""
    raw = sqlite3.connect(path, isolation_level=None)
    triggers = raw.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        raw.execute(f"DROP TRIGGER {name}")
    return raw, [sql for _, sql in triggers]


def alter(path: Path, *statements: str) -> None:
    raw, triggers = unprotected(path)
    for statement in (*statements, *triggers):
        raw.execute(statement)
    raw.close()


def outcomes(found: Verification) -> dict[str, str]:
    return {each.layer: each.outcome.value for each in found.findings}


def pinned_now(path: Path, signer: Signer) -> Checkpoint:
    note = newest_note(path)
    assert note is not None
    return open_checkpoint(note, [signer.verifier])


def test_an_untouched_log(path: Path, signer: Signer) -> None:
    seen: list[tuple[int, int]] = []
    found = verify_log(
        path,
        trusted=[signer.verifier],
        pinned=[pinned_now(path, signer)],
        progress=lambda done, of: seen.append((done, of)),
    )
    assert (found.verdict, found.head, found.sealed, found.first_bad) == (
        Verdict.INTACT,
        6,
        6,
        None,
    )
    assert set(outcomes(found).values()) == {"PASS"}
    assert seen == [(6, 6)]
    alone = verify_log(path, trusted=[signer.verifier])
    assert alone.verdict is Verdict.INTACT
    assert outcomes(alone)["history"] == "SKIP"
    assert any("does" not in each and "signing key" in each for each in alone.unproven)


async def test_what_was_never_sealed_proves_nothing(tmp_path: Path, signer: Signer) -> None:
    path = tmp_path / "events.db"
    await write(path, None)
    found = verify_log(path, trusted=[signer.verifier])
    assert found.verdict is Verdict.INCONCLUSIVE
    assert outcomes(found)["tree"] == outcomes(found)["signature"] == "SKIP"
    assert "Anything about #1 to #6: no trusted checkpoint covers them." in found.unproven


async def test_the_tail_is_told(path: Path, signer: Signer) -> None:
    await write(path, None, 2)
    found = verify_log(path, trusted=[signer.verifier])
    assert (found.verdict, found.sealed, found.head) == (Verdict.INTACT, 6, 8)
    assert found.findings[-1].text == "#7 to #8 are not sealed yet"
    assert found.findings[-1].outcome is Outcome.INFO
    assert "Anything about #7 to #8: no trusted checkpoint covers them." in found.unproven


def test_without_the_right_key_the_question_stays_open(path: Path, tmp_path: Path) -> None:
    other = load_signer(tmp_path / "other.key")
    for trusted in ([], [other.verifier]):
        found = verify_log(path, trusted=trusted)
        assert found.verdict is Verdict.INCONCLUSIVE
        assert outcomes(found)["signature"] == "SKIP"
        assert found.sealed == 0


def flips(raw: sqlite3.Connection) -> list[tuple[str, int, str, int, int]]:
    """Every byte of every value of every row: table, rowid, column, byte, bit."""
    found = []
    for table, columns in COLUMNS.items():
        for column in columns:
            rows = raw.execute(
                f"SELECT rowid, typeof({column}), length(CAST({column} AS BLOB)) FROM {table}"
            ).fetchall()
            for rowid, kind, length in rows:
                if kind == "null":
                    continue
                count = 8 if kind == "integer" else length
                found += [(table, rowid, column, byte, byte % 8) for byte in range(count)]
    return found


def flip(raw: sqlite3.Connection, table: str, rowid: int, column: str, byte: int, bit: int) -> None:
    value = raw.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (rowid,)).fetchone()[0]
    if isinstance(value, int):
        whole = bytearray(value.to_bytes(8, "little", signed=True))
        whole[byte] ^= 1 << bit
        changed: object = int.from_bytes(whole, "little", signed=True)
    else:
        whole = bytearray(value.encode() if isinstance(value, str) else value)
        whole[byte] ^= 1 << bit
        changed = bytes(whole)
    text = isinstance(value, str)
    assignment = f"{column} = CAST(? AS TEXT)" if text else f"{column} = ?"
    raw.execute(f"UPDATE {table} SET {assignment} WHERE rowid = ?", (changed, rowid))


def test_every_flipped_byte_of_every_row_is_noticed(path: Path, signer: Signer) -> None:
    raw, triggers = unprotected(path)
    every = flips(raw)
    assert len(every) > 2000
    missed: list[object] = []
    refused = 0
    for each in every:
        raw.execute("BEGIN")
        try:
            flip(raw, *each)
            for statement in triggers:
                raw.execute(statement)
            if judge(raw, signer) is not Verdict.BROKEN:
                missed.append(each)
        except sqlite3.IntegrityError:
            refused += 1  # a key that is there already: SQLite itself does not take it
        raw.execute("ROLLBACK")
    raw.close()
    assert missed == []
    assert refused < 10


def judge(raw: sqlite3.Connection, signer: Signer) -> Verdict:
    try:
        return verify(FileEvidence(raw, str(path)), trusted=[signer.verifier]).verdict
    except (ValueError, TypeError, sqlite3.Error):  # as verify_log: it cannot be read
        return Verdict.BROKEN


def dump(path: Path) -> list[tuple[object, ...]] | None:
    """All that a reader can see, or None if it cannot be read."""
    seen: list[tuple[object, ...]] = []
    try:
        raw = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            for name in ("sqlite_schema", *COLUMNS):
                columns = ", ".join(
                    f"typeof({each}), CAST({each} AS BLOB)"
                    for each in COLUMNS.get(name, ["type", "name", "tbl_name", "sql"])
                )
                seen += raw.execute(f"SELECT rowid, {columns} FROM {name} ORDER BY rowid")
        finally:
            raw.close()
    except sqlite3.Error:
        return None
    return seen


def test_flipped_bytes_of_the_file(path: Path, signer: Signer) -> None:
    """Every eleventh byte of the file, whatever it is part of: header, trees, rows, free space."""
    original = path.read_bytes()
    honest = dump(path)
    counts = {"noticed": 0, "no log any more": 0, "nothing changed": 0}
    for at in range(0, len(original), 11):
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([original[at] ^ (1 << at % 8)]))
        try:
            verdict = verify_log(path, trusted=[signer.verifier]).verdict
        except LogUnusable:
            counts["no log any more"] += 1
        else:
            if verdict is Verdict.BROKEN:
                counts["noticed"] += 1
            else:
                assert dump(path) == honest, f"byte {at} changed something and was not noticed"
                counts["nothing changed"] += 1
        with path.open("r+b") as file:
            file.seek(at)
            file.write(original[at : at + 1])
    assert all(counts.values()), counts
    assert verify_log(path, trusted=[signer.verifier]).verdict is Verdict.INTACT


SWAP = (
    "UPDATE event_record SET position = -2 WHERE position = 2",
    "UPDATE event_record SET position = 2 WHERE position = 4",
    "UPDATE event_record SET position = 4 WHERE position = -2",
)
INSERTED = (
    "INSERT INTO event_record SELECT 7, stream_id, 5, type_id, 'x', recorded_at_ns, NULL, NULL, "
    "NULL, data, NULL, zeroblob(32) FROM event_record WHERE position = 6"
)


@pytest.mark.parametrize(
    ("statements", "layer", "first_bad"),
    [
        (["DELETE FROM event_record WHERE position = 2"], "sequence", 2),
        (["DELETE FROM event_record WHERE position = 1"], "sequence", 1),
        (["DELETE FROM event_record WHERE position > 4"], "tree", 5),
        (["DELETE FROM event_record"], "tree", 1),
        (SWAP, "content", 2),
        ([INSERTED], "content", 7),
        (["UPDATE event_record SET position = 9 WHERE position = 6"], "sequence", 6),
        (["UPDATE event_record SET version = 7 WHERE position = 6"], "sequence", 6),
        (["UPDATE event_record SET data = '{}' WHERE position = 5"], "content", 5),
        (["UPDATE event_record SET documents = NULL WHERE position = 3"], "content", 3),
        (["UPDATE event_record SET documents = '[]' WHERE position = 3"], "content", 3),
        (["UPDATE event_record SET documents = '{' WHERE position = 3"], "content", 3),
        (["UPDATE event_record SET documents = ' ' || documents WHERE position = 3"], "content", 3),
        (["DELETE FROM documents WHERE body = x'31'"], "content", 2),
        (["UPDATE documents SET body = x'32' WHERE body = x'31'"], "content", 2),
        (["DELETE FROM stream WHERE id = 2"], "content", 2),
        (["UPDATE event_record SET leaf_hash = zeroblob(32) WHERE position = 5"], "tree", 4),
        (["UPDATE event_record SET leaf_hash = zeroblob(3) WHERE position = 5"], "tree", 4),
        (["UPDATE checkpoints SET root = zeroblob(32) WHERE size = 6"], "tree", 4),
        (["UPDATE checkpoints SET note = 'x' WHERE size = 3"], "signature", 3),
        (["DROP VIEW events"], "file", None),
        (["CREATE TABLE more (x)"], "file", None),
        (["DROP VIEW events", "CREATE VIEW events AS SELECT 1"], "file", None),
    ],
)
def test_what_somebody_without_the_key_does_is_noticed(
    path: Path, signer: Signer, statements: list[str], layer: str, first_bad: int | None
) -> None:
    alter(path, *statements)
    found = verify_log(path, trusted=[signer.verifier])
    assert found.verdict is Verdict.BROKEN
    assert outcomes(found)[layer] == "FAIL", found
    bad = {each.layer: each.first_bad for each in found.findings}
    assert bad[layer] == first_bad


def rewrite(path: Path, position: int, data: str) -> None:
    """Change an event and compute its leaf hash anew, as the format's description allows."""
    raw, triggers = unprotected(path)
    raw.execute("UPDATE event_record SET data = ? WHERE position = ?", (data, position))
    for stored in FileEvidence(raw, str(path)).events(10**9):
        digests = raw.execute(
            "SELECT digest FROM event_documents WHERE position = ? ORDER BY ordinal",
            (stored.position,),
        )
        fields = (*stored.fields, *(digest.encode() for (digest,) in digests))
        leaf = hash_leaf(encode_fields(fields))
        raw.execute(
            "UPDATE event_record SET leaf_hash = ? WHERE position = ?", (leaf, stored.position)
        )
    for statement in triggers:
        raw.execute(statement)
    raw.close()


def reseal(path: Path, signer: Signer) -> None:
    """Replace all checkpoints by such of the rows as they are now."""
    raw, triggers = unprotected(path)
    sizes = {row[0] for row in raw.execute("SELECT size FROM checkpoints")}
    raw.execute("DELETE FROM checkpoints")
    frontier = Frontier()
    for (leaf,) in raw.execute("SELECT leaf_hash FROM event_record ORDER BY position").fetchall():
        frontier.append(leaf)
        if frontier.size in sizes:
            told = Checkpoint(origin=signer.name, size=frontier.size, root=frontier.root())
            row = (told.size, told.root, b"".join(frontier.peaks), signer.sign(told), 0)
            raw.execute("INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?)", row)
    for statement in triggers:
        raw.execute(statement)
    raw.close()


def test_a_rewritten_history_without_the_key(path: Path, signer: Signer) -> None:
    rewrite(path, 2, '{"n":99}')
    found = verify_log(path, trusted=[signer.verifier])
    assert outcomes(found)["content"] == "PASS"
    assert outcomes(found)["tree"] == "FAIL"
    assert found.first_bad == 1  # some event from 1 to 3: the first checkpoint covers those


def test_a_rewritten_history_sealed_with_another_key(
    path: Path, signer: Signer, tmp_path: Path
) -> None:
    rewrite(path, 2, '{"n":99}')
    reseal(path, load_signer(tmp_path / "other.key"))
    found = verify_log(path, trusted=[signer.verifier])
    assert found.verdict is Verdict.INCONCLUSIVE
    signature = next(each for each in found.findings if each.layer == "signature")
    assert "or the log was made anew" in signature.text


def test_a_rewritten_history_with_the_stolen_key(path: Path, signer: Signer) -> None:
    kept_elsewhere = pinned_now(path, signer)
    rewrite(path, 2, '{"n":99}')
    reseal(path, signer)

    alone = verify_log(path, trusted=[signer.verifier])
    assert alone.verdict is Verdict.INTACT  # nothing in the file can tell, and this is said:
    history = next(each for each in alone.findings if each.layer == "history")
    assert history.outcome is Outcome.SKIP
    assert "whoever has the signing key could have rewritten everything" in history.text
    assert any("whoever has the signing key did not rewrite" in each for each in alone.unproven)

    found = verify_log(path, trusted=[signer.verifier], pinned=[kept_elsewhere])
    assert found.verdict is Verdict.BROKEN
    assert outcomes(found)["history"] == "FAIL"


@pytest.mark.parametrize(
    "cut",
    [
        ["DELETE FROM event_record WHERE position > 3", "DELETE FROM checkpoints WHERE size > 3"],
        ["DELETE FROM event_record", "DELETE FROM checkpoints"],
    ],
)
def test_a_log_that_was_rolled_back(path: Path, signer: Signer, cut: list[str]) -> None:
    kept_elsewhere = pinned_now(path, signer)
    alter(path, *cut)

    alone = verify_log(path, trusted=[signer.verifier])
    assert alone.verdict is not Verdict.BROKEN  # an older copy is a good log, and this is said:
    assert any("was cut off" in each for each in alone.unproven)

    found = verify_log(path, trusted=[signer.verifier], pinned=[kept_elsewhere])
    assert found.verdict is Verdict.BROKEN
    assert "cut or rolled back" in next(e.text for e in found.findings if e.layer == "history")


def test_what_no_checkpoint_covers_is_said(path: Path, signer: Signer) -> None:
    digest = "sha256:" + hashlib.sha256(b"new").hexdigest()
    alter(
        path,
        "UPDATE documents SET media_type = 'text/html'",
        "UPDATE checkpoints SET sealed_at_ns = 0",
        f"INSERT INTO documents VALUES ('{digest}', 'text/plain', CAST('new' AS BLOB))",
    )
    found = verify_log(path, trusted=[signer.verifier])
    assert found.verdict is Verdict.INTACT
    assert found.unproven[-1] == (
        "Media types of documents, documents that no event names, and times of sealing."
    )


@pytest.mark.parametrize(
    ("versions", "wrong"),
    [
        ([(1, 1, 1), (1, 2, 3), (2, 1, 2)], []),
        ([(1, 2, 4)], [4]),
        ([(1, 1, 1), (1, 3, 5)], [5]),
        ([(1, 1, 1), (1, 1, 2)], [2]),
        ([(1, 1, 4), (1, 2, 2)], [2]),  # the later version comes first
        ([(1, 1, 1), (2, 2, 2)], [2]),
    ],
)
def test_versions_of_a_stream(versions: list[tuple[int, int, int]], wrong: list[int]) -> None:
    assert [position for position, _ in wrong_versions(iter(versions))] == wrong


async def test_the_checkpoint_of_another_log_settles_nothing(
    path: Path, signer: Signer, tmp_path: Path
) -> None:
    other = load_signer(tmp_path / "other.key")
    await write(tmp_path / "other.db", other, 4, tag="other")
    found = verify_log(
        path, trusted=[signer.verifier], pinned=[pinned_now(tmp_path / "other.db", other)]
    )
    history = next(each for each in found.findings if each.layer == "history")
    assert history.outcome is Outcome.SKIP
    assert other.name in history.text


async def test_a_log_is_verified_while_it_is_written(tmp_path: Path, signer: Signer) -> None:
    path = tmp_path / "events.db"
    async with open_log(path, seal=SealPolicy(signer=signer, events=2)) as log:
        for number in range(40):
            await log.append("s", [NewEvent(type="t", data={"n": number})], expected=ANY)
            if number % 10 == 9:
                found = verify_log(path, trusted=[signer.verifier])
                assert found.verdict is not Verdict.BROKEN
                assert found.head == number + 1
    assert verify_log(path, trusted=[signer.verifier]).sealed == 40


@pytest.mark.parametrize("how_many", [255, 256, 257, 600])
async def test_logs_longer_than_a_chunk(tmp_path: Path, signer: Signer, how_many: int) -> None:
    path = tmp_path / "events.db"
    async with open_log(path, seal=SealPolicy(signer=signer, events=7)) as log:
        events = [NewEvent(type="t", data={"n": number}) for number in range(how_many)]
        for begin, end in pairwise([*range(0, how_many, 50), how_many]):
            await log.append(f"s{begin % 3}", events[begin:end], expected=ANY)
    found = verify_log(path, trusted=[signer.verifier])
    assert (found.verdict, found.sealed) == (Verdict.INTACT, how_many)
    alter(path, f"DELETE FROM event_record WHERE position = {how_many - 1}")
    assert verify_log(path, trusted=[signer.verifier]).first_bad is not None


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda path: None, LogNotFound),
        (lambda path: path.write_bytes(b""), LogUnusable),
        (lambda path: path.write_bytes(b"x" * 5000), LogUnusable),
    ],
)
def test_what_is_no_log(
    tmp_path: Path, make: Callable[[Path], object], error: type[Exception]
) -> None:
    make(tmp_path / "events.db")
    with pytest.raises(error):
        verify_log(tmp_path / "events.db")


def test_a_tree_that_leads_back_to_where_one_was_is_no_endless_walk(
    path: Path, signer: Signer
) -> None:
    raw = sqlite3.connect(path)
    page_bytes = raw.execute("PRAGMA page_size").fetchone()[0]
    (root,) = raw.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'documents'").fetchone()
    raw.close()
    contents = bytearray(path.read_bytes())
    page = memoryview(contents)[(root - 1) * page_bytes : root * page_bytes]
    # Source: sqlite.org/fileformat2.html, 1.6: a leaf's header, then where its cells are. A cell
    # begins with the length of its payload and the rowid.
    assert page[0] == 0x0D
    assert int.from_bytes(page[3:5], "big") == 2
    second = int.from_bytes(page[10:12], "big")
    rowid = second + (2 if page[second] & 0x80 else 1)
    assert page[rowid] == 2
    page[rowid] = 1
    page.release()
    path.write_bytes(contents)
    with pytest.raises(LogUnusable, match=r"document \(1,\) follows \(1,\): a tree is damaged"):
        verify_log(path, trusted=[signer.verifier])
