"""The logs that benchmarks are run on are logs that a manager could have written."""

from pathlib import Path

import pytest

from benchmarks.make_log import make_log
from eventstore import RecordedEvent, open_log
from manager.domain.state import ALIVE
from manager.schema.node_snapshot import open_fold

EVENTS = 4_500
LIVE = 20
KINDS = {
    *("manager.started", "sandbox.created", "sandbox.started", "sandbox.stopped"),
    *("sandbox.deleted", "container.created", "container.start_accepted", "container.started"),
    *("container.start_rejected", "container.signal_sent", "container.signal_rejected"),
    *("container.exited", "container.destroyed"),
}


async def read(path: Path) -> list[RecordedEvent]:
    async with open_log(path, read_only=True) as log:
        return [record async for record in log.read()]


async def test_it_has_the_wanted_size_and_the_wanted_end(tmp_path: Path) -> None:
    path = tmp_path / "made.db"
    await make_log(path, events=EVENTS, live=LIVE)
    async with open_log(path, read_only=True) as log:
        fold = await open_fold(log, None)
    assert fold.position == EVENTS
    states = [folded.state for folded in fold.live.values()]
    assert {state.phase for state in states} == {"started"}
    containers = [found for state in states for found in state.containers.values()]
    assert sum(found.status in ALIVE for found in containers) == LIVE
    assert {found.status for found in containers} <= {"running", "destroyed"}
    assert all(not state.signals and not state.deleting for state in states)
    assert all(outcome.done for state in states for outcome in state.requests.values())


async def test_every_kind_of_life_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "made.db"
    await make_log(path, events=EVENTS, live=LIVE)
    seen = {record.type for record in await read(path)}
    assert seen >= KINDS


async def test_the_same_seed_gives_the_same_log(tmp_path: Path) -> None:
    for name, seed in (("one", 7), ("two", 7), ("three", 8)):
        await make_log(tmp_path / name, events=EVENTS, live=LIVE, seed=seed)
    first = await read(tmp_path / "one")
    assert first == await read(tmp_path / "two")
    assert first != await read(tmp_path / "three")


async def test_too_few_events_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 3400 events"):
        await make_log(tmp_path / "made.db", events=3_000, live=LIVE)
