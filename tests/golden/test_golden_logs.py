"""Logs that older programs wrote: they open, verify, replay and migrate for ever.

``log_v1.db``: 43 events of a service that started, ran four sandboxes and stopped, sealed thrice.
``log_v2.db``: the same events in a log of schema version 2.
``unknown_type_v1.db``: the same with an event of a newer program at position 21.
"""

import shutil
import sqlite3
from pathlib import Path

import pytest

from eventstore import (
    ANY,
    NewEvent,
    Outcome,
    Verdict,
    load_verifier,
    open_checkpoint,
    open_log,
    read_checkpoint,
    verify_log,
)
from manager.domain.exit_status import Exited
from manager.schema.events import UnknownEventType
from manager.schema.node_fold import NodeFold
from manager.schema.node_snapshot import open_fold

LOGS = Path(__file__).parent / "logs"
KEY = LOGS / "log.pub"
CHECKPOINT = LOGS / "log_v1.checkpoint"
SERVICE = ("log_v1.db", "log_v2.db")
LOGS_BY_NAME = (*SERVICE, "unknown_type_v1.db")


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


@pytest.mark.parametrize("name", LOGS_BY_NAME)
def test_an_old_log_verifies_where_it_lies(name: str) -> None:
    before = names(LOGS)

    found = verify_log(LOGS / name, trusted=[load_verifier(KEY)])

    assert found.verdict is Verdict.INTACT, found.findings
    assert found.sealed == found.head
    assert names(LOGS) == before


@pytest.mark.parametrize("name", SERVICE)
def test_an_old_log_extends_the_checkpoint_that_was_kept_of_it(name: str) -> None:
    kept = open_checkpoint(CHECKPOINT.read_bytes(), [load_verifier(KEY)])
    assert kept == read_checkpoint(CHECKPOINT.read_bytes())

    found = verify_log(LOGS / name, trusted=[load_verifier(KEY)], pinned=[kept])

    assert {each.layer: each.outcome for each in found.findings}["history"] is Outcome.PASS


@pytest.mark.parametrize("name", SERVICE)
async def test_an_old_log_is_read_as_it_is(name: str) -> None:
    before = names(LOGS)

    async with open_log(LOGS / name, read_only=True) as log:
        records = [record async for record in log.read()]
        digests = {digest for record in records for digest in record.documents}
        for digest in digests:
            assert (await log.document(digest)).digest == digest

    assert [record.position for record in records] == list(range(1, 44))
    assert len(digests) == 5
    assert records[30].type == "container.exited"
    assert names(LOGS) == before


@pytest.mark.parametrize("name", SERVICE)
async def test_an_old_log_is_migrated_and_goes_on(tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copy(LOGS / name, tmp_path / "events.db"))
    async with open_log(LOGS / name, read_only=True) as log:
        before = [record async for record in log.read()]

    async with open_log(copy) as log:
        assert [record async for record in log.read()] == before
        (added,) = await log.append("s", [NewEvent(type="t", data=b"{}")], expected=ANY)

    assert added.position == 44
    found = verify_log(copy, trusted=[load_verifier(KEY)])
    assert found.verdict is Verdict.INTACT, found.findings
    assert (found.sealed, found.head) == (43, 44)
    raw = sqlite3.connect(copy)
    assert raw.execute("PRAGMA user_version").fetchone() == (2,)
    raw.close()


@pytest.mark.parametrize("name", SERVICE)
async def test_an_old_log_replays_to_what_was_there(name: str) -> None:
    fold = await folded(LOGS / name)

    assert sorted(fold.live) == ["fails", "web"]
    assert {key: each.state.phase for key, each in fold.live.items()} == {
        "fails": "stopped",
        "web": "stopped",
    }
    assert fold.live["fails"].state.containers["fails"].exit == Exited(code=3)
    assert set(fold.live["web"].state.containers) == {"web", "side"}


@pytest.mark.parametrize("migrated", [False, True])
async def test_an_event_of_a_newer_program_stops_a_strict_reader_with_its_position(
    tmp_path: Path, migrated: bool
) -> None:
    path = Path(shutil.copy(LOGS / "unknown_type_v1.db", tmp_path / "events.db"))
    if migrated:
        async with open_log(path):
            pass

    with pytest.raises(UnknownEventType, match=r"container\.teleported") as caught:
        await folded(path)

    assert caught.value.position == 21
    assert str(caught.value).startswith("#21: ")


async def folded(path: Path) -> NodeFold:
    async with open_log(path, read_only=True) as log:
        return await open_fold(log, None)
