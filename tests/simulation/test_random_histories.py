"""Random calls, a worker that fails, managers that die: whatever happens, the log is the truth.

The application is the real one; the log is the in-memory one and the worker the fake one, so a seed
gives the same history every time. `make sim SEED=n` runs other seeds.
"""

import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventstore import RecordedEvent, memory_log
from manager.application.arguments import StartArguments
from manager.application.calls import Calls
from manager.application.default_spec import default_spec
from manager.application.errors import CallRefused, ManagerError
from manager.application.live_sandbox import LiveSandbox
from manager.application.node import Node
from manager.domain.events import Event
from manager.domain.evolve import fold
from manager.domain.state import Sandbox
from manager.schema import worker as w
from manager.schema.events import decode_event
from manager.schema.node_snapshot import node_snapshots
from manager.schema.state_check import verify_states
from manager.urpc.fds import FdBundle, OwnedFd
from tests.unit.application.conftest import World
from tests.unit.application.fake_worker import FakeWorker

FIRST_SEED = int(os.environ.get("SEED", "1"))
SEEDS = 12
STEPS = 60
SANDBOXES = ("s1", "s2")
CIDS = ("a", "b", "c")


def donate() -> FdBundle:
    flags = (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)
    bundle = FdBundle(OwnedFd(os.open(os.devnull, flag)) for flag in flags)
    bundle.append(OwnedFd(os.open("/", os.O_PATH | os.O_DIRECTORY)))
    return bundle


def arguments(cid: str) -> StartArguments:
    return StartArguments(cid=cid, spec=default_spec(args=["/bin/true"]), conf={})


class History:
    """One seed's story."""

    def __init__(self, seed: int, world: World) -> None:
        self.random = random.Random(seed)
        self.world = world
        self.worker = world.worker

    async def call(self, calls: Calls) -> None:
        """One client call, whatever comes of it."""
        sandbox, cid = self.random.choice(SANDBOXES), self.random.choice(CIDS)
        origin = calls.origin(None)
        actions = {
            "create": lambda: calls.create(sandbox, arguments(sandbox), donate(), origin),
            "start root": lambda: calls.start_root(sandbox, origin),
            "create sub": lambda: calls.create_subcontainer(sandbox, cid, FdBundle(), origin),
            "start sub": lambda: calls.start_subcontainer(
                sandbox, arguments(cid), donate(), origin
            ),
            "destroy": lambda: calls.destroy(sandbox, cid, origin),
            "signal": lambda: calls.signal(sandbox, cid, self.random.choice((0, 9, 15)), origin),
            "delete": lambda: calls.delete(sandbox, origin, force=self.random.random() < 0.5),
        }
        action = self.random.choice(list(actions))
        try:
            with anyio.move_on_after(1):
                await actions[action]()
        except (CallRefused, ManagerError):
            pass

    def trouble(self) -> None:
        """Something goes wrong, or ends, in the worker."""
        match self.random.randrange(8):
            case 0 | 1 | 2 if self.worker.running:
                status = self.random.choice((0, 256, 9, 139))
                self.worker.exit(self.random.choice(sorted(self.worker.running)), status)
            case 3:
                self.worker.fail_next = w.StartFailed(
                    seq=0, launch_id="", stage="create", reason="as told"
                )
            case 4:
                self.worker.drop_connection()
            case 5:
                self.worker.die()
            case _:
                pass


async def states_of(world: World) -> dict[str, Sandbox]:
    """Every sandbox, folded from the log alone."""
    found: dict[str, Sandbox] = {}
    async for record in world.log.read():
        if record.stream.startswith("sandbox-"):
            before = found.get(record.stream, Sandbox())
            found[record.stream] = fold([decode_event(record.type, record.data)], before)
    return found


async def check_states(node: Node, world: World) -> None:
    """What is live is what the log says, neither more nor less."""
    folded = await states_of(world)
    live = {f"sandbox-{key}": sandbox.state for key, sandbox in node.registry.all().items()}
    lasting = {
        stream: state
        for stream, state in folded.items()
        if state.phase not in {"absent", "deleted"}
    }
    assert live == lasting


@asynccontextmanager
async def a_world() -> AsyncIterator[World]:
    async with memory_log() as log:
        worker = FakeWorker()
        yield World(log, worker)
        worker.close()


def compare_after_every_event(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fold the whole stream anew after each event, and compare with the state that is live."""
    recorded: dict[str, list[RecordedEvent]] = {}
    append, fulfil = world.log.append, LiveSandbox._fulfil

    async def remember(stream: str, events: Any, **how: Any) -> Any:
        records = await append(stream, events, **how)
        recorded.setdefault(stream, []).extend(records)
        return records

    def compare(live: LiveSandbox, event: Event) -> None:
        fulfil(live, event)
        records = recorded[live._stream][: live.version]
        assert fold(decode_event(each.type, each.data) for each in records) == live.state

    monkeypatch.setattr(world.log, "append", remember)
    monkeypatch.setattr(LiveSandbox, "_fulfil", compare)


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEEDS))
async def test_whatever_happens_the_log_is_the_truth(
    seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("manager.application.worker_link.RECONNECT_PAUSES_S", (0.0,))
    before = sorted(os.listdir("/proc/self/fd"))
    async with a_world() as world:
        compare_after_every_event(world, monkeypatch)
        history = History(seed, world)
        snapshots = node_snapshots(tmp_path)
        steps = 0
        while steps < STEPS:
            async with world.manager(snapshots=snapshots, snapshot_events=5) as (node, calls):
                await check_states(node, world)
                for _ in range(history.random.randrange(1, 25)):
                    history.trouble()
                    async with anyio.create_task_group() as tasks:
                        for _ in range(history.random.randrange(1, 4)):
                            tasks.start_soon(history.call, calls)
                    await anyio.wait_all_tasks_blocked()
                    await check_states(node, world)
                    steps += 1
        await check_the_end(world)
        findings = (await verify_states(world.log, snapshots)).snapshots
        assert findings
        assert [finding for finding in findings if finding.problem] == []
    assert sorted(os.listdir("/proc/self/fd")) == before


async def check_the_end(world: World) -> None:
    """Once nothing goes wrong any more, everything comes to an end."""
    world.worker.fail_next = None
    async with world.manager() as (node, calls):
        await anyio.wait_all_tasks_blocked()
        for sandbox_id in list(node.registry.all()):
            await calls.delete(sandbox_id, calls.origin(None), force=True)
        assert node.registry.all() == {}
        await anyio.wait_all_tasks_blocked()
    launched = [launch.launch_id for launch in world.worker.launched]
    assert len(launched) == len(set(launched)), "launched twice"
    assert world.worker.running == {}
    assert world.worker.unacknowledged() == []
    for state in (await states_of(world)).values():
        assert all(
            found.status not in {"starting", "running"} for found in state.containers.values()
        )
        assert state.signals == {}
