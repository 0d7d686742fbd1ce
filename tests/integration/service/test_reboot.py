"""The machine has been rebooted: what ran is gone, and nobody guesses how it ended."""

import os
import shutil
import signal
import sys
import uuid
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import pytest

from manager import CallRefused, ServiceUnavailable
from manager.domain.react import REBOOTED
from tests.integration.service.conftest import Donor, Service, keepers, sh, wait_for_end

pytestmark = pytest.mark.runtime

BOOT_ID = "/proc/sys/kernel/random/boot_id"


def rebooted(place: Path) -> tuple[str, ...]:
    """A command that runs Python where the machine's boot has another id."""
    (place / "boot_id").write_text(f"{uuid.uuid4()}\n")
    script = f'mount --bind {place}/boot_id {BOOT_ID} && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, "sh", sys.executable)


@pytest.mark.parametrize("directory", ["kept", "gone"])
async def test_every_container_is_lost(
    service: Service, donor: Donor, tmp_path: Path, directory: str
) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    await sandbox.create_subcontainer("c")
    await sandbox.start_subcontainer("c", sh("sleep 600"), donor.donation())
    containers = (await sandbox.state())["containers"]
    dying = [await service.worker_pid(), *keepers(service)]
    dying += [each["launched"]["pid"] for each in containers.values()]
    answers: list[str] = []

    async def wait() -> None:
        """As a client that asks again whenever its answer is lost, however long that takes."""
        while not answers:
            try:
                await sandbox.wait("c")
            except ServiceUnavailable:
                continue
            except CallRefused as refused:
                answers.append(str(refused))

    await anyio.to_thread.run_sync(service.kill)
    for pid in dying:
        os.kill(pid, signal.SIGKILL)
        await wait_for_end(pid)
    if directory == "gone":
        await anyio.to_thread.run_sync(shutil.rmtree, service.root / "worker")
    service.command = rebooted(tmp_path)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.to_thread.run_sync(service.start)
    assert answers == [f'container "c" is lost: {REBOOTED}']
    for cid in ("c", "sb"):
        with pytest.raises(CallRefused, match=f'container "{cid}" is lost: {REBOOTED}'):
            await sandbox.wait(cid)
    records = await service.records()
    boots = [
        msgspec.json.decode(each.data)["boot_id"]
        for each in records
        if each.type == "manager.started"
    ]
    assert boots[0] != boots[-1] == (tmp_path / "boot_id").read_text().strip()
    lost = [msgspec.json.decode(each.data) for each in records if each.type == "container.lost"]
    assert sorted(each["container"] for each in lost) == ["c", "sb"]
    assert {each["reason"] for each in lost} == {REBOOTED}
    assert "container.exited" not in {each.type for each in records}
    await sandbox.delete(force=True)
