"""SIGKILL to the service, again and again, amid starts: nothing is lost or done twice."""

import random
from collections import Counter
from functools import partial

import anyio
import anyio.to_thread
import msgspec
import pytest

from manager import CallRefused
from manager.domain.evolve import fold
from manager.schema.events import decode_event
from tests.integration.service.conftest import Donor, Service, sh
from tests.integration.service.killing import answered

pytestmark = pytest.mark.runtime

KILLS = 8
CLIENTS = 4
SEED = 3


async def test_starts_under_a_service_that_is_killed_again_and_again(
    service: Service, donor: Donor
) -> None:
    dice = random.Random(SEED)
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    codes: dict[str, int] = {}
    answers: dict[str, object] = {}
    stop = anyio.Event()

    async def client(name: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            cid = f"c{name}-{number}"
            codes[cid] = code = dice.randrange(256)
            create = partial(sandbox.create_subcontainer, cid, request_id=f"create-{cid}")
            start = partial(sandbox.start_subcontainer, cid, sh(f"exit {code}"), donor.donation())
            try:
                await answered(create)
                await answered(start, request_id=f"start-{cid}")
                answers[cid] = await answered(sandbox.wait_status, cid=cid)
            except CallRefused as error:
                answers[cid] = str(error)

    async with anyio.create_task_group() as tasks:
        for name in range(CLIENTS):
            tasks.start_soon(client, name)
        for _ in range(KILLS):
            await anyio.sleep(dice.uniform(0.05, 0.6))
            await anyio.to_thread.run_sync(service.kill)
            await anyio.to_thread.run_sync(service.start)
        stop.set()

    records = await service.records("sandbox-sb")
    folded = fold(decode_event(record.type, record.data) for record in records)
    assert msgspec.json.decode(msgspec.json.encode(folded)) == await sandbox.state()
    launches = Counter(
        msgspec.json.decode(record.data)["launch_id"]
        for record in records
        if record.type == "container.started"
    )
    assert set(launches.values()) == {1}, "launched twice"
    wrong = {
        cid: answer
        for cid, answer in answers.items()
        if answer != codes[cid] << 8 and "was interrupted" not in str(answer)
    }
    assert wrong == {}
    assert len(launches) >= KILLS
    for container in folded.containers.values():
        if container.cid != "sb":
            assert container.status in {"stopped", "failed"}, container
