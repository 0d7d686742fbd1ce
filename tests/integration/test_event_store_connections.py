"""How the store uses SQLite: which connections it opens, how often it goes to their threads."""

import sqlite3
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import anyio
import pytest

from eventstore import ANY, NO_STREAM, Exactly, NewEvent, WrongExpectedVersion, open_log
from eventstore.sqlite.connection import Connection
from eventstore.sqlite.log import SqliteLog
from eventstore.sqlite.read_log import SqliteReadLog
from tests.integration.event_store_processes import child

EVERYTHING = """
import sys
from pathlib import Path

path = Path(sys.argv[1])

def note(event, arguments):
    if event == "sqlite3.connect" and path.name in str(arguments[0]):
        print(arguments[0], flush=True)

sys.addaudithook(note)

import anyio
from eventstore import *

async def main():
    signer = load_signer(path.parent / "log.key")
    async with open_log(path, seal=SealPolicy(signer=signer, events=2)) as log:
        for _ in range(5):
            await log.append("s", [NewEvent(type="t", data={})], expected=ANY)
        assert [record.position async for record in log.read(backwards=True)] == [5, 4, 3, 2, 1]
        async with log.subscribe() as records, open_log(path, read_only=True) as reader:
            assert (await anext(records)).position == 1
            assert await reader.head() == 5
        copy_log(path, path.parent / "copy")
    verify_log(path)
    newest_note(path)
    prove_events(path, [1])

anyio.run(main)
print("done")
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


def count_hops(monkeypatch: pytest.MonkeyPatch, connection: Connection) -> list[int]:
    """Count from now on; the one number in the list is how many there were."""
    hops = [0]
    run = connection.run

    async def counted(job: Callable[[sqlite3.Connection], object]) -> object:
        hops[0] += 1
        return await run(job)

    monkeypatch.setattr(connection, "run", counted)
    return hops


def test_of_all_connections_one_can_write(path: Path) -> None:
    with child(EVERYTHING, path) as program:
        assert program.stdout is not None
        *opened, last = program.stdout.read().splitlines()

    assert last == "done"
    assert [each for each in opened if "mode=ro" not in each] == [f"file:{path}?mode=rw"]
    assert len(opened) > 5


async def test_appends_that_wait_together_take_one_hop(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_log(path) as log:
        assert isinstance(log, SqliteLog)
        hops = count_hops(monkeypatch, log._connection)
        async with anyio.create_task_group() as tasks:
            for number in range(300):
                event = NewEvent(type="t", data={"n": number})
                tasks.start_soon(lambda event=event: log.append("s", [event], expected=ANY))
        assert hops == [1]
        assert await log.head() == 300


async def test_each_append_of_a_batch_is_decided_by_those_before_it(path: Path) -> None:
    outcomes: dict[str, object] = {}

    async def append(name: str, expected: Exactly | None) -> None:
        try:
            demand = NO_STREAM if expected is None else expected
            outcomes[name] = await log.append("s", [NewEvent(type=name, data={})], expected=demand)
        except WrongExpectedVersion as error:
            outcomes[name] = error.actual

    async with open_log(path) as log:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(append, "first", None)
            tasks.start_soon(append, "late", None)
            tasks.start_soon(append, "second", Exactly(1))
            tasks.start_soon(append, "early", Exactly(3))
        stored = [record.type async for record in log.read()]
    assert stored == ["first", "second"]
    assert (outcomes["late"], outcomes["early"]) == (1, 2)


async def test_no_index_has_its_keys_in_random_order(path: Path) -> None:
    async with open_log(path) as log:
        await log.append("s", [NewEvent(type="t", data={})], expected=NO_STREAM)
    raw = sqlite3.connect(path)
    indexed = {
        tuple(column[2] for column in raw.execute(f"PRAGMA index_info({index[1]})"))
        for index in raw.execute("PRAGMA index_list(event_record)")
    }
    raw.close()
    assert indexed == {("stream_id", "version")}


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("stream", [None, "s"])
async def test_a_short_read_takes_one_hop(
    path: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool, stream: str | None
) -> None:
    async with open_log(path) as log:
        for _ in range(2):
            await log.append("s", [NewEvent(type="t", data={}) for _ in range(50)], expected=ANY)
        async with open_log(path, read_only=True) if read_only else nullcontext(log) as reader:
            assert isinstance(reader, (SqliteLog, SqliteReadLog))
            hops = count_hops(monkeypatch, reader._reads._opened.connection)
            assert len([record async for record in reader.read(stream)]) == 100
            assert hops == [1]
