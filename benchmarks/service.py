"""A `sandtrail serve` under measurement: its starts, and what its processes take."""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from typing_extensions import override

from benchmarks.contenders import Batch, Contender, container_spec
from benchmarks.event_loop import run
from manager import Donation, Layer, ManagerClient, SandboxClient, connect

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 60
WORKER_QUERY = "SELECT data FROM events WHERE type = 'worker.started' ORDER BY position DESC"


class Service:
    """A service in a process of its own, as a user would start it.

    Args:
        root: Its state directory.
        engine: Its engine.
    """

    def __init__(self, root: Path, engine: str) -> None:
        self.root = root
        self._engine = engine
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> float:
        """Start it; seconds until it was ready."""
        began = time.perf_counter()
        command = [sys.executable, "-m", "manager.cli", "serve", "--root", str(self.root)]
        self._process = subprocess.Popen(
            [*command, "--engine", self._engine], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline().startswith("ready"):
            sys.exit(f"no service with {self._engine}")
        return time.perf_counter() - began

    def stop(self) -> None:
        """Stop it; its worker leaves once nothing runs."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(STOP_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def client(self) -> ManagerClient:
        """A client of its socket."""
        return connect(self.root / "control.sock")

    @property
    def manager(self) -> int:
        """Pid of the manager."""
        assert self._process is not None
        return self._process.pid

    def worker(self) -> int:
        """Pid of the worker."""
        with sqlite3.connect(self._read_only(), uri=True) as connection:
            ((data,), *_) = connection.execute(WORKER_QUERY).fetchall()
        return int(json.loads(data)["identity"]["pid"])

    def log_bytes(self) -> int:
        """Size of the log, what waits in its write-ahead log included."""
        with sqlite3.connect(self._read_only(), uri=True) as connection:
            ((pages,),) = connection.execute("PRAGMA page_count").fetchall()
            ((size,),) = connection.execute("PRAGMA page_size").fetchall()
        return int(pages) * int(size)

    def _read_only(self) -> str:
        return f"file:{self.root}/events.db?mode=ro"


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, that of its children left out."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def memory_kib(pid: int) -> int:
    """A process's memory, of what it shares its share (PSS)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(rollup.split("\nPss:")[1].split()[0])


class Donor:
    """The descriptors that starts donate."""

    def __init__(self, rootfs: Path) -> None:
        self._root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY)
        self._null = os.open(os.devnull, os.O_RDWR)

    def donation(self, *, overlay: bool = False) -> Donation:
        """A root filesystem, bound or below an overlay in memory, and nothing on the streams."""
        upper = "memory" if overlay else "none"
        rootfs = Layer(source=self._root, upper=upper, size="64m" if overlay else "")
        return Donation(rootfs=rootfs, stdio=(self._null,) * 3)

    def close(self) -> None:
        """Close them."""
        os.close(self._root)
        os.close(self._null)


class Sandtrail(Contender):
    """Subcontainers of one sandbox, over the sockets: create, start, wait, destroy.

    Args:
        directory: For its state.
        rootfs: What is donated.
        engine: Which.
        overlay: Whether the root can be written: an overlay, its upper layer in memory.

    Attributes:
        running: Seconds from each request of a start to its answer: the container runs.
        ended: Seconds from each request of a start until its exit was on record.
    """

    def __init__(self, directory: Path, rootfs: Path, engine: str, *, overlay: bool) -> None:
        self.engine = engine
        self.overlay = overlay
        self.name = f"sandtrail {engine}{', overlay' if overlay else ''}"
        self.slow = engine == "runsc"
        self.running: list[float] = []
        self.ended: list[float] = []
        self._donor = Donor(rootfs)
        self._number = 0
        self.service = Service(directory, engine)
        self.service.start()
        asyncio.run(self._open())

    @property
    def sandbox(self) -> SandboxClient:
        """Where subcontainers are started."""
        return self.service.client.sandbox("bench")

    async def _open(self) -> None:
        idle = container_spec("/bin/sleep", "3600")
        sandbox = await self.service.client.create_sandbox("bench", idle, self._donor.donation())
        await sandbox.start_root()

    @override
    def measure(self, count: int, concurrency: int) -> Batch:
        return run(self._measure(count, concurrency))

    async def _measure(self, count: int, concurrency: int) -> Batch:
        lives: list[float] = []
        self.running, self.ended = [], []
        names = self.names(count)
        spec = container_spec("/bin/true")

        async def one(cid: str) -> None:
            began = time.perf_counter()
            await self.sandbox.create_subcontainer(cid)
            asked = time.perf_counter()
            await self.start(cid, spec)
            self.running.append(time.perf_counter() - asked)
            await self.sandbox.wait(cid)
            self.ended.append(time.perf_counter() - asked)
            await self.sandbox.destroy(cid)
            lives.append(time.perf_counter() - began)

        began = time.perf_counter()
        await at_once(concurrency, names, one)
        return Batch(lives, time.perf_counter() - began)

    async def start(self, cid: str, spec: dict[str, Any]) -> None:
        """Start a container that was created."""
        await self.sandbox.start_subcontainer(cid, spec, self._donor.donation(overlay=self.overlay))

    def names(self, count: int) -> list[str]:
        """Names that no container has had."""
        first = self._number
        self._number += count
        return [f"c{number}" for number in range(first, self._number)]

    @override
    def close(self) -> None:
        run(self.sandbox.delete(force=True))
        self.service.stop()
        self._donor.close()


