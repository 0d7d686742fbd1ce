"""``audit reconcile`` beside a service with real containers: silent when all is well."""

import os
import signal

import pytest

from manager.schema.layout import LOG_FILE
from replay.evidence.machine_view import MachineView
from replay.evidence.reconcile import Reconciliation, reconcile
from replay.trail import Trail
from tests.integration.service.conftest import ENGINES, Donor, Service, sh, wait_for_end

pytestmark = pytest.mark.runtime


async def look(service: Service) -> Reconciliation:
    async with Trail.open(service.root / LOG_FILE) as trail:
        return await reconcile(trail, MachineView(service.root))


@pytest.mark.parametrize("service", ENGINES, indirect=True)
async def test_through_the_life_of_a_sandbox(service: Service, donor: Donor) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    await sandbox.create_subcontainer("job")
    await sandbox.start_subcontainer("job", sh("sleep 600"), donor.donation())
    told = await look(service)
    assert (told.found, told.containers, told.service_runs) == ((), 2, True)
    await sandbox.pause()
    assert (await look(service)).found == ()
    await sandbox.resume()
    service.kill()
    told = await look(service)
    assert (told.found, told.service_runs) == ((), False)
    assert any("the service does not run" in each for each in told.skipped)

    init = (await at_rest(service))["job"]
    os.kill(init, signal.SIGKILL)  # nobody is there to record it
    await wait_for_end(init)
    found = (await look(service)).found
    assert [(each.kind, each.layer, each.subject) for each in found] == [
        ("ghost", "process", "sb/job")
    ]
    service.start()
    assert (await look(service)).found == ()
    await sandbox.delete(force=True)
    told = await look(service)
    assert (told.found, told.containers) == ((), 0)


async def at_rest(service: Service) -> dict[str, int]:
    """Pids by container, as the log has them."""
    async with Trail.open(service.root / LOG_FILE) as trail:
        state = await trail.sandbox("sb")
    assert state is not None
    return {
        cid: found.launched.pid
        for cid, found in state.containers.items()
        if found.launched is not None
    }
