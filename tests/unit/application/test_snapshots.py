"""A manager that opens from a snapshot is the one that would have folded the whole log."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from eventstore import Snapshot, SnapshotFiles, memory_log, open_log
from eventstore.sqlite.log import SqliteLog
from manager.application import snapshot_keeper
from manager.application.arguments import StartArguments
from manager.application.calls import Calls
from manager.application.default_spec import default_spec
from manager.application.errors import CallRefused
from manager.application.node import Node
from manager.application.snapshot_keeper import Frontier, SnapshotKeeper
from manager.schema.node_fold import FoldedSandbox
from manager.schema.node_snapshot import node_snapshots, open_fold
from manager.schema.state_check import verify_states
from manager.urpc.fds import FdBundle
from tests.patience import PATIENCE_S
from tests.unit.application.conftest import World
from tests.unit.application.fake_worker import FakeWorker

Donate = Callable[[], FdBundle]


@pytest.fixture
def files(tmp_path: Path) -> SnapshotFiles:
    return node_snapshots(tmp_path)


@asynccontextmanager
async def a_manager(world: World, files: SnapshotFiles, events: int = 1) -> AsyncIterator[Calls]:
    async with world.manager(snapshots=files, snapshot_events=events) as (_, calls):
        yield calls


async def live(
    calls: Calls, sandbox_id: str, donate: Donate, containers: int = 1, request_id: str = ""
) -> None:
    """A sandbox of some containers, one of which has come and gone."""
    origin = calls.origin(None)
    spec = default_spec(args=["/bin/true"])
    await calls.create(
        sandbox_id, StartArguments(cid=sandbox_id, spec=spec, conf={}), donate(), origin
    )
    await calls.start_root(sandbox_id, origin, request_id=request_id)
    for number in range(containers):
        cid = f"{sandbox_id}-{number}"
        await calls.create_subcontainer(sandbox_id, cid, FdBundle(), origin)
        arguments = StartArguments(cid=cid, spec=spec, conf={})
        await calls.start_subcontainer(sandbox_id, arguments, donate(), origin)
    await calls.signal(sandbox_id, f"{sandbox_id}-0", 9, origin)
    await calls.destroy(sandbox_id, f"{sandbox_id}-0", origin)


def folded(node: Node) -> dict[str, FoldedSandbox]:
    return dict(node.registry.folded())


async def test_a_snapshot_is_left_at_stop_and_opened_at_start(
    world: World, files: SnapshotFiles, donate: Donate
) -> None:
    async with a_manager(world, files) as calls:
        await live(calls, "s1", donate)
        await live(calls, "s2", donate)
        await calls.delete("s1", calls.origin(None), force=True)
    head = await world.log.head()
    assert files.positions()[0] == head
    async with world.manager(snapshots=files) as (node, calls):
        whole = await open_fold(world.log, None, until=head)
        assert {key: each.state for key, each in whole.live.items()} == {
            state.id: state for state in calls.sandboxes()
        }
        assert [state.id for state in calls.sandboxes()] == ["s2"]
        assert folded(node) == (await open_fold(world.log, None)).live


async def test_what_a_snapshot_holds_is_acted_upon(
    world: World, files: SnapshotFiles, donate: Donate
) -> None:
    """The worker's reports find their sandbox, and events belong to the request of their intent."""
    async with a_manager(world, files) as calls:
        await live(calls, "s1", donate, containers=2)
    async with a_manager(world, files) as calls:
        launch = world.worker.launched[-1]
        world.worker.exit(launch.launch_id, 7 << 8)
        assert await calls.wait("s1", "s1-1") == 7 << 8
    records = [record async for record in world.log.read("sandbox-s1")]
    accepted = [each for each in records if each.type == "container.start_accepted"][-1]
    assert records[-1].type == "container.exited"
    assert records[-1].correlation_id == accepted.correlation_id
    assert records[-1].causation == accepted.position


async def test_a_deleted_sandbox_remembers_its_requests_across_a_snapshot(
    world: World, files: SnapshotFiles, donate: Donate
) -> None:
    async with a_manager(world, files) as calls:
        await live(calls, "s1", donate, request_id="start")
        await calls.delete("s1", calls.origin(None), force=True)
    async with a_manager(world, files) as calls:
        await live(calls, "s1", donate)
        with pytest.raises(CallRefused, match=r"used for StartRoot of .s1. before"):
            await calls.destroy("s1", "s1-0", calls.origin(None), request_id="start")
    async with world.manager(snapshots=files) as (node, _):
        assert folded(node) == (await open_fold(world.log, None)).live


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "remove", "stale"])
async def test_a_damaged_snapshot_costs_time_and_nothing_else(
    world: World, files: SnapshotFiles, donate: Donate, damage: str
) -> None:
    async with a_manager(world, files) as calls:
        await live(calls, "s1", donate)
    for position in files.positions():
        path = files.path(position)
        body = bytearray(path.read_bytes())
        body[-1] ^= 1
        match damage:
            case "flip":
                path.write_bytes(body)
            case "cut":
                path.write_bytes(body[:-10])
            case "empty":
                path.write_bytes(b"")
            case "remove":
                path.unlink()
            case _:
                path.rename(path.with_name(path.name.replace("node-", "node-0000")))
    async with world.manager(snapshots=files) as (node, _):
        assert folded(node) == (await open_fold(world.log, None)).live
        assert node.registry.get("s1") is not None
        assert files.positions() == []


