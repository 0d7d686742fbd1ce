"""The domain name of a sandbox is that of its root's spec, for all that run in it."""

from typing import Any

import pytest

from manager import CallRefused
from manager.domain.exit_status import Exited
from tests.integration.service.conftest import Donor, Service, pipe, read_all, sh

pytestmark = pytest.mark.runtime
LOOK = "cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname"


def named(script: str, domainname: str) -> dict[str, Any]:
    return {**sh(script, hostname="box"), "domainname": domainname}


@pytest.mark.parametrize("service", ["crun", "runc", "bwrap"], indirect=True)
async def test_root_subcontainer_and_what_is_executed(service: Service, donor: Donor) -> None:
    spec = named(f"{LOOK}; exec sleep 900", "example.org")
    with pipe() as (read_end, write_end):
        sandbox = await service.client.create_sandbox("sb", spec, donor.donation(write_end))
        await sandbox.start_root()
        await sandbox.create_subcontainer("c")
        other = named(LOOK, "another.example")
        await sandbox.start_subcontainer("c", other, donor.donation(write_end))
        assert await sandbox.wait("c") == Exited(code=0)
        pid = await sandbox.execute("sb", ["/bin/sh", "-c", LOOK], {1: write_end})
        assert await sandbox.wait_process("sb", pid) == Exited(code=0)
        await sandbox.delete(force=True)
        assert read_all(read_end, write_end) == b"box\nexample.org\n" * 3


@pytest.mark.parametrize("service", ["crun", "runc", "bwrap"], indirect=True)
async def test_a_longer_one_than_the_kernel_keeps(service: Service, donor: Donor) -> None:
    with pipe() as (read_end, write_end):
        spec = named("echo it ran", "x" * 65)
        sandbox = await service.client.create_sandbox("sb", spec, donor.donation(write_end))
        with pytest.raises(CallRefused, match=r"cannot set domainname to 'x+': Invalid argument$"):
            await sandbox.start_root()
        assert read_all(read_end, write_end) == b""
    assert (await sandbox.state())["phase"] == "stopped"


@pytest.mark.parametrize("service", ["runsc"], indirect=True)
async def test_gvisor_of_2022_has_none(service: Service, donor: Donor) -> None:
    text = "^engine runsc does not support domainname: gVisor of 2022 tells the host name for it"
    with pytest.raises(CallRefused, match=text):
        await service.client.create_sandbox("sb", named("true", "d"), donor.donation())
