"""A service whose log was restored from a backup, and what former lives left behind."""

import shutil
import signal

import anyio.to_thread
import msgspec
import pytest

from manager import CallRefused
from manager.domain.exit_status import Signaled
from manager.domain.react import UNKNOWN_TO_WORKER
from tests.integration.service.conftest import Donor, Service, sh, wait_for_end

pytestmark = pytest.mark.runtime


async def test_what_a_restored_log_does_not_know_is_ended_and_said(
    service: Service, donor: Donor
) -> None:
    sandbox = await service.client.create_sandbox("old", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    await sandbox.create_subcontainer("ended")
    await sandbox.start_subcontainer("ended", sh("sleep 600"), donor.donation())
    ended = (await sandbox.state())["containers"]["ended"]["intent"]["launch_id"]
    await anyio.to_thread.run_sync(service.stop)
    log = service.root / "events.db"
    shutil.copy(log, service.root / "backup.db")
    await anyio.to_thread.run_sync(service.start)
    await sandbox.signal(signal.SIGKILL, "ended")
    assert await sandbox.wait("ended") == Signaled(signal=signal.SIGKILL)
    newer = await service.client.create_sandbox("new", sh("sleep 600"), donor.donation())
    await newer.start_root()
    launched = (await newer.state())["containers"]["new"]
    await sandbox.create_subcontainer("gone")
    await sandbox.start_subcontainer("gone", sh("sleep 600"), donor.donation())
    gone = (await sandbox.state())["containers"]["gone"]
    await anyio.to_thread.run_sync(service.stop)
    shutil.copy(service.root / "backup.db", log)
    shutil.rmtree(service.root / "snapshots", ignore_errors=True)
    (service.root / "sandboxes" / "ghost").mkdir()
    await anyio.to_thread.run_sync(service.start)
    for each in (launched, gone):
        await wait_for_end(each["launched"]["pid"])
    recovered = [
        msgspec.json.decode(record.data)
        for record in await service.records("node")
        if record.type == "recovery.completed"
    ][-1]
    ids = [each["intent"]["launch_id"] for each in (launched, gone)]
    assert recovered["unknown"] == sorted(ids)
    assert len(recovered["adopted"]) == 1
    assert recovered["lost"] == [ended]
    with pytest.raises(CallRefused, match=f'"ended" is lost: {UNKNOWN_TO_WORKER}'):
        await sandbox.wait("ended")
    stale = [each for each in recovered["removed"] if each.startswith("socket ")]
    assert stale == ["socket sandboxes/ghost/control.sock", "socket sandboxes/new/control.sock"]
    assert not (service.root / "sandboxes" / "ghost").exists()
    with pytest.raises(CallRefused, match='container "gone" not found'):
        await sandbox.wait("gone")
    assert (await sandbox.state())["containers"]["old"]["status"] == "running"
