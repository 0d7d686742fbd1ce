"""Ten thousand connections, and clients that donate all they can and never read."""

import contextlib
import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path

import anyio
import pytest

from manager.urpc.load import LoadLimits
from manager.urpc.server_aio import CONNECTIONS_MAX
from manager.urpc.unix_address import connect_unix
from tests.integration.service.conftest import (
    Donor,
    Service,
    pipe,
    read_all,
    sh,
    wait_for_end,
)
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime

CONNECTIONS = 10_000
TURNED_AWAY = f"too many connections: this socket has {CONNECTIONS_MAX} at most"
FILES_EACH = 128
LIMITS = LoadLimits.of_process(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
DONORS = min(60, LIMITS.files_max // FILES_EACH - 2)


async def connected(path: Path) -> socket.socket:
    while True:
        try:
            return connect_unix(path)
        except BlockingIOError:  # the backlog is full: the service has not come round to it yet
            await anyio.sleep(0.001)


async def hung_up(sock: socket.socket) -> bytes:
    """What the service says before it hangs up."""
    said = b""
    while True:
        await anyio.wait_readable(sock)
        with contextlib.suppress(ConnectionResetError):
            data = sock.recv(4096)
            said += data
            if data:
                continue
        return said


async def test_ten_thousand_connections(service: Service, donor: Donor) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    before = await service.fd_counts()
    path = service.root / "control.sock"
    with contextlib.ExitStack() as owned:
        admitted = [owned.enter_context(await connected(path)) for _ in range(CONNECTIONS_MAX)]
        turned_away = 0
        for _ in range(CONNECTIONS - CONNECTIONS_MAX):
            with await connected(path) as sock:
                said = json.loads(await hung_up(sock))
                assert (
                    said["err"]
                    == f"too many connections: this socket has {CONNECTIONS_MAX} at most"
                )
                turned_away += 1
        assert turned_away == CONNECTIONS - CONNECTIONS_MAX
        await sandbox.create_subcontainer("c")
        await sandbox.start_subcontainer("c", sh("exit 3"), donor.donation())
        assert (await sandbox.wait("c")).code == 3, "other sockets have not noticed"
        admitted[0].send(b'{"method":"sandboxManager.List","arg":null}')
        await anyio.wait_readable(admitted[0])
        assert json.loads(admitted[0].recv(65536))["success"]
    await sandbox.destroy("c")
    assert await service.fd_counts() == before


async def test_donors_that_never_read(service: Service, donor: Donor) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    before = await service.fd_counts()
    path = service.root / "sandboxes" / "sb" / "control.sock"
    call = b'{"method":"containerManager.StartSubcontainer","arg":{"CID":"x"'
    refused = 0
    with contextlib.ExitStack() as owned:
        for number in range(DONORS):
            sock = owned.enter_context(await connected(path))
            whole = number % 2 == 0
            socket.send_fds(sock, [call + b"}}" if whole else call], [donor.null_in] * FILES_EACH)
            refused += whole
        assert await sandbox.state()
        with anyio.fail_after(PATIENCE_S):
            records: list[str] = []
            while len(records) < refused:
                events = await service.records("sandbox-sb")
                records = [each.type for each in events if each.type == "container.start_rejected"]
        assert len(os.listdir(f"/proc/{service.pid}/fd")) > DONORS // 2 * FILES_EACH
        await sandbox.create_subcontainer("c")
        await sandbox.start_subcontainer("c", sh("exit 3"), donor.donation())
        assert (await sandbox.wait("c")).code == 3
    await sandbox.destroy("c")
    assert await service.fd_counts() == before


async def test_the_services_own_limit_of_files_is_not_the_containers(
    tmp_path: Path, rootfs: Path, donor: Donor
) -> None:
    service = Service(
        tmp_path / "state", command=("prlimit", "--nofile=1000:9000", sys.executable)
    ).start()
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    worker = await service.worker_pid()
    os.kill(worker, signal.SIGKILL)
    await wait_for_end(worker)
    with anyio.fail_after(PATIENCE_S):
        while await service.worker_pid() == worker:
            await anyio.sleep(0.01)  # a service that has raised its own limit starts this one
    with pipe() as (read_end, write_end):
        await sandbox.create_subcontainer("c")
        script = sh("ulimit -Sn; ulimit -Hn")
        await sandbox.start_subcontainer("c", script, donor.donation(out=write_end))
        assert read_all(read_end, write_end) == b"1000\n9000\n"
    limits = Path(f"/proc/{service.pid}/limits").read_text()
    assert [line.split()[3] for line in limits.splitlines() if "open files" in line] == ["9000"]
    await service.end()
