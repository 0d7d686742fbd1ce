"""What a former life left is gone once a service has begun anew, and its log has a list of it."""

import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import pytest

from manager.worker.cgroups import Cgroup, Cgroups
from manager.worker.hierarchies import parse_hierarchies
from tests.integration.service.conftest import Donor, Service, sh, wait_for_end
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime

STAGES = 'mount -t tmpfs left "$1" && mkdir -p "$1/$2/bundle" && echo ready && exec sleep 600'
"""In a mount namespace of its own, which is where a worker has its mounts and bundles, too."""


@pytest.fixture
def engine_id() -> str:
    """What a launch that no log knows was called."""
    return uuid.uuid4().hex


@pytest.fixture
def cgroup(engine_id: str) -> Iterator[Cgroup]:
    """Where it would have been."""
    found = Cgroups(parse_hierarchies(Path("/proc/self/mountinfo").read_text()))
    cgroup = found.of_launch(engine_id)
    yield cgroup
    cgroup.kill_everyone()
    cgroup.remove()


async def removed(service: Service) -> list[str]:
    """What the newest recovery says was left, and is nobody's."""
    recovered = [each for each in await service.records() if each.type == "recovery.completed"]
    return list(msgspec.json.decode(recovered[-1].data)["removed"])


@pytest.mark.parametrize("service", ["crun", "runc", "runsc"], indirect=True)
async def test_each_thing_that_was_left_is_removed_and_listed(
    service: Service, donor: Donor, engine_id: str, cgroup: Cgroup
) -> None:
    """Engine state, a link among it, a record, a cgroup, a socket; mounts and bundles of a process.

    These have no name of their own: they are in its mount namespace, and go with the last process
    in that, which is found by its cgroup.
    """
    sandbox = await service.client.create_sandbox("old", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    await sandbox.delete(force=True)
    worker = await service.worker_pid()
    await anyio.to_thread.run_sync(service.stop)
    await wait_for_end(worker)

    states, elsewhere = service.root / "worker" / "engines" / service.engine, service.root / "other"
    state, link = states / engine_id, states / f"{engine_id}.net"
    state.mkdir()
    (state / "status").write_text("{")
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    link.symlink_to(elsewhere)
    record = service.root / "worker" / "launches" / engine_id
    record.write_text("not finished")
    ghost = service.root / "sandboxes" / "ghost"
    ghost.mkdir()
    (ghost / "control.sock").touch()
    cgroup.create()
    stage = service.root / "worker" / "stage"
    command = ["unshare", "--mount", "sh", "-c", STAGES, "sh", str(stage), engine_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        mounts = Path(f"/proc/{holder.pid}/mountinfo")
        assert str(stage) in mounts.read_text()
        cgroup.add(holder.pid)
        places = [str(path) for path in cgroup.existing()]
        await anyio.to_thread.run_sync(service.start)
        assert holder.wait(PATIENCE_S) == -signal.SIGKILL, "it was not killed with its cgroup"
    assert not mounts.exists(), "whose mount namespace that was is gone"

    assert await removed(service) == [
        f"record {engine_id}",
        f"{service.engine} state {engine_id}",
        f"{service.engine} state {engine_id}.net",
        *(f"cgroup {each}" for each in places),
        "socket sandboxes/ghost/control.sock",
    ]
    with anyio.fail_after(PATIENCE_S):
        while left := [str(each) for each in (state, link, record, ghost) if os.path.lexists(each)]:
            await anyio.sleep(0.01)
    with anyio.fail_after(PATIENCE_S):
        while left := cgroup.existing():
            await anyio.sleep(0.01)
    assert not left
    assert (elsewhere / "precious").exists(), "that is nobody's leftover"
    shutil.rmtree(elsewhere)

    worker = await service.worker_pid()
    await anyio.to_thread.run_sync(service.stop)
    await wait_for_end(worker)
    await anyio.to_thread.run_sync(service.start)
    assert await removed(service) == [], "said once, done once"
