"""Calls end to end above the worker's socket: what is recorded, what is answered, what survives."""

import os
from collections.abc import Callable
from typing import Any

import anyio
import msgspec
import pytest

from eventstore import StoreFull
from manager.application.arguments import StartArguments
from manager.application.calls import Calls
from manager.application.default_spec import default_spec
from manager.application.errors import CallRefused, NoEngine, NotRecorded
from manager.domain.evolve import fold
from manager.schema import worker as w
from manager.schema.events import decode_event
from manager.urpc.fds import FdBundle
from tests.unit.application.conftest import World

Donate = Callable[[], FdBundle]

CREATED = "sandbox.created"
ACCEPTED = "container.start_accepted"


def arguments(cid: str, request_id: str = "", **spec: Any) -> StartArguments:
    return StartArguments(
        cid=cid, spec=default_spec(args=["/bin/true"], **spec), conf={}, request_id=request_id
    )


async def started(calls: Calls, donate: Donate) -> None:
    await calls.create("sb", arguments("sb"), donate(), calls.origin(None))
    await calls.start_root("sb", calls.origin(None))


async def start_sub(calls: Calls, donate: Donate, cid: str = "c1", request_id: str = "") -> None:
    await calls.create_subcontainer("sb", cid, FdBundle(), calls.origin(None))
    await calls.start_subcontainer("sb", arguments(cid, request_id), donate(), calls.origin(None))


async def test_a_whole_life_is_on_record(world: World, donate: Donate) -> None:
    async with world.manager() as (_, calls):
        await started(calls, donate)
        await start_sub(calls, donate)
        world.worker.exit(world.worker.launched[-1].launch_id, 3 << 8)
        assert await calls.wait("sb", "c1") == 3 << 8
        await calls.destroy("sb", "c1", calls.origin(None))
        assert await calls.wait("sb", "c1") == 3 << 8
        await calls.delete("sb", calls.origin(None), force=True)
        with pytest.raises(CallRefused, match='sandbox "sb" not found'):
            calls.state("sb")
    assert await world.tags("sandbox-sb") == [
        "sandbox.created",
        "sandbox.start_requested",
        "sandbox.started",
        "container.created",
        "container.start_accepted",
        "container.started",
        "container.exited",
        "container.destroy_requested",
        "container.destroyed",
        "sandbox.delete_requested",
        "container.destroy_requested",
        "container.exited",
        "sandbox.stopped",
        "container.destroyed",
        "sandbox.deleted",
    ]


async def test_intent_is_durable_before_the_worker_hears_of_it(
    world: World, donate: Donate
) -> None:
    seen: list[list[str]] = []
    obey = world.worker.obey

    def watch(message: w.ToWorker, files: FdBundle) -> None:
        if isinstance(message, w.Launch):
            seen.append([record.type for record in records])
        obey(message, files)

    world.worker.obey = watch  # type: ignore[method-assign]  # a spy
    async with world.manager() as (_, calls):
        records: list[Any] = []
        append = world.log.append

        async def remember(*args: Any, **kwargs: Any) -> Any:
            appended = await append(*args, **kwargs)
            records.extend(appended)
            return appended

        world.log.append = remember  # type: ignore[method-assign]  # a spy
        await started(calls, donate)
    assert [types[-1] for types in seen] == ["sandbox.start_requested"]


async def test_a_refusal_carries_the_recorded_text(world: World, donate: Donate) -> None:
    async with world.manager() as (_, calls):
        await calls.create("sb", arguments("sb"), donate(), calls.origin(None))
        with pytest.raises(CallRefused) as refused:
            await calls.start_subcontainer("sb", arguments("c1"), donate(), calls.origin(None))
    assert refused.value.text == (
        "sandbox is not in started state, cannot start subcontainer: state=created"
    )
    last = [record async for record in world.log.read("sandbox-sb")][-1]
    assert msgspec.json.decode(last.data)["error"] == refused.value.text


@pytest.mark.parametrize("sandbox_id", ["../x", "", "x" * 129, ".", "a/b", "a\n"])
async def test_an_id_that_cannot_name_a_stream_is_refused_on_the_nodes_record(
    world: World, donate: Donate, sandbox_id: str
) -> None:
    async with world.manager() as (_, calls):
        with pytest.raises(CallRefused, match=r"invalid sandbox ID|missing container ID"):
            await calls.create(sandbox_id, arguments(""), donate(), calls.origin(None))
    assert "sandbox.create_rejected" in await world.tags("node")


