"""What only gVisor's sandboxes do that are saved, and brought back."""

import os
import signal
from pathlib import Path

import pytest

from manager import CallRefused
from manager.adapters.client import SandboxClient
from manager.domain.exit_status import Exited
from tests.integration.service.conftest import Donor, Service, service_with
from tests.integration.service.saving import Counted, counter, save, started

pytestmark = pytest.mark.runtime
gvisor = pytest.mark.parametrize("service", ["runsc"], indirect=True)


DIES_BADLY = r"""#!/bin/sh
for each in "$@"; do
    case "$last" in
    --root) root=$each ;;
    --image-path) image=$each ;;
    esac
    last=$each
done
case " $* " in
*" checkpoint "*)
    echo its memory > "$image/checkpoint.img"
    exit
    ;;
*" resume "*)
    state=$({real} --root "$root" state "$last")
    pid=$(echo "$state" | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')
    exec kill -9 "$pid"
    ;;
esac
exec {real} "$@"
"""
"""The real one, but what is said to be saved ends only when it may go on, and badly."""


async def test_what_is_in_an_image_has_ended_well_however_its_kernel_ends(
    tmp_path: Path, donor: Donor, image: Path
) -> None:
    async with service_with(DIES_BADLY, "runsc", tmp_path) as service:
        sandbox, counts = await started(service, donor, ["root"])
        await save(sandbox, image)
        assert await sandbox.wait() == Exited(code=0)
        await counts[0].rest()


async def begun(
    service: Service, donor: Donor, image: Path, sandbox_id: str
) -> tuple[SandboxClient, list[Counted]]:
    """A sandbox that waits for its second container."""
    counts = [Counted(), Counted()]
    donation = donor.donation(counts[0].write)
    sandbox = await service.client.create_sandbox(sandbox_id, counter("root"), donation)
    with image.open("rb") as file:
        await sandbox.restore(file)
    await sandbox.create_subcontainer("c")
    return sandbox, counts


@gvisor
async def test_a_manager_killed_while_containers_are_parked(
    service: Service, donor: Donor, image: Path
) -> None:
    sandbox, counts = await started(service, donor, ["root", "other"])
    await save(sandbox, image)
    stopped = [await each.rest() for each in counts]
    sandbox, counts = await begun(service, donor, image, "new")
    service.kill()
    service.start()
    assert (await sandbox.state())["phase"] == "restoringUnstarted"
    await sandbox.restore_subcontainer("c", counter("other"), donor.donation(counts[1].write))
    for before, each in zip(stopped, counts, strict=True):
        assert await each.numbers(1) == [before + 1]


@gvisor
async def test_a_worker_killed_while_containers_are_parked(
    service: Service, donor: Donor, image: Path
) -> None:
    sandbox, counts = await started(service, donor, ["root", "other"])
    await save(sandbox, image)
    sandbox, counts = await begun(service, donor, image, "new")
    os.kill(await service.worker_pid(), signal.SIGKILL)
    with pytest.raises(CallRefused, match=r"failed: the .* lost: no worker keeps the donated"):
        await sandbox.wait_restore()
    assert (await sandbox.state())["phase"] == "restoreFailed"
    text = "sandbox is not being restored, cannot restore subcontainer: state=restoreFailed"
    donation = donor.donation(counts[1].write)
    with pytest.raises(CallRefused, match=text):
        await sandbox.restore_subcontainer("c", counter("other"), donation)
    await sandbox.delete()


@gvisor
async def test_a_sandbox_deleted_while_containers_are_parked_leaves_no_image(
    service: Service, donor: Donor, image: Path
) -> None:
    """Else the worker would not leave when the service is stopped, which the fixture awaits."""
    sandbox, counts = await started(service, donor, ["root", "other"])
    await save(sandbox, image)
    for each in counts:
        await each.rest()
    await sandbox.delete(force=True)
    before = await service.fd_counts()
    for _ in range(3):
        sandbox, counts = await begun(service, donor, image, "new")
        await sandbox.delete(force=True)
        for each in counts:
            each.close()
    assert await service.fd_counts() == before


@gvisor
async def test_what_still_runs_is_not_brought_back_beside_itself(
    service: Service, donor: Donor, image: Path
) -> None:
    sandbox, _ = await started(service, donor, ["root"])
    await save(sandbox, image, resume=True)
    again = await service.client.create_sandbox("new", counter("root"), donor.donation())
    with image.open("rb") as file, pytest.raises(CallRefused, match="is still here: destroy it"):
        await again.restore(file)
    assert (await sandbox.state())["phase"] == "started"
