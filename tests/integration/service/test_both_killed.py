"""Manager and worker are killed: what a container's end was is still on record afterwards."""

import contextlib
import os
import signal

import anyio
import anyio.to_thread
import msgspec
import pytest

from manager import CallRefused, Donation, Layer
from manager.adapters.client import SandboxClient
from manager.domain.exit_status import Exited, ExitStatus, Signaled
from manager.domain.react import KEEPER_GONE
from tests.integration.service.conftest import (
    ENGINES,
    Donor,
    Service,
    keepers,
    pipe,
    sh,
    wait_for_end,
)
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime


@pytest.mark.parametrize("service", ENGINES, indirect=True)
@pytest.mark.parametrize("victims", ["worker", "both"])
async def test_an_exit_that_nobody_of_ours_saw_is_recorded(
    service: Service, donor: Donor, victims: str
) -> None:
    with pipe() as (read_end, write_end):
        sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
        await sandbox.start_root()
        await sandbox.create_subcontainer("code")
        stdin = Donation(
            rootfs=Layer(source=donor.rootfs, upper="memory", size="16m"),
            stdio=(read_end, donor.null_out, donor.null_out),
        )
        await sandbox.start_subcontainer("code", sh("read line; exit 42"), stdin)
        init = (await sandbox.state())["containers"]["code"]["launched"]["pid"]
        worker = await service.worker_pid()
        if victims == "both":
            service.kill()
        os.kill(worker, signal.SIGKILL)
        os.write(write_end, b"go\n")
        await wait_for_end(init)
        if victims == "both":
            await wait_for_end(worker)
            service.start()
        # Only a parent is told everywhere: the worker, and then the manager.
        may_be_lost = victims == "both" and not await exit_statuses_are_told(service)
        code_ended = await its_end(sandbox, "code", Exited(code=42), may_be_lost=may_be_lost)
        await sandbox.signal(signal.SIGKILL, cid="sb")
        sb_ended = await its_end(sandbox, "sb", Signaled(signal=9), may_be_lost=may_be_lost)
    ends = [
        (msgspec.json.decode(each.data)["container"], each.type)
        for each in await service.records()
        if each.type in {"container.exited", "container.lost"}
    ]
    assert sorted(ends) == [("code", code_ended), ("sb", sb_ended)]


async def its_end(
    sandbox: SandboxClient, cid: str, status: ExitStatus, *, may_be_lost: bool
) -> str:
    """The event of a container's end, whose status is the true one, or that it is lost."""
    try:
        assert await sandbox.wait(cid) == status
    except CallRefused as refused:
        if not may_be_lost or "this kernel does not tell it" not in str(refused):
            raise
        return "container.lost"
    return "container.exited"


async def exit_statuses_are_told(service: Service) -> bool:
    """Whether this kernel tells by pidfd how a process ended that others had reaped (6.15)."""
    [*_, found] = [each.data for each in await service.records() if each.type == "worker.started"]
    capabilities = msgspec.json.decode(found)["capabilities"]
    return bool(capabilities["exit-status"] == "PIDFD_GET_INFO")


async def test_an_exit_that_was_seen_but_not_recorded_is_not_lost(
    service: Service, donor: Donor
) -> None:
    """The manager is dead: the worker sees the end, keeps word of it, and is killed as well."""
    with pipe() as (read_end, write_end):
        sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
        await sandbox.start_root()
        await sandbox.create_subcontainer("code")
        stdin = Donation(
            rootfs=Layer(source=donor.rootfs, upper="memory", size="16m"),
            stdio=(read_end, donor.null_out, donor.null_out),
        )
        await sandbox.start_subcontainer("code", sh("read line; exit 43"), stdin)
        worker = await service.worker_pid()
        service.kill()
        os.write(write_end, b"go\n")
        launches = service.root / "worker" / "launches"
        with anyio.fail_after(PATIENCE_S):
            while len(list(launches.iterdir())) > 1:  # all of it was removed: the end was seen
                await anyio.sleep(0.01)
        os.kill(worker, signal.SIGKILL)
        await wait_for_end(worker)
        service.start()
        assert await sandbox.wait("code") == Exited(code=43)
        assert (await sandbox.state())["containers"]["code"]["status"] == "stopped"


async def test_the_keeper_outlives_both_and_leaves_with_the_last_container(
    service: Service, donor: Donor
) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    [keeper] = keepers(service)
    worker = await service.worker_pid()
    service.kill()
    os.kill(worker, signal.SIGKILL)
    await wait_for_end(worker)
    service.start()
    await sandbox.state()
    assert keepers(service) == [keeper]
    await sandbox.delete(force=True)
    worker = await service.worker_pid()
    service.stop()
    await wait_for_end(worker)
    await wait_for_end(keeper)
    service.start()


async def test_a_keeper_that_is_killed_is_replaced(service: Service, donor: Donor) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    [keeper] = keepers(service)
    os.kill(keeper, signal.SIGKILL)
    await wait_for_end(keeper)
    await sandbox.create_subcontainer("c1")
    await sandbox.start_subcontainer("c1", sh("sleep 600"), donor.donation())
    [other] = keepers(service)
    assert other != keeper
    with anyio.fail_after(PATIENCE_S):
        while len(pidfds(other)) < 2:  # the one from before as well; it hears when it has started
            await anyio.sleep(0.01)


def pidfds(pid: int) -> list[str]:
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # it opens and closes others meanwhile
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return [link for link in found if "pidfd" in link]


@pytest.mark.parametrize("victims", ["worker", "both"])
async def test_descriptors_that_died_with_the_worker_are_said_to_be_lost(
    service: Service, donor: Donor, victims: str
) -> None:
    """They waited for the start in the worker alone."""
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    worker = await service.worker_pid()
    if victims == "both":
        await anyio.to_thread.run_sync(service.kill)
    os.kill(worker, signal.SIGKILL)
    await wait_for_end(worker)
    if victims == "both":
        await anyio.to_thread.run_sync(service.start)
    with anyio.fail_after(PATIENCE_S):
        while not (lost := [e for e in await service.records() if e.type == "container.hold_lost"]):
            await anyio.sleep(0.01)
    told = [msgspec.json.decode(each.data) for each in lost]
    assert told == [{"container": "sb", "reason": KEEPER_GONE}]
    with pytest.raises(CallRefused, match="donated"):
        await sandbox.start_root()
    await sandbox.destroy("sb")
    await sandbox.delete()
