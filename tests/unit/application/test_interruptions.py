"""What was under way when the manager, the worker's connection or the log went away."""

from typing import Any

import anyio
import pytest

from eventstore import StoreFull, StorePoisoned
from manager.application.errors import CallRefused, NotRecorded
from manager.application.exec_arguments import ExecArguments
from manager.application.exec_calls import ExecCalls
from manager.domain import commands as c
from manager.domain.payload import LaunchPlan
from manager.schema import worker as w
from manager.urpc.fds import FdBundle
from tests.unit.application.conftest import PlainDescriptors, World
from tests.unit.application.test_calls import Donate, arguments, start_sub, started


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manager.application.recording.RECORD_RETRY_PAUSES_S", (0.0,))
    monkeypatch.setattr("manager.application.worker_link.RECONNECT_PAUSES_S", (0.0,))


class Refusing:
    """An append that refuses while told to."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: Exception | None = None
        self.refused = anyio.Event()
        self._append = world.log.append
        monkeypatch.setattr(world.log, "append", self.append)

    async def append(self, *args: Any, **how: Any) -> Any:
        if (error := self.error) is not None:
            self.refused.set()
            await anyio.lowlevel.checkpoint()
            raise error
        return await self._append(*args, **how)


async def test_a_pause_outlives_its_manager(world: World, donate: Donate) -> None:
    async with world.manager() as (_, calls):
        await started(calls, donate)
        world.worker.deaf_to_freezes = True
        with anyio.move_on_after(0.05):
            await calls.pause("sb", calls.origin(None))
        assert calls.state("sb").pausing is not None
    world.worker.deaf_to_freezes = False
    async with world.manager() as (_, calls):
        await calls.live("sb").until(lambda state: state.paused or None)
        await calls.pause("sb", calls.origin(None), paused=False)


async def test_a_worker_lost_while_there_is_no_room_is_replaced(
    world: World, donate: Donate, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Refusing(world, monkeypatch)
    async with world.manager() as (_, calls):
        await started(calls, donate)
        log.error = StoreFull("events.db")
        world.worker.die()
        await log.refused.wait()
        with pytest.raises(NotRecorded, match="no space left"):
            await calls.create("s2", arguments("s2"), donate(), calls.origin(None))
        log.error = None
        with pytest.raises(CallRefused, match='container "sb" is lost'):
            await calls.wait("sb", "sb")
    tags = await world.tags("node")
    assert (tags.count("worker.lost"), tags.count("recovery.completed")) == (1, 2)


async def test_a_log_that_has_failed_ends_the_service(
    world: World, donate: Donate, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Refusing(world, monkeypatch)
    with pytest.RaisesGroup(StorePoisoned, flatten_subgroups=True):
        async with world.manager() as (_, calls):
            log.error = StorePoisoned("events.db", "disk I/O error")
            with pytest.raises(NotRecorded, match="close the log and open it again"):
                await calls.create("sb", arguments("sb"), donate(), calls.origin(None))
            await anyio.sleep_forever()


async def test_a_stop_does_not_wait_for_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Refusing(world, monkeypatch)
    async with world.manager():
        log.error = StoreFull("events.db")
    log.error = None
    assert "manager.stopped" not in await world.tags("node")


async def test_what_could_not_be_done_is_recorded_when_there_is_room(
    world: World, donate: Donate, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Refusing(world, monkeypatch)

    def fail(_: PlainDescriptors, plan: LaunchPlan, files: FdBundle) -> FdBundle:
        files.close()
        log.error = StoreFull("events.db")
        raise OSError(24, "Too many open files")

    async with world.manager() as (_, calls):
        await started(calls, donate)
        await calls.create_subcontainer("sb", "c1", FdBundle(), calls.origin(None))
        monkeypatch.setattr(PlainDescriptors, "prepare", fail)
        async with anyio.create_task_group() as tasks:

            async def start() -> None:
                with pytest.raises(CallRefused, match="Too many open files"):
                    await calls.start_subcontainer(
                        "sb", arguments("c1"), donate(), calls.origin(None)
                    )

            tasks.start_soon(start)
            await log.refused.wait()
            log.error = None


async def test_outcomes_that_were_given_up_are_not_acknowledged(
    world: World, donate: Donate, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Refusing(world, monkeypatch)
    async with world.manager() as (node, calls):
        await started(calls, donate)
        await start_sub(calls, donate)
        log.error = StoreFull("events.db")
        node.link.leave()
        world.worker.exit(world.worker.launched[-1].launch_id, 9)
        await log.refused.wait()
        await anyio.wait_all_tasks_blocked()
        world.worker.put(w.Held(seq=world.worker.next_seq(), hold_id="any"))
        await anyio.wait_all_tasks_blocked()
        assert [type(each) for each in world.worker.unacknowledged()] == [w.Exited, w.Held]
        log.error = None
    async with world.manager() as (_, calls):
        assert await calls.wait("sb", "c1") == 9


async def test_nothing_is_settled_amid_a_start(world: World, donate: Donate) -> None:
    """A start that finds no worker says so before the next worker is asked what it knows."""
    async with world.manager() as (node, calls):
        await started(calls, donate)
        sandbox = calls.live("sb")
        async with sandbox._lock, anyio.create_task_group() as tasks:
            world.worker.drop_connection()
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(calls.create_subcontainer, "sb", "c1", FdBundle(), calls.origin(None))
            await anyio.wait_all_tasks_blocked()
            tags = await world.tags("node")
            assert tags.count("worker.started") == 2
            assert tags.count("recovery.completed") == 1
            # Whoever has the lock cannot wait for a worker that waits for the lock.
            assert await node.hold("fds-x", b"", donate()) != ""
            sandbox._lock.release()
            await calls.live("sb").until(lambda state: state.container("c1"))
            await sandbox._lock.acquire()


async def test_a_destroy_that_is_asked_for_again_ends_no_later_container(
    world: World, donate: Donate
) -> None:
    async with world.manager() as (_, calls):
        await started(calls, donate)
        await start_sub(calls, donate)
        await calls.destroy("sb", "c1", calls.origin(None), "r")
        await start_sub(calls, donate)
        await calls.destroy("sb", "c1", calls.origin(None), "r")
        assert calls.state("sb").containers["c1"].status == "running"


async def test_an_exec_is_answered_with_what_is_on_record(world: World, donate: Donate) -> None:
    async with world.manager() as (node, calls):
        await started(calls, donate)
        await start_sub(calls, donate)
        world.worker.deaf_to_execs = True
        sandbox = calls.live("sb")
        launch_id = world.worker.launched[-1].launch_id
        async with anyio.create_task_group() as tasks:

            async def execute() -> None:
                text = "interrupted: its container was destroyed"
                wanted = ExecArguments(cid="c1", argv=("id",))
                with pytest.raises(CallRefused, match=text):
                    await ExecCalls(calls).execute("sb", wanted, FdBundle(), calls.origin(None))

            tasks.start_soon(execute)
            await sandbox.until(lambda state: state.containers["c1"].executions or None)
            report = c.ReportDestroyed(launch_id=launch_id)
            await node.handle(sandbox, report, calls.origin(None))