async def test_snapshots_that_cannot_be_written_hold_nobody_up(
    world: World, tmp_path: Path, donate: Donate, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "snapshots").write_text("in the way")
    async with a_manager(world, node_snapshots(tmp_path)) as calls:
        await live(calls, "s1", donate)
    assert "snapshot.not_written" in caplog.text


async def test_every_snapshot_under_load_is_what_the_log_says(
    tmp_path: Path, files: SnapshotFiles, donate: Donate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Appends of many sandboxes come back side by side; no snapshot is in between."""
    monkeypatch.setattr("eventstore.snapshots.SNAPSHOTS_OLDER_MAX", 1_000)
    worker = FakeWorker()
    async with open_log(tmp_path / "events.db") as log:
        assert isinstance(log, SqliteLog)
        world = World(log, worker)
        async with a_manager(world, files) as calls, anyio.create_task_group() as tasks:
            for number in range(24):
                tasks.start_soon(live, calls, f"s{number}", donate, 2)
        findings = (await verify_states(log, files)).snapshots
    worker.close()
    assert len(findings) > 3
    assert [finding for finding in findings if finding.problem] == []


async def test_a_snapshot_that_differs_from_the_log_is_found(
    world: World, files: SnapshotFiles, donate: Donate
) -> None:
    async with a_manager(world, files) as calls:
        await live(calls, "s1", donate)
        await live(calls, "s2", donate)
    position = files.positions()[0]
    good = files.load(position)
    fold = await open_fold(world.log, None, until=position)
    del fold.live["s1"]
    from msgspec.structs import replace

    from manager.schema.node_snapshot import encode_sandboxes

    files.save(replace(good, body=encode_sandboxes(fold.live.items())))
    assert (await verify_states(world.log, files)).snapshots[-1].problem == (
        "other states than the log's: sandboxes s1"
    )
    files.save(replace(good, body=b"what"))
    assert "cannot be understood" in (await verify_states(world.log, files)).snapshots[-1].problem
    files.save(replace(good, position=position + 10))
    assert "the log ends" in (await verify_states(world.log, files)).snapshots[-1].problem
    files.path(position + 10).unlink()
    files.path(position).write_bytes(b"what")
    assert "damaged" in (await verify_states(world.log, files)).snapshots[-1].problem


async def test_a_tail_that_crashes_left_behind_is_written_soon(
    world: World, files: SnapshotFiles, donate: Donate
) -> None:
    """A manager that is killed again and again before its first snapshot must not go on so."""
    async with world.manager() as (_, calls):
        await live(calls, "s1", donate)
    tail = await world.log.head()
    async with world.manager(snapshots=files, snapshot_events=tail) as (_, calls):
        with anyio.fail_after(PATIENCE_S):
            while not files.positions():
                await anyio.sleep(0)
    async with world.manager(snapshots=files, snapshot_events=10_000) as (node, _):
        assert node.registry.snapshot_position >= tail


# --- when one is written -------------------------------------------------------------------------


class Saved:
    """Stands for a directory of snapshots."""

    def __init__(self) -> None:
        self.positions: list[int] = []

    def save(self, snapshot: Snapshot) -> None:
        self.positions.append(snapshot.position)


async def records(count: int) -> list[object]:
    from eventstore import ANY, NewEvent

    async with memory_log() as log:
        for _ in range(count):
            await log.append("s", [NewEvent(type="t", data={})], expected=ANY)
        return [record async for record in log.read()]


async def test_states_between_two_records_are_at_no_position() -> None:
    first, second, third = await records(3)
    frontier = Frontier(0)
    frontier.note(first)
    assert (frontier.whole, frontier.position) == (True, 1)
    frontier.note(third)
    assert (frontier.whole, frontier.position) == (False, 3)
    frontier.note(second)
    assert (frontier.whole, frontier.position) == (True, 3)
    assert frontier.leaf_hash == third.leaf_hash


@pytest.mark.parametrize(
    ("came", "every", "expected"),
    [(0, 1, []), (1, 1, [1]), (5, 1_000, []), (5, 6, []), (5, 5, [5]), (5, 3, [5])],
)
async def test_at_stop_one_is_written_if_that_is_worth_it(
    came: int, every: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_keeper, "SNAPSHOT_STOP_EVENTS", 500)
    saved, frontier = Saved(), Frontier(0)
    keeper = SnapshotKeeper(saved, every, frontier, list, 0)  # type: ignore[arg-type]  # no more of it is used
    for record in await records(came):
        frontier.note(record)
    await keeper.stop()
    assert saved.positions == expected


async def test_none_is_written_while_the_states_are_not_whole() -> None:
    first, second, third = await records(3)
    saved, frontier = Saved(), Frontier(0)
    keeper = SnapshotKeeper(saved, 1, frontier, list, 0)  # type: ignore[arg-type]  # no more of it is used
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keeper.run)
        await anyio.wait_all_tasks_blocked()
        frontier.note(second)
        await anyio.wait_all_tasks_blocked()
        await keeper.stop()
        assert saved.positions == []
        frontier.note(first)
        with anyio.fail_after(PATIENCE_S):
            while saved.positions != [2]:
                await anyio.sleep(0)
        tasks.cancel_scope.cancel()
    frontier.note(third)
    await keeper.stop()
    assert saved.positions == [2, 3]
