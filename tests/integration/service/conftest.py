"""A real service on real sockets with real containers."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from eventstore import RecordedEvent, open_log
from manager import Donation, Layer, connect
from manager.adapters.client import ManagerClient
from manager.application.default_spec import default_spec
from manager.kernel.pidfd import open_pidfd
from manager.schema.layout import LOG_FILE
from replay.redecide import redecide
from replay.trail import Trail
from tests.patience import PATIENCE_S

AT_REST_SAMPLES = 50
ENGINES_FILE = "engines.json"
KEEPER = "manager/worker/keeper.py"
ENGINES = ("crun", "runc", "bwrap", "runsc")
APPLETS = ("sh", "echo", "sleep", "true", "cat", "ls", "hostname", "id", "readlink", "kill", "stat")


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root filesystem of busybox, with every mount point that a default spec needs."""
    if os.geteuid() != 0:
        pytest.skip("containers with donated mounts need root")
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed (apt-get install busybox-static)")
    root = tmp_path_factory.mktemp("rootfs")
    for name in ("bin", "proc", "dev", "sys", "tmp", "etc"):
        (root / name).mkdir()
    shutil.copy2(busybox, root / "bin" / "busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    return root


class Service:
    """A `sandtrail serve` that can be killed and started again."""

    def __init__(
        self, root: Path, engine: str = "auto", command: Sequence[str] = (sys.executable,)
    ) -> None:
        self.root = root
        self.engine = engine
        self.command = command
        self.options: Sequence[str] = ()
        self.told: dict[str, Any] = {}
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> "Service":
        self._process = subprocess.Popen(
            [
                *(*self.command, "-m", "manager.cli", "serve", "--json"),
                *("--root", str(self.root), "--engine", self.engine, *self.options),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        lines = []
        for line in self._process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        self.told = msgspec.json.decode("".join(lines))
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._reap()

    def stop(self) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._reap()

    def _reap(self) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self._process.wait(PATIENCE_S)

    @property
    def client(self) -> ManagerClient:
        return connect(self.root / "control.sock")

    async def records(self, stream: str | None = None) -> list[RecordedEvent]:
        async with open_log(self.root / "events.db", read_only=True) as log:
            return [
                record async for record in log.read() if stream is None or record.stream == stream
            ]

    async def worker_pid(self) -> int:
        found = [record for record in await self.records("node") if record.type == "worker.started"]
        return int(msgspec.json.decode(found[-1].data)["identity"]["pid"])

    async def fd_counts(self) -> tuple[int, int]:
        """Descriptors of manager and worker, once both have come to rest.

        A connection closes a moment after its last reply, in another process: that cannot be
        awaited, only looked for.
        """
        worker = await self.worker_pid()
        samples: list[tuple[int, int]] = []
        with anyio.fail_after(PATIENCE_S):
            while len(samples) < AT_REST_SAMPLES or len(set(samples[-AT_REST_SAMPLES:])) > 1:
                await anyio.sleep(0.005)
                samples.append((fd_count(self.pid), fd_count(worker)))
        return samples[-1]

    async def end(self) -> None:
        """Delete every sandbox, stop the service, and see the worker leave."""
        with contextlib.suppress(Exception):
            for summary in await self.client.sandboxes():
                await self.client.sandbox(summary["ID"]).delete(force=True)
        worker = await self.worker_pid()
        self.stop()
        await self.is_left_by(worker)

    async def is_left_by(self, worker: int) -> None:
        """Wait until nothing of it runs any more: the worker, and then its keeper."""
        await wait_for_end(worker)
        for keeper in keepers(self):
            await wait_for_end(keeper)


def keepers(service: Service) -> list[int]:
    """Pids of the keepers that listen for this service's workers."""
    inodes = {
        line.split()[6]
        for line in Path("/proc/net/unix").read_text().splitlines()
        if line.endswith(f"{service.root}/worker/keeper.sock")
    }
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and KEEPER in Path(f"/proc/{entry}/cmdline").read_text():
                listens = os.readlink(f"/proc/{entry}/fd/0").removeprefix("socket:[").rstrip("]")
                found += [int(entry)] * (listens in inodes)
        except OSError:
            continue
    return found


def fd_count(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def wait_for_end(pid: int) -> None:
    """Wait until a process that is not ours is gone."""
    try:
        handle = open_pidfd(pid)
    except ProcessLookupError:
        return
    with handle, anyio.fail_after(PATIENCE_S):
        await anyio.wait_readable(handle.number)


@pytest.fixture(scope="session")
def probed(tmp_path_factory: pytest.TempPathFactory, rootfs: Path) -> Path:
    """What a worker has found out about the engines of this machine."""
    service = Service(tmp_path_factory.mktemp("probed") / "state").start()
    service.stop()
    return service.root / "worker" / ENGINES_FILE


def know_engines(root: Path, probed: Path) -> None:
    """Have the worker of a service that begins in ``root`` believe what another has found out."""
    root.mkdir(mode=0o700)
    (root / "worker").mkdir(mode=0o700)
    shutil.copy(probed, root / "worker" / ENGINES_FILE)


@pytest.fixture(params=["auto"])
async def service(
    request: pytest.FixtureRequest, tmp_path: Path, rootfs: Path, probed: Path
) -> AsyncIterator[Service]:
    root = tmp_path / "state"
    know_engines(root, probed)
    running = Service(root, request.param).start()
    if not running.told:
        pytest.skip(f"engine {request.param} does not work here")
    yield running
    await running.end()
    await every_decision_is_taken_again(running.root / LOG_FILE)


@pytest.fixture(scope="session")
def criu() -> str:
    """The program by which runc saves containers, where it can do what it is for."""
    program = os.environ.get("SANDTRAIL_CRIU") or shutil.which("criu")
    if program is None or shutil.which("runc") is None:
        pytest.skip("CRIU or runc is not installed")
    checked = subprocess.run([program, "check"], capture_output=True, text=True, check=False)
    if checked.returncode:
        pytest.skip(f"`criu check` fails here: {checked.stderr.strip()}")
    return program


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Where an image is to be."""
    return tmp_path / "image"


@contextlib.asynccontextmanager
async def service_with(program: str, engine: str, directory: Path) -> AsyncIterator[Service]:
    """A service whose engine is a shell script, with the real one where it says `{real}`."""
    real = shutil.which(engine)
    if real is None:
        pytest.skip(f"{engine} is not installed")
    script, state = directory / engine, directory / "state"
    script.write_text(program.replace("{real}", real))
    script.chmod(0o755)
    state.mkdir(mode=0o700)
    command = (sys.executable, "-m", "manager.worker", "--state", str(state))
    worker = subprocess.Popen([*command, "--engine-path", f"{engine}={script}"])
    with anyio.fail_after(PATIENCE_S):
        while not (state / "worker" / ENGINES_FILE).exists():
            await anyio.sleep(0.01)
    service = Service(state, engine).start()
    try:
        yield service
    finally:
        await service.end()
        assert worker.wait(PATIENCE_S) == 0


def cgroups(engine_ids: set[str]) -> list[Path]:
    """Those of these containers; whatever else comes and goes meanwhile does not matter."""
    found = (Path(place, name) for place, names, _ in os.walk("/sys/fs/cgroup") for name in names)
    return sorted(path for path in found if path.name in engine_ids)


async def every_decision_is_taken_again(path: Path) -> None:
    """From the log alone, and comes out as it did."""
    if path.exists():
        async with Trail.open(path) as trail:
            async for found in redecide(trail, await trail.window()):
                assert found.verdict == "same", found


class Donor:
    """Opens what starts need and lends it; closes everything at the end."""

    def __init__(self, rootfs: Path) -> None:
        self.rootfs = os.open(rootfs, os.O_PATH | os.O_DIRECTORY)
        self.null_in = os.open(os.devnull, os.O_RDONLY)
        self.null_out = os.open(os.devnull, os.O_WRONLY)

    def donation(self, out: int | None = None, **parts: Any) -> Donation:
        stdout = self.null_out if out is None else out
        layer = parts.pop("root", Layer(source=self.rootfs, upper="memory", size="16m"))
        return Donation(rootfs=layer, stdio=(self.null_in, stdout, self.null_out), **parts)

    def close(self) -> None:
        for fd in (self.rootfs, self.null_in, self.null_out):
            os.close(fd)


@pytest.fixture
def donor(rootfs: Path) -> Iterator[Donor]:
    lender = Donor(rootfs)
    yield lender
    lender.close()


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    read_end, write_end = os.pipe()
    try:
        yield read_end, write_end
    finally:
        os.close(read_end)
        with contextlib.suppress(OSError):
            os.close(write_end)


def read_all(read_end: int, write_end: int) -> bytes:
    """Everything that was written, once the last writer is gone; closes our own write end."""
    os.close(write_end)
    chunks = []
    while chunk := os.read(read_end, 65536):
        chunks.append(chunk)
    return b"".join(chunks)


def sh(script: str, **members: Any) -> dict[str, Any]:
    """The spec of a shell script."""
    return default_spec(args=["/bin/sh", "-c", script], **members)
