"""Archives for the upper layers of a sandbox's containers, made of what others have written."""

import os
import tarfile
from pathlib import Path

import pytest

from manager import Layer
from manager.adapters.client import SandboxClient
from manager.domain.exit_status import Exited
from tests.integration.service.conftest import Donor, Service, sh

pytestmark = pytest.mark.runtime
NAMES = ("root", "other")


async def written(sandbox_id: str, service: Service, donor: Donor, place: Path) -> dict[str, int]:
    """An archive of what each of two containers has written; the caller closes them."""
    stores, donations = [], []
    for name in NAMES:
        (place / name).mkdir()
        stores.append(os.open(place / name, os.O_PATH | os.O_DIRECTORY))
        layer = Layer(source=donor.rootfs, upper="filestore", filestore=stores[-1])
        donations.append(donor.donation(root=layer))
    root, other = donations
    sandbox = await service.client.create_sandbox(sandbox_id, sh("echo 1 >/root; sleep 900"), root)
    await sandbox.start_root()
    await sandbox.create_subcontainer("c")
    await sandbox.start_subcontainer("c", sh("echo 2 >/other"), other)
    assert await sandbox.wait("c") == Exited(code=0)
    await until(sandbox, "test -s /root")
    await sandbox.delete(force=True)
    tars = {}
    for name, store in zip(NAMES, stores, strict=True):
        os.close(store)
        tars[name] = os.memfd_create("archive")
        with (
            os.fdopen(os.dup(tars[name]), "wb") as file,
            tarfile.open(fileobj=file, mode="w") as tar,
        ):
            tar.add(place / name / "upper", arcname=".")
        os.lseek(tars[name], 0, os.SEEK_SET)
    return tars


async def until(sandbox: SandboxClient, script: str) -> None:
    """Wait until a shell in the root container finds that it is so."""
    script = f"until {script}; do sleep 0.01; done"
    pid = await sandbox.execute(sandbox.id, ["/bin/sh", "-c", script], {})
    assert await sandbox.wait_process(sandbox.id, pid) == Exited(code=0)


@pytest.mark.parametrize("service", ["crun", "runc", "bwrap", "runsc"], indirect=True)
async def test_each_container_sees_the_files_of_its_own(
    service: Service, donor: Donor, tmp_path: Path
) -> None:
    tars = await written("before", service, donor, tmp_path)
    sees_only = "test -s /{} && test ! -e /{}".format
    spec = sh(f"{sees_only('root', 'other')} || exit 1; sleep 900")
    sandbox = await service.client.create_sandbox(
        "sb", spec, donor.donation(upper_tar=tars["root"])
    )
    await sandbox.start_root()
    await sandbox.create_subcontainer("c")
    spec = sh(f"{sees_only('other', 'root')} && exit 7")
    await sandbox.start_subcontainer("c", spec, donor.donation(upper_tar=tars["other"]))
    assert await sandbox.wait("c") == Exited(code=7)
    command = ["/bin/sh", "-c", sees_only("root", "other")]
    pid = await sandbox.execute("sb", command, {})
    assert await sandbox.wait_process("sb", pid) == Exited(code=0)
    await sandbox.delete(force=True)
    for fd in tars.values():
        os.close(fd)
