"""Many random calls, right and wrong, side by side and cut off: nothing is left but the log."""

import contextlib
import json
import os
import random
import signal
import socket
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from manager.adapters.client import SandboxClient
from manager.adapters.compatibility import OF_GVISOR
from manager.application.errors import ManagerError
from manager.domain.evolve import fold
from manager.schema.events import decode_event
from tests.integration.service.conftest import Donor, Service, sh
from tests.integration.service.test_leaks import cgroups, footprint
from tests.patience import PATIENCE_S

WANTED = int(os.environ.get("SANDTRAIL_MIXED_CALLS", "0"))
CALLS = {"crun": 800, "runc": 240, "bwrap": 400, "runsc": 160}
"""How many on each engine unless it is said; some take long over each."""

SEED = int(os.environ.get("SANDTRAIL_MIXED_SEED", "1"))
CLIENTS = 8
CIDS = [f"c{number}" for number in range(12)]
STRANGER = "nobody"
WRONG_CIDS = [STRANGER, "..", "a/b", "x" * 200, "\n"]
METHODS = [each for each in OF_GVISOR if not each.endswith(".Pause")]
"""Any of them, with any argument; a sandbox that is paused for long would refuse most others."""

ANSWER_SECONDS = 0.05
"""How long to wait for an answer that may never come."""

GARBAGE = [
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"method":1}',
    b'{"method":"containerManager.Signal","arg":"x"}',
    b'{"method":"containerManager.StartSubcontainer","arg":{"CID":"c1"}}',
    b'{"method":"containerManager.Wait","arg":"c1"}',
]
pytestmark = pytest.mark.runtime


class Client:
    """One that makes random calls on a sandbox."""

    def __init__(self, sandbox: SandboxClient, donor: Donor, path: Path, seed: int) -> None:
        self.sandbox = sandbox
        self.donor = donor
        self.path = path
        self.random = random.Random(seed)
        self.calls = [
            *[self.create] * 4,
            *[self.start] * 6,
            *[self.signal] * 4,
            *[self.destroy] * 4,
            *[self.wait] * 2,
            *[self.garbage] * 4,
            self.wrong_start,
            self.processes,
            self.stats,
            self.runtime_state,
            self.pause,
            self.execute,
            *[self.anything] * 4,
        ]

    async def run(self, count: int) -> None:
        for _ in range(count):
            call = self.random.choice(self.calls)
            with contextlib.suppress(ManagerError), anyio.move_on_after(self.patience()):
                await call()

    def patience(self) -> float:
        """Most wait for their answer; some hang up in the middle."""
        return self.random.choice([10, 10, 10, 0.02, 0.001])

    def cid(self) -> str:
        return self.random.choice(CIDS if self.random.random() < 0.9 else WRONG_CIDS)

    async def create(self) -> None:
        await self.sandbox.create_subcontainer(self.cid())

    async def start(self) -> None:
        script = self.random.choice(["true", "exit 3", "sleep 600", "exec /nope"])
        await self.sandbox.start_subcontainer(self.cid(), sh(script), self.donor.donation())

    async def wrong_start(self) -> None:
        spec = sh("true")
        spec["process"]["args"] = self.random.choice([[], ["/nope"], [""]])
        await self.sandbox.start_subcontainer(self.cid(), spec, self.donor.donation())

    async def signal(self) -> None:
        signo = self.random.choice([0, signal.SIGKILL, signal.SIGTERM, 99, -1])
        everyone = self.random.random() < 0.5
        await self.sandbox.signal(signo, self.cid(), everyone=everyone)

    async def destroy(self) -> None:
        await self.sandbox.destroy(self.cid())

    async def wait(self) -> None:
        with anyio.move_on_after(ANSWER_SECONDS):
            await self.sandbox.wait(self.cid())

    async def processes(self) -> None:
        await self.sandbox.processes(self.cid())

    async def stats(self) -> None:
        await self.sandbox.stats(self.cid())

    async def runtime_state(self) -> None:
        await self.sandbox.runtime_state(self.cid())

    async def pause(self) -> None:
        await self.sandbox.pause()
        await self.sandbox.resume()

    async def execute(self) -> None:
        arg = {"argv": ["/bin/true"], "ContainerID": self.cid(), "GuestFDs": [0, 1, 2]}
        request = {"method": "containerManager.ExecuteAsync", "arg": arg}
        await self.send(json.dumps(request).encode(), files=3)

    async def anything(self) -> None:
        cid, pid = self.cid(), self.random.choice([-1, 0, 1, 2, 1 << 31])
        forms: list[object] = [None, {}, [], 7, cid, {"CID": cid}, {"CID": 7}]
        forms.append({"CID": cid, "PID": pid, "Signo": 0, "Mode": self.random.randrange(-1, 5)})
        method, arg = self.random.choice(METHODS), self.random.choice(forms)
        with anyio.move_on_after(ANSWER_SECONDS):
            await self.sandbox._transport.call("sb", method, arg, again=False)

    async def garbage(self) -> None:
        await self.send(self.random.choice(GARBAGE), files=self.random.choice([0, 1, 128]))

    async def send(self, request: bytes, *, files: int) -> None:
        """Send bytes with files, and leave without reading what comes."""
        await anyio.lowlevel.checkpoint()
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
            sock.connect(str(self.path))
            socket.send_fds(sock, [request], [self.donor.null_in] * files)


@pytest.mark.parametrize("service", CALLS, indirect=True)
async def test_nothing_is_left_but_the_log(service: Service, donor: Donor) -> None:
    calls = WANTED or CALLS[service.engine]
    print(f"SANDTRAIL_MIXED_SEED={SEED} SANDTRAIL_MIXED_CALLS={calls}")
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    await sandbox.processes()
    worker = await service.worker_pid()
    descriptors = await service.fd_counts()
    before = footprint(service.pid, worker, service.root)
    path = service.root / "sandboxes" / "sb" / "control.sock"
    clients = [Client(sandbox, donor, path, SEED * 1000 + number) for number in range(CLIENTS)]
    async with anyio.create_task_group() as tasks:
        for client in clients:
            tasks.start_soon(client.run, calls // CLIENTS)
    await service.fd_counts()  # at rest: what was hung up on has been done as well
    with contextlib.suppress(ManagerError):
        await sandbox.resume()
    for cid in (*CIDS, STRANGER):
        with contextlib.suppress(ManagerError):
            await sandbox.destroy(cid)
    assert await service.fd_counts() == descriptors
    with anyio.move_on_after(PATIENCE_S):
        while (left := footprint(service.pid, worker, service.root)) != before:
            await anyio.sleep(0.05)
    assert left == before
    records = await service.records("sandbox-sb")
    replayed = fold(decode_event(record.type, record.data) for record in records)
    assert {each.status for cid, each in replayed.containers.items() if cid != "sb"} <= {
        "destroyed"
    }
    started = [
        each.intent.engine_id
        for cid, each in replayed.containers.items()
        if cid != "sb" and each.intent is not None
    ]
    assert cgroups(set(started)) == []
    assert not replayed.signals
    assert replayed.pausing is None
    live = await sandbox.state()
    assert set(live["containers"]) == set(replayed.containers)
    for cid, found in live["containers"].items():
        assert found["status"] == replayed.containers[cid].status
