"""A service that ends its containers: each gets its chance, each end is on record."""

import signal
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from manager.application import stopping
from manager.application.calls import Calls
from manager.application.stopping import stop_containers
from manager.schema import worker as w
from manager.urpc.fds import FdBundle
from tests.patience import PATIENCE_S
from tests.unit.application.conftest import World
from tests.unit.application.test_calls import arguments, start_sub, started

Donate = Callable[[], FdBundle]


def signals_of(world: World, monkeypatch: pytest.MonkeyPatch, *, obedient: bool) -> list[Any]:
    """Every signal that the worker is asked to send; an obedient container ends by SIGTERM."""
    seen: list[Any] = []
    obey = world.worker.obey

    def watch(message: w.ToWorker, files: FdBundle) -> None:
        obey(message, files)
        if isinstance(message, w.Kill):
            number = [each.launch_id for each in world.worker.launched].index(message.launch_id)
            seen.append((number, message.signo))
            if obedient and message.signo == signal.SIGTERM:
                world.worker.exit(message.launch_id, 7 << 8)
        if isinstance(message, w.Freeze):
            seen.append(("freeze", message.frozen))

    monkeypatch.setattr(world.worker, "obey", watch)
    return seen


async def ends(calls: Calls) -> list[int]:
    return [await calls.wait("sb", cid) for cid in ("sb", "c1")]


async def test_subcontainers_are_asked_first_and_the_root_last(
    world: World, donate: Donate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.manager() as (_, calls):
        await started(calls, donate)
        await start_sub(calls, donate)
        seen = signals_of(world, monkeypatch, obedient=True)
        with anyio.fail_after(PATIENCE_S):
            assert await stop_containers(calls, 60) == ()
        assert seen == [(1, signal.SIGTERM), (0, signal.SIGTERM)]
        assert await ends(calls) == [7 << 8, 7 << 8]


async def test_what_does_not_heed_is_killed_when_the_grace_is_over(
    world: World, donate: Donate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.manager() as (_, calls):
        await started(calls, donate)
        await start_sub(calls, donate)
        seen = signals_of(world, monkeypatch, obedient=False)
        assert await stop_containers(calls, 0.05) == ()
        assert seen[0] == (1, signal.SIGTERM)
        assert (0, signal.SIGKILL) in seen
        assert await ends(calls) == [9, 9]


async def test_what_is_paused_goes_on_first(
    world: World, donate: Donate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.manager() as (_, calls):
        await started(calls, donate)
        await calls.pause("sb", calls.origin(None))
        seen = signals_of(world, monkeypatch, obedient=True)
        assert await stop_containers(calls, 60) == ()
        assert seen == [("freeze", False), (0, signal.SIGTERM)]


async def test_what_cannot_be_ended_is_named(
    world: World, donate: Donate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "KILL_WAIT_S", 0.01)
    async with world.manager() as (_, calls):
        await started(calls, donate)
        await calls.create("idle", arguments("idle"), donate(), calls.origin(None))
        monkeypatch.setattr(world.worker, "obey", lambda message, files: None)
        assert await stop_containers(calls, 0.01) == ("sb",)
