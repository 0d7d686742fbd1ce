"""Executed processes over the in-memory log and the fake worker."""

import pytest

from manager.application.errors import CallRefused
from manager.application.exec_arguments import ExecArguments
from manager.application.exec_calls import ExecCalls
from manager.urpc.fds import FdBundle
from tests.unit.application.conftest import World
from tests.unit.application.test_calls import Donate, started

SECRET = "hunter2-is-my-secret"


def asked(request_id: str = "") -> ExecArguments:
    env = ("PATH=/bin", f"TOKEN={SECRET}", "A=1", "A=2")
    return ExecArguments(cid="sb", argv=("id",), env=env, request_id=request_id)


async def test_a_life_is_on_record_without_values(world: World, donate: Donate) -> None:
    async with world.manager() as (node, calls):
        await started(calls, donate)
        execs = ExecCalls(calls)
        pid = await execs.execute("sb", asked("r"), FdBundle(), calls.origin(None))
        again = await execs.execute("sb", asked("r"), FdBundle(), calls.origin(None))
        assert (pid, again, len(world.worker.executed)) == (2, 2, 1)
        assert node.living() > {world.worker.running[world.worker.launched[0].launch_id].pid}
        world.worker.end(world.worker.executed[0], 3 << 8)
        assert await execs.wait_pid("sb", "sb", pid) == 3 << 8
        sandbox = node.registry.get("sb")
        assert sandbox is not None
        assert world.worker.executed[0].exec_id not in sandbox.folded.origins
    assert world.worker.executed[0].process.env == ("PATH=/bin", f"TOKEN={SECRET}", "A=2")
    tags = await world.tags("sandbox-sb")
    assert tags[-3:] == ["process.exec_accepted", "process.executed", "process.exited"]
    bodies = [bytes(record.data) async for record in world.log.read()]
    assert not any(SECRET.encode() in body for body in bodies)


async def test_a_refusal_is_on_record(world: World, donate: Donate) -> None:
    async with world.manager() as (_, calls):
        await started(calls, donate)
        nowhere = ExecArguments(cid="nix", argv=("id",))
        with pytest.raises(CallRefused, match='container "nix" not found'):
            await ExecCalls(calls).execute("sb", nowhere, FdBundle(), calls.origin(None))
    assert (await world.tags("sandbox-sb"))[-1] == "process.exec_rejected"


async def test_a_probe_leaves_nothing(world: World, donate: Donate) -> None:
    async with world.manager() as (_, calls):
        await started(calls, donate)
        before = await world.tags("sandbox-sb")
        await ExecCalls(calls).probe("sb", "sb")
        with pytest.raises(CallRefused, match='container "nix" PID 0: no such process'):
            await ExecCalls(calls).probe("sb", "nix")
        assert await world.tags("sandbox-sb") == before


async def test_a_worker_that_forgot_it_has_lost_it(world: World, donate: Donate) -> None:
    async with world.manager() as (_, calls):
        await started(calls, donate)
        execs = ExecCalls(calls)
        pid = await execs.execute("sb", asked(), FdBundle(), calls.origin(None))
        world.worker.die()
        with pytest.raises(CallRefused, match=f"exit status of process {pid} is lost"):
            await execs.wait_pid("sb", "sb", pid)
