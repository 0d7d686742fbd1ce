"""A real service that begins with a snapshot goes on as if it had folded its whole log."""

import pytest

from eventstore import open_log
from manager.adapters.client import SandboxClient
from manager.domain.exit_status import Exited, Signaled
from manager.schema.node_fold import FoldedSandbox
from manager.schema.node_snapshot import node_snapshots, open_fold
from manager.schema.state_check import state_seals, verify_states
from tests.integration.service.conftest import Donor, Service, sh

pytestmark = pytest.mark.runtime


async def with_two_containers(service: Service, donor: Donor) -> SandboxClient:
    """A root and one container that run, one that has ended, one that is destroyed."""
    sandbox = await service.client.create_sandbox("snap", sh("sleep 300"), donor.donation())
    await sandbox.start_root()
    for cid, script in (("runs", "sleep 300"), ("ended", "exit 3"), ("gone", "true")):
        await sandbox.create_subcontainer(cid)
        await sandbox.start_subcontainer(cid, sh(script), donor.donation(), request_id=cid)
    assert await sandbox.wait("ended") == Exited(code=3)
    await sandbox.destroy("gone")
    return sandbox


async def whole(service: Service, until: int) -> dict[str, FoldedSandbox]:
    async with open_log(service.root / "events.db", read_only=True) as log:
        return (await open_fold(log, None, until=until)).live


async def test_a_restart_from_a_snapshot_changes_nothing(service: Service, donor: Donor) -> None:
    service.stop()
    service.options = ("--snapshot-events", "1")
    service.start()
    sandbox = await with_two_containers(service, donor)
    before = await sandbox.state()
    assert service.stop() == 0
    snapshots = node_snapshots(service.root)
    position = snapshots.positions()[0]
    async with open_log(service.root / "events.db", read_only=True) as log:
        assert position == await log.head()
        assert {each.problem for each in (await verify_states(log, snapshots)).snapshots} == {""}
        opened = await open_fold(log, snapshots)
        assert (opened.began_at, opened.live) == (position, await whole(service, position))
    service.start()
    after = await sandbox.state()
    assert after == before
    await sandbox.signal(9, "runs")
    assert await sandbox.wait("runs") == Signaled(signal=9)
    assert await sandbox.wait("ended") == Exited(code=3)


async def test_a_kill_and_damaged_snapshots_change_nothing(service: Service, donor: Donor) -> None:
    service.stop()
    service.options = ("--snapshot-events", "1")
    service.start()
    sandbox = await with_two_containers(service, donor)
    before = await sandbox.state()
    service.kill()
    snapshots = node_snapshots(service.root)
    for position in snapshots.positions():
        with snapshots.path(position).open("r+b") as file:
            file.truncate(100)
    service.start()
    assert await sandbox.state() == before


async def test_a_service_seals_the_state_that_its_log_folds_to(
    service: Service, donor: Donor
) -> None:
    service.stop()
    service.options = ("--seal-events", "1000", "--seal-seconds", "3600")
    service.start()
    await with_two_containers(service, donor)
    assert service.stop() == 0
    path = service.root / "events.db"
    async with open_log(path, read_only=True) as log:
        seals = [seal async for seal in state_seals(path)]
        assert seals[-1].position == await log.head(), "the last one is of all that there is"
        found = await verify_states(log, sealed=state_seals(path))
    assert found.seals == {"same": len(seals)}
    assert found.live == 1
    service.start()
