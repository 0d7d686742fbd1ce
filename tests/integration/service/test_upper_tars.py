"""Archives for the upper layers of a sandbox's containers."""

import io
import os
import tarfile

import pytest

from manager.domain.exit_status import Exited
from tests.integration.service.conftest import Donor, Service, sh

pytestmark = pytest.mark.runtime


def archive(name: str) -> int:
    """An archive with one empty file, in memory; the caller closes it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    fd = os.memfd_create("archive")
    os.write(fd, made.getvalue())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


@pytest.mark.parametrize("service", ["crun", "runc", "bwrap", "runsc"], indirect=True)
async def test_each_container_sees_the_files_of_its_own(service: Service, donor: Donor) -> None:
    tars = {name: archive(name) for name in ("root", "other")}
    sees_only = "test -e /{} && test ! -e /{}".format
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