async def at_once(
    concurrency: int, names: Sequence[str], one: Callable[[str], Awaitable[None]]
) -> None:
    """Do it for each name, so many at a time."""
    waiting = iter(names)

    async def client() -> None:
        for name in waiting:
            await one(name)

    await asyncio.gather(*(client() for _ in range(concurrency)))


class Phase(Struct, frozen=True):
    """What one step of many lives took, a container.

    Attributes:
        seconds: Of wall time.
        manager: Seconds of the manager's processor time.
        worker: The same of the worker; its engines are not in it.
    """

    seconds: float
    manager: float
    worker: float


def measure_steps(contender: Sandtrail, count: int) -> tuple[dict[str, Phase], dict[str, float]]:
    """Take `count` containers through their life step by step, eight at a time.

    Returns:
        Each step, and memory (KiB of manager and worker, a container that runs) and bytes of the
        log (a life).
    """
    service, sandbox = contender.service, contender.sandbox
    manager, worker = service.manager, service.worker()
    names = contender.names(count)
    sleeper = container_spec("/bin/sleep", "3600")
    steps: dict[str, Callable[[str], Awaitable[Any]]] = {
        "create": sandbox.create_subcontainer,
        "start": lambda cid: contender.start(cid, sleeper),
        "kill and wait": lambda cid: _end(sandbox, cid),
        "destroy": sandbox.destroy,
    }
    phases: dict[str, Phase] = {}
    log_before = service.log_bytes()
    memory_before = memory_kib(manager) + memory_kib(worker)
    facts: dict[str, float] = {}
    for name, step in steps.items():
        cpu = cpu_seconds(manager), cpu_seconds(worker)
        began = time.perf_counter()
        run(at_once(8, names, step))
        phases[name] = Phase(
            (time.perf_counter() - began) / count,
            (cpu_seconds(manager) - cpu[0]) / count,
            (cpu_seconds(worker) - cpu[1]) / count,
        )
        if name == "start":
            memory = memory_kib(manager) + memory_kib(worker)
            facts["memory KiB"] = (memory - memory_before) / count
    facts["log bytes"] = (service.log_bytes() - log_before) / count
    return phases, facts


async def _end(sandbox: SandboxClient, cid: str) -> None:
    await sandbox.signal(9, cid)
    await sandbox.wait(cid)


def measure_ready(directory: Path, rounds: int) -> dict[str, float]:
    """Median seconds from the start of `sandtrail serve` to `ready`; of Python alone beside it."""
    found: dict[str, list[float]] = {"python": [], "new": [], "again": []}
    for number in range(rounds):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        found["python"].append(time.perf_counter() - began)
        service = Service(directory / f"ready-{number}", "crun")
        for kind in ("new", "again"):
            found[kind].append(service.start())
            service.stop()
        shutil.rmtree(service.root, ignore_errors=True)
    return {name: statistics.median(values) for name, values in found.items()}