async def test_a_failed_start_is_answered_with_gvisors_text(world: World, donate: Donate) -> None:
    async with world.manager() as (_, calls):
        await started(calls, donate)
        world.worker.fail_next = w.StartFailed(
            seq=0, launch_id="", stage="exec", reason="not there", errno=2
        )
        with pytest.raises(CallRefused) as refused:
            await start_sub(calls, donate)
    assert refused.value.text == (
        'error finding executable "/bin/true" in PATH [/usr/local/sbin /usr/local/bin /usr/sbin '
        "/usr/bin /sbin /bin]: no such file or directory"
    )


async def test_the_same_request_id_acts_once(world: World, donate: Donate) -> None:
    async with world.manager() as (_, calls):
        await started(calls, donate)
        await start_sub(calls, donate, request_id="r1")
        again = arguments("c1", "r1")
        await calls.start_subcontainer("sb", again, donate(), calls.origin(None))
        assert len(world.worker.launched) == 2
        with pytest.raises(CallRefused, match='RequestID "r1" was used for StartSubcontainer'):
            await calls.create_subcontainer("sb", "c2", FdBundle(), calls.origin(None), "r1")


async def test_a_repeat_waits_for_the_outcome_of_the_first(world: World, donate: Donate) -> None:
    world.worker.silent = False
    async with world.manager() as (_, calls), anyio.create_task_group() as tasks:
        await started(calls, donate)
        await calls.create_subcontainer("sb", "c1", FdBundle(), calls.origin(None))
        world.worker.silent = True
        answered: list[str] = []

        async def start(name: str) -> None:
            again = arguments("c1", "r1")
            await calls.start_subcontainer("sb", again, donate(), calls.origin(None))
            answered.append(name)

        tasks.start_soon(start, "first")
        tasks.start_soon(start, "second")
        await anyio.wait_all_tasks_blocked()
        assert answered == []
        assert len(world.worker.launched) == 2
        world.worker.start(world.worker.launched[-1].launch_id)
    assert sorted(answered) == ["first", "second"]


async def test_a_new_manager_finds_what_the_old_one_left(world: World, donate: Donate) -> None:
    async with world.manager() as (_, calls):
        await started(calls, donate)
        await start_sub(calls, donate)
        before = calls.state("sb")
    world.worker.exit(world.worker.launched[-1].launch_id, 9)
    async with world.manager() as (_, calls):
        assert await calls.wait("sb", "c1") == 9
        assert calls.state("sb").containers["sb"] == before.containers["sb"]
        await anyio.wait_all_tasks_blocked()
    assert world.worker.unacknowledged() == []


async def test_a_start_that_never_reached_the_worker_is_interrupted(
    world: World, donate: Donate
) -> None:
    async with world.manager() as (_, calls):
        await started(calls, donate)
        await calls.create_subcontainer("sb", "c1", FdBundle(), calls.origin(None))
        world.worker.silent = True
        with anyio.move_on_after(0.05):
            await calls.start_subcontainer("sb", arguments("c1"), donate(), calls.origin(None))
    world.worker.known.discard(world.worker.launched[-1].launch_id)
    async with world.manager() as (_, calls):
        found = calls.state("sb").containers["c1"]
        assert found.status == "failed"
        assert found.failure is not None
        assert found.failure.stage == "interrupted"


async def test_a_worker_that_dies_is_replaced_and_its_containers_are_lost(
    world: World, donate: Donate
) -> None:
    async with world.manager() as (_, calls):
        await started(calls, donate)
        await start_sub(calls, donate)
        world.worker.die()
        with pytest.raises(CallRefused, match='container "c1" is lost'):
            await calls.wait("sb", "c1")
    tags = await world.tags("node")
    assert "worker.lost" in tags
    assert tags.count("worker.started") == 2


async def test_when_the_root_ends_the_sandbox_takes_its_containers_along(
    world: World, donate: Donate
) -> None:
    async with world.manager() as (_, calls):
        await started(calls, donate)
        await start_sub(calls, donate)
        world.worker.exit(world.worker.launched[0].launch_id, 0)
        assert await calls.wait("sb", "c1") == 9
        assert calls.state("sb").phase == "stopped"


