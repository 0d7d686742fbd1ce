"""A manager finds that its log is older than what the worker has seen."""

from typing import Any

import anyio
import msgspec
import pytest

from eventstore import ANY, NewEvent, memory_log
from manager.application.calls import Calls
from manager.application.continuity import NO_TRACE, RESTORED, doubt_about
from manager.application.errors import CallRefused
from manager.domain.react import REBOOTED
from manager.schema import worker as w
from manager.urpc.fds import FdBundle
from tests.unit.application.conftest import World
from tests.unit.application.test_calls import Donate, arguments, start_sub, started


def welcome(mark: w.LogMark | None) -> w.Welcome:
    return w.Welcome(
        protocol=w.PROTOCOL_VERSION,
        worker=w.PidIdentity(pid=1, start_ticks=1, pidfd_inode=1, boot_id="boot"),
        kernel="6.18",
        engines=(),
        capabilities={},
        mark=mark,
    )


async def test_the_mark_is_looked_for_in_the_log() -> None:
    async with memory_log() as log:
        new = [NewEvent(type="x", data=b"{}", event_id=f"{n:036}") for n in (1, 2)]
        records = await log.append("node", new, expected=ANY)
        last = records[-1]
        mark = w.LogMark(position=2, leaf_hash=last.leaf_hash, boot_id="boot")
        assert await doubt_about(log, welcome(mark)) == ""
        for position, leaf_hash, boot_id, doubt in (
            (2, last.leaf_hash, "another", REBOOTED),
            (2, records[0].leaf_hash, "boot", RESTORED),
            (3, last.leaf_hash, "boot", RESTORED),
            (3, last.leaf_hash, "another", RESTORED),
        ):
            other = w.LogMark(position=position, leaf_hash=leaf_hash, boot_id=boot_id)
            assert await doubt_about(log, welcome(other)) == doubt
        assert await doubt_about(log, welcome(None)) == NO_TRACE


async def start_that_stays_under_way(world: World, calls: Calls, donate: Donate) -> str:
    await started(calls, donate)
    await calls.create_subcontainer("sb", "c1", FdBundle(), calls.origin(None))
    world.worker.silent = True
    with anyio.move_on_after(0.05):
        await calls.start_subcontainer("sb", arguments("c1"), donate(), calls.origin(None))
    return world.worker.launched[-1].launch_id


async def last_recovery(world: World) -> dict[str, Any]:
    records = [each async for each in world.log.read("node") if each.type == "recovery.completed"]
    found: dict[str, Any] = msgspec.json.decode(records[-1].data)
    return found


async def test_a_start_that_may_have_run_is_lost(world: World, donate: Donate) -> None:
    async with world.manager() as (_, calls):
        launch_id = await start_that_stays_under_way(world, calls, donate)
    world.worker.known.discard(launch_id)
    assert world.worker.mark is not None
    world.worker.mark = msgspec.structs.replace(world.worker.mark, position=10_000)
    async with world.manager() as (_, calls):
        assert calls.state("sb").containers["c1"].status == "lost"
        with pytest.raises(CallRefused, match=f'container "c1" is lost: {RESTORED}'):
            await calls.wait("sb", "c1")
    found = await last_recovery(world)
    assert (found["lost"], found["interrupted"], found["doubt"]) == ([launch_id], [], RESTORED)


async def test_a_start_that_is_over_for_the_worker_is_told_again(
    world: World, donate: Donate
) -> None:
    async with world.manager() as (_, calls):
        launch_id = await start_that_stays_under_way(world, calls, donate)
    world.worker.start(launch_id)
    world.worker._outbox.clear()  # acknowledged, by a manager whose records are gone
    world.worker.mark = None
    async with world.manager() as (_, calls):
        await calls.live("sb").until(
            lambda state: state.containers["c1"].status == "running" or None
        )
    found = await last_recovery(world)
    assert (found["lost"], found["doubt"]) == ([], NO_TRACE)


async def test_a_root_that_runs_and_was_not_started_is_ended(world: World, donate: Donate) -> None:
    async with world.manager() as (_, calls):
        await calls.create("sb", arguments("sb"), donate(), calls.origin(None))
        intent = calls.state("sb").containers["sb"].intent
        assert intent is not None
        world.worker.known.add(intent.launch_id)
        world.worker.start(intent.launch_id)
        world.worker._outbox.clear()
        world.worker.mark = None
    async with world.manager() as (_, calls):
        await calls.live("sb").until(lambda state: state.phase == "stopped" or None)
    assert (await last_recovery(world))["unknown"] == [intent.launch_id]
    assert world.worker.running == {}


async def test_what_was_acknowledged_lies_before_the_mark(world: World, donate: Donate) -> None:
    async with world.manager() as (node, calls):
        await started(calls, donate)
        await start_sub(calls, donate)
        await anyio.wait_all_tasks_blocked()
        mark = node.log_mark("boot")
        assert world.worker.mark == mark
        assert mark.position == await world.log.head()
