"""A service whose log was restored from a backup, and what former lives left behind."""

import os
import shutil
import signal
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import msgspec
import pytest

from manager import CallRefused
from manager.adapters.client import SandboxClient
from manager.application.continuity import RESTORED
from manager.domain.decide_report import UNTOLD
from manager.domain.exit_status import Signaled
from tests.integration.service.conftest import Donor, Service, sh, wait_for_end
from tests.patience import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.runtime

INTENTS = (
    "container.start_accepted",
    "container.signal_requested",
    "container.destroy_requested",
    "process.exec_accepted",
)


async def told(service: Service, kind: str) -> list[dict[str, Any]]:
    """What the log has of one type of event, oldest first."""
    records = await service.records()
    return [msgspec.json.decode(record.data) for record in records if record.type == kind]


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
    recovered = (await told(service, "recovery.completed"))[-1]
    ids = [each["intent"]["launch_id"] for each in (launched, gone)]
    assert recovered["unknown"] == sorted(ids)
    assert len(recovered["adopted"]) == 1
    assert recovered["lost"] == [ended]
    assert recovered["doubt"] == RESTORED
    with pytest.raises(CallRefused, match=f'"ended" is lost: {RESTORED}'):
        await sandbox.wait("ended")
    stale = [each for each in recovered["removed"] if each.startswith("socket ")]
    assert stale == ["socket sandboxes/ghost/control.sock", "socket sandboxes/new/control.sock"]
    assert not (service.root / "sandboxes" / "ghost").exists()
    with pytest.raises(CallRefused, match='container "gone" not found'):
        await sandbox.wait("gone")
    assert (await sandbox.state())["containers"]["old"]["status"] == "running"


def copy_log(log: Path, to: Path) -> None:
    """As it is at this moment, while it is written."""
    source, target = sqlite3.connect(log), sqlite3.connect(to)
    source.backup(target)
    source.close()
    target.close()


async def under_way(service: Service, sandbox: SandboxClient, donor: Donor, copy: Path) -> None:
    """Ask for one thing of each kind, and copy the log when it has what was asked, and no more."""
    for cid in ("signalled", "destroyed"):
        await sandbox.create_subcontainer(cid)
        await sandbox.start_subcontainer(cid, sh("trap : USR1; sleep 600"), donor.donation())
    for cid in ("ended", "runs"):
        await sandbox.create_subcontainer(cid)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: sandbox.start_subcontainer("ended", sh("exit 3"), donor.donation()),
        lambda: sandbox.start_subcontainer("runs", sh("sleep 600"), donor.donation()),
        lambda: sandbox.signal(signal.SIGUSR1, "signalled"),
        lambda: sandbox.destroy("destroyed"),
        lambda: sandbox.execute("signalled", ["/bin/true"], {}),
    ]
    before = len([each for each in await service.records() if each.type in INTENTS])
    worker = await service.worker_pid()
    os.kill(worker, signal.SIGSTOP)
    try:
        async with anyio.create_task_group() as tasks:
            for call in calls:
                tasks.start_soon(call)
            with anyio.fail_after(PATIENCE_S):
                while len(
                    [each for each in await service.records() if each.type in INTENTS]
                ) < before + len(calls):
                    await anyio.sleep(0.01)
            await anyio.to_thread.run_sync(copy_log, service.root / "events.db", copy)
            os.kill(worker, signal.SIGCONT)
    finally:
        os.kill(worker, signal.SIGCONT)


async def test_what_a_restored_log_has_under_way_is_not_guessed(
    service: Service, donor: Donor, tmp_path: Path
) -> None:
    sandbox = await service.client.create_sandbox("old", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    await under_way(service, sandbox, donor, tmp_path / "copy.db")
    assert await sandbox.wait_status("ended") == 3 << 8
    with anyio.fail_after(PATIENCE_S):  # an end that the worker has yet to tell would be no guess
        while not await told(service, "process.exited"):
            await anyio.sleep(0.01)
    await anyio.to_thread.run_sync(service.stop)
    log = service.root / "events.db"
    shutil.rmtree(service.root / "snapshots", ignore_errors=True)
    shutil.copy(tmp_path / "copy.db", log)
    await anyio.to_thread.run_sync(service.start)

    recovered = (await told(service, "recovery.completed"))[-1]
    assert (recovered["doubt"], recovered["interrupted"]) == (RESTORED, [])
    assert await told(service, "container.start_failed") == []
    lost = {each["container"]: each for each in await told(service, "container.lost")}
    assert {cid: (each["reason"], each["doubtful"]) for cid, each in lost.items()} == {
        "ended": (RESTORED, True),
        "destroyed": (RESTORED, False),
    }
    assert sorted(recovered["lost"]) == sorted(each["launch_id"] for each in lost.values())
    with pytest.raises(CallRefused, match=f'container "ended" is lost: {RESTORED}'):
        await sandbox.wait("ended")
    with pytest.raises(CallRefused, match='container "destroyed" not found'):
        await sandbox.signal(signal.SIGUSR1, "destroyed", mode=1)
    refused = (await told(service, "container.signal_rejected"))[0]
    assert refused["error"].endswith(f"{UNTOLD}: {RESTORED}")
    (process,) = await told(service, "process.lost")
    assert (process["reason"], process["doubtful"]) == (RESTORED, True)
    with anyio.fail_after(PATIENCE_S):
        while (await sandbox.state())["containers"]["runs"]["status"] != "running":
            await anyio.sleep(0.01)
    await sandbox.signal(signal.SIGKILL, "runs")
    assert await sandbox.wait("runs") == Signaled(signal=signal.SIGKILL)