async def test_env_values_reach_the_worker_but_never_the_log(world: World, donate: Donate) -> None:
    secret = "hunter2-is-my-secret"
    async with world.manager() as (_, calls):
        await started(calls, donate)
        await calls.create_subcontainer("sb", "c1", FdBundle(), calls.origin(None))
        start = arguments("c1", env=[f"TOKEN={secret}", "A=1", "A=2"])
        await calls.start_subcontainer("sb", start, donate(), calls.origin(None))
        state = calls.state("sb")
    launched = msgspec.json.decode(world.worker.launched[-1].spec)
    assert launched["process"]["env"][1:] == [f"TOKEN={secret}", "A=2"]
    intent = state.containers["c1"].intent
    assert intent is not None
    document = await world.log.document(intent.request.spec_digest)
    recorded = [bytes(record.data) async for record in world.log.read()] + [document.body]
    assert b"TOKEN=hmac-sha256:" in document.body
    assert not any(secret.encode() in body for body in recorded)


async def test_signals_are_recorded_before_and_after(world: World, donate: Donate) -> None:
    async with world.manager() as (_, calls):
        await started(calls, donate)
        await start_sub(calls, donate)
        await calls.signal("sb", "c1", 15, calls.origin(None))
        await calls.signal("sb", "c1", 9, calls.origin(None))
        assert await calls.wait("sb", "c1") == 9
        with pytest.raises(CallRefused) as refused:
            await calls.signal("sb", "c1", 9, calls.origin(None))
    assert refused.value.text == 'signaling process in container "c1" PID 0: no such process'


async def test_replay_gives_the_live_state(world: World, donate: Donate) -> None:
    async with world.manager() as (node, calls):
        await started(calls, donate)
        for cid in ("a", "b"):
            await start_sub(calls, donate, cid)
        world.worker.exit(world.worker.launched[-1].launch_id, 256)
        await calls.wait("sb", "b")
        live = calls.state("sb")
        records = [record async for record in world.log.read("sandbox-sb")]
        assert fold(decode_event(record.type, record.data) for record in records) == live
        assert node.registry.all()["sb"].version == records[-1].version


async def test_every_event_of_a_call_has_its_correlation_and_cause(
    world: World, donate: Donate
) -> None:
    async with world.manager() as (_, calls):
        origin = calls.origin(None)
        await calls.create("sb", arguments("sb"), donate(), calls.origin(None))
        await calls.start_root("sb", origin)
    records = {record.type: record async for record in world.log.read("sandbox-sb")}
    asked, done = records["sandbox.start_requested"], records["sandbox.started"]
    assert asked.correlation_id == done.correlation_id == origin.correlation_id
    assert done.causation == asked.position


async def test_no_descriptor_outlives_its_call(world: World, donate: Donate) -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with world.manager() as (_, calls):
        await started(calls, donate)
        await start_sub(calls, donate)
        with pytest.raises(CallRefused):
            await start_sub(calls, donate)
        with pytest.raises(CallRefused):
            await calls.create("sb", arguments("sb"), donate(), calls.origin(None))
        assert len(os.listdir("/proc/self/fd")) == before


async def test_what_was_held_for_a_create_that_the_log_refused_is_released(
    world: World, donate: Donate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.manager() as (_, calls):

        async def full(*_: Any, **__: Any) -> Any:
            raise StoreFull("no space left")

        monkeypatch.setattr(world.log, "append", full)
        with pytest.raises(NotRecorded, match="no space left"):
            await calls.create("sb", arguments("sb"), donate(), calls.origin(None))
        monkeypatch.undo()
        await anyio.wait_all_tasks_blocked()
        assert world.worker.held == {}
        assert len(world.worker.released) == 1
        await calls.create("sb", arguments("sb"), donate(), calls.origin(None))
        await anyio.wait_all_tasks_blocked()
        assert len(world.worker.held) == 1


async def test_an_unknown_engine_is_refused_at_the_start(world: World) -> None:
    world.worker.engines = (w.EngineReport(name="crun", works=False, problem="no such program"),)
    with pytest.RaisesGroup(pytest.RaisesExc(NoEngine, match="crun: no such program")):
        async with world.manager():
            pass


async def test_a_pause_is_answered_when_the_worker_has_done_it(
    world: World, donate: Donate
) -> None:
    async with world.manager() as (_, calls):
        await started(calls, donate)
        sandbox, origin = calls.live("sb"), calls.origin(None)
        remembered = set(sandbox.folded.origins)
        await calls.pause("sb", origin)
        assert sandbox.state.paused
        await calls.pause("sb", origin, paused=False, request_id="r")
        await calls.pause("sb", origin, paused=False, request_id="r")  # the same call again
        assert not sandbox.state.paused
        with pytest.raises(CallRefused, match="is not paused"):
            await calls.pause("sb", origin, paused=False)
        assert set(sandbox.folded.origins) == remembered
        await calls.delete("sb", origin, force=True)
