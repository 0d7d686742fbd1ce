"""SIGKILL to manager, worker or both at random moments, amid containers; thousands: `make soak`."""

import contextlib
import os
import random
import signal
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from tests.integration.service.conftest import Donor, Service, wait_for_end
from tests.integration.service.killing import Story, reconcile

KILLS_EACH = 8
"""Kills that one service survives; then a new one begins, with a new log."""

KILLS = int(os.environ.get("SANDTRAIL_KILLS_AT_RANDOM", "104"))
SEED = int(os.environ.get("SEED", "1"))
ENGINES = ("crun", "bwrap", "runc", "runsc")
SPREAD_S = {"runsc": 2.5}
USUAL_SPREAD_S = 0.7

pytestmark = pytest.mark.runtime


async def kill(service: Service, victims: str) -> None:
    worker = await service.worker_pid()
    if victims != "worker":
        await anyio.to_thread.run_sync(service.kill)
    if victims != "manager":
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
        await wait_for_end(worker)
    if victims != "worker":
        await anyio.to_thread.run_sync(service.start)


@pytest.mark.parametrize("number", range(SEED, SEED + max(1, KILLS // KILLS_EACH)))
async def test_kills_at_random_moments(number: int, tmp_path: Path, donor: Donor) -> None:
    dice = random.Random(number)
    engine = ENGINES[(number - 1) % len(ENGINES)]
    service = Service(tmp_path / "state", engine).start()
    if not service.told:
        pytest.skip(f"engine {engine} does not work here")
    try:
        for kills in range(KILLS_EACH):
            stories = [Story(service, donor, tmp_path, f"k{kills}-{each}-") for each in "ab"]
            async with anyio.create_task_group() as tasks:
                for story in stories:
                    tasks.start_soon(story.tell)
                await anyio.sleep(dice.uniform(0, SPREAD_S.get(engine, USUAL_SPREAD_S)))
                await kill(service, dice.choice(("manager", "worker", "both")))
            for story in stories:
                await reconcile(service, story)
    finally:
        await service.end()
