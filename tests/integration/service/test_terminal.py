"""A donated terminal is the controlling terminal of the container's init."""

import os
import pty

import pytest

from manager import CallRefused, Donation, default_spec
from manager.domain.exit_status import Exited
from tests.integration.service.conftest import ENGINES, Donor, Service

pytestmark = pytest.mark.runtime


def spec(engine: str) -> dict[str, object]:
    # /dev/tty can only be opened by a process that has a controlling terminal; in gVisor of 2022
    # a terminal of the host's cannot be opened by that name.
    tty = "" if engine == "runsc" else ">/dev/tty"
    script = f"test -t 0 && test -t 1 && echo seen {tty} && exit 6"
    return default_spec(args=["/bin/sh", "-c", script], terminal=True)


@pytest.mark.parametrize("service", ENGINES, indirect=True)
async def test_root_and_subcontainer_each_on_their_own_terminal(
    service: Service, donor: Donor
) -> None:
    layer = donor.donation().rootfs
    idle = default_spec(args=["/bin/sleep", "600"])
    sandbox = await service.client.create_sandbox("sb", idle, donor.donation())
    await sandbox.start_root()
    master, slave = pty.openpty()
    await sandbox.create_subcontainer("c1", tty=slave)
    os.close(slave)
    await sandbox.start_subcontainer("c1", spec(service.engine), Donation(rootfs=layer))
    assert await sandbox.wait("c1") == Exited(code=6)
    assert os.read(master, 100) == b"seen\r\n"
    os.close(master)

    master, slave = pty.openpty()
    donation = Donation(rootfs=layer, tty=slave)
    other = await service.client.create_sandbox("other", spec(service.engine), donation)
    os.close(slave)
    await other.start_root()
    assert await other.wait() == Exited(code=6)
    assert os.read(master, 100) == b"seen\r\n"
    os.close(master)


async def test_a_terminal_that_is_none_is_refused(service: Service, donor: Donor) -> None:
    sandbox = await service.client.create_sandbox(
        "sb", default_spec(args=["/bin/sleep", "600"]), donor.donation()
    )
    with pytest.raises(CallRefused, match="TTY file must be a terminal"):
        await sandbox.create_subcontainer("c1", tty=donor.null_in)
    await sandbox.start_root()
    await sandbox.create_subcontainer("c2")
    with pytest.raises(CallRefused, match="terminal enabled but no TTY provided"):
        await sandbox.start_subcontainer(
            "c2", spec(service.engine), Donation(rootfs=donor.donation().rootfs)
        )
