"""Containers on a real cgroup v2 hierarchy, as far as this machine has one.

A machine with v1 hierarchies keeps the controllers there, so v2 groups have none for memory and
pids: what the kernel gives every v2 group is tested (processes, freezing, processor time). Numbers
of the controllers are tested with files as the kernel writes them: tests/unit/worker.
"""

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from manager.application.errors import CallRefused
from manager.domain.exit_status import Exited, Signaled
from tests.integration.service.conftest import (
    ENGINES,
    ENGINES_FILE,
    Donor,
    Service,
    cgroups,
    sh,
)
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime

ONLY_UNIFIED = """
for place in $(awk '/ - cgroup / {print $5}' /proc/self/mountinfo); do umount "$place"; done
mount --move /sys/fs/cgroup/unified "$1"
umount /sys/fs/cgroup
mount --move "$1" /sys/fs/cgroup
shift
exec "$@"
"""


@pytest.fixture(params=ENGINES)
async def service(
    request: pytest.FixtureRequest, tmp_path: Path, rootfs: Path
) -> AsyncIterator[Service]:
    """A service whose worker sees a v2 hierarchy and no other."""
    if not Path("/sys/fs/cgroup/unified/cgroup.procs").exists():
        pytest.skip("no cgroup2 beside v1 hierarchies here")
    aside, state = tmp_path / "aside", tmp_path / "state"
    aside.mkdir()
    state.mkdir(mode=0o700)
    private = ("unshare", "--mount", "--propagation", "private", "sh", "-ec", ONLY_UNIFIED)
    command = (*private, "sh", str(aside), sys.executable)
    if subprocess.run([*command, "-c", ""], check=False).returncode:
        pytest.skip("mounts cannot be changed here")
    worker = subprocess.Popen([*command, "-m", "manager.worker", "--state", str(state)])
    with anyio.fail_after(PATIENCE_S):
        while not (state / "worker" / ENGINES_FILE).exists():
            await anyio.sleep(0.01)
    running = Service(state, request.param).start()
    try:
        yield running
    finally:
        await running.end()
        assert worker.wait(PATIENCE_S) == 0


async def test_a_life_on_cgroup_v2(service: Service, donor: Donor) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    await sandbox.create_subcontainer("busy")
    await sandbox.start_subcontainer("busy", sh("while :; do :; done"), donor.donation())

    async def used() -> int:
        return int((await sandbox.stats("busy"))["event"]["data"]["cpu"]["usage"]["total"])

    (found,) = [each for each in await service.records("node") if each.type == "worker.started"]
    assert '"v2"' in json.dumps(json.loads(found.data))
    before = await used()
    with anyio.fail_after(PATIENCE_S):
        while await used() <= before + 20_000_000:
            await anyio.sleep(0.02)
    name = await last_started(service)
    inhabited = cgroups({name})
    assert [each.parts[:5] for each in inhabited] == [("/", "sys", "fs", "cgroup", "unified")]
    assert [row["pid"] for row in await sandbox.processes("busy")] == [1]
    await sandbox.pause()
    # What ran until it froze is in the account a moment later; what runs never stands still.
    with anyio.fail_after(PATIENCE_S):
        still = await used()
        while (now := await used()) != still:
            still = now
    await sandbox.resume()
    with anyio.fail_after(PATIENCE_S):
        while await used() <= still:
            await anyio.sleep(0.02)
    pid = await sandbox.execute("busy", ["/bin/sh", "-c", "exit 137"], {})
    assert await sandbox.wait_process("busy", pid) == Exited(code=137)
    await sandbox.signal(signal.SIGKILL, "busy", everyone=True)
    assert await sandbox.wait("busy") == Signaled(signal=9)
    await sandbox.destroy("busy")
    assert cgroups({name}) == []
    limited = sh("true")
    limited["linux"]["resources"] = {"pids": {"limit": 9}}
    await sandbox.create_subcontainer("limited")
    with pytest.raises(CallRefused, match=r"pids\.max|pids"):
        await sandbox.start_subcontainer("limited", limited, donor.donation())


async def last_started(service: Service) -> str:
    """What the engine calls the container that was started last."""
    bodies = [json.loads(record.data) for record in await service.records("sandbox-sb")]
    return str([body["intent"]["engine_id"] for body in bodies if "intent" in body][-1])
