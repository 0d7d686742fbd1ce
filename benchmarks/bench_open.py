"""Opening a manager on a long log, with and without a snapshot, beside a bare loop over its rows.

Makes the log (benchmarks.make_log) unless one is given, and measures each way in processes of its
own, interleaved. The worker is a stand-in that knows every container that runs, as after a restart
of the manager; everything else is the real thing, durable. Usage::

    python -m benchmarks.bench_open [--events N] [--live N] [--rounds N] [--log FILE] [--record]
"""

import argparse
import asyncio
import json
import logging
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio

from benchmarks.make_log import make_log
from benchmarks.recorded import print_beside, record
from eventstore import SealPolicy, Snapshot, load_signer, open_log
from manager.adapters.descriptors import KernelDescriptors
from manager.adapters.identity import RandomIds
from manager.application.live_sandbox import LiveSandbox
from manager.application.node import open_node
from manager.application.ports import NodePorts
from manager.application.settings import SNAPSHOT_EVENTS
from manager.domain.evolve import evolve
from manager.domain.state import ABSENT, Sandbox
from manager.schema import worker as w
from manager.schema.events import decode_event
from manager.schema.node_events import ManagerStarted
from manager.schema.node_fold import NodeFold
from manager.schema.node_snapshot import (
    SNAPSHOT_DIRECTORY,
    advance,
    encode_sandboxes,
    node_snapshots,
)
from manager.urpc.fds import FdBundle

LOG = "events.db"
SELECT = "SELECT * FROM event_record ORDER BY position"
SELECT_DATA = (
    "SELECT name, data FROM event_record JOIN event_type ON id = type_id ORDER BY position"
)
SELECT_STREAM_DATA = (
    "SELECT stream_id, name, data FROM event_record JOIN event_type ON id = type_id "
    "ORDER BY position"
)
NODE_EVENTS = ("manager.", "worker.", "recovery.")
STARTED = ManagerStarted(version="bench", pid=1, boot_id="b", kernel="k")


class StandIn:
    """A worker and a connection to it: knows what runs, and says nothing more."""

    def __init__(self, launches: Sequence[str]) -> None:
        self.welcome = w.Welcome(
            protocol=w.PROTOCOL_VERSION,
            worker=w.PidIdentity(pid=1, start_ticks=1, pidfd_inode=1, boot_id="b"),
            kernel="k",
            engines=(w.EngineReport(name="crun", works=True),),
            capabilities={},
            held=(),
            launches=tuple(w.LaunchFact(launch_id=key, phase="running") for key in launches),
        )

    def reap(self, pid: int) -> None:
        """Nothing to reap."""

    async def connect(self) -> "StandIn":
        """Be connected."""
        await anyio.lowlevel.checkpoint()
        return self

    async def send(
        self,
        message: w.ToWorker,  # noqa: ARG002 - the protocol's
        files: FdBundle | None = None,
    ) -> None:
        """Take it."""
        (files or FdBundle()).close()
        await anyio.lowlevel.checkpoint()

    async def receive(self) -> Sequence[w.Outcome]:
        """Wait for ever."""
        await anyio.sleep_forever()
        return ()

    async def aclose(self) -> None:
        """Nothing to close."""


def running(sandbox: LiveSandbox) -> int:
    return sum(found.status == "running" for found in sandbox.state.containers.values())


def launch_ids(root: Path) -> list[str]:
    found: list[str] = json.loads((root / "launches.json").read_text())
    return found


def read_rows(root: Path) -> int:
    count = 0
    for _ in sqlite3.connect(root / LOG).execute(SELECT):
        count += 1
    return count


def decode_rows(root: Path) -> int:
    count = 0
    for tag, data in sqlite3.connect(root / LOG).execute(SELECT_DATA):
        if not tag.startswith(NODE_EVENTS):
            decode_event(tag, data)
        count += 1
    return count


def open_manager(root: Path, launches: Sequence[str], *, with_snapshots: bool) -> int:
    async def run() -> int:
        seal = SealPolicy(signer=load_signer(root / "log.key"))
        async with open_log(root / LOG, seal=seal) as log:
            ports = NodePorts(
                log=log,
                workers=StandIn(launches),
                descriptors=KernelDescriptors(),
                ids=RandomIds(),
                env_key=b"k" * 32,
                snapshots=node_snapshots(root) if with_snapshots else None,
            )
            # What is measured must not write snapshots of its own.
            async with open_node(ports, started=STARTED, snapshot_events=10**12) as node:
                measured()
                return sum(map(running, node.registry.all().values()))

    return anyio.run(run)


def fold_rows(root: Path) -> int:
    states: dict[int, Sandbox] = {}
    for stream, tag, data in sqlite3.connect(root / LOG).execute(SELECT_STREAM_DATA):
        if not tag.startswith(NODE_EVENTS):
            states[stream] = evolve(states.get(stream, ABSENT), decode_event(tag, data))
    return len(states)


began = time.perf_counter()


def measured() -> None:
    """Print what it took until now, and what it takes in memory."""
    took = time.perf_counter() - began
    # Not getrusage(2): its ru_maxrss begins with that of the parent.
    status = Path("/proc/self/status").read_text()
    peak_kib = int(status.split("VmHWM:")[1].split()[0])
    print(json.dumps({"seconds": took, "peak_mib": peak_kib / 1024}), flush=True)


def child(way: str, root: Path) -> None:
    global began  # noqa: PLW0603 - imports are not what is measured
    logging.basicConfig()
    began = time.perf_counter()
    match way:
        case "rows":
            read_rows(root)
            measured()
        case "decoded":
            decode_rows(root)
            measured()
        case "folded":
            fold_rows(root)
            measured()
        case "lost":
            open_manager(root, (), with_snapshots=True)
        case _:
            open_manager(root, launch_ids(root), with_snapshots=way != "whole")


WAYS = {
    "rows": "sqlite3, every row, nothing done with it",
    "decoded": "the same, payloads decoded into their types",
    "folded": "the same, and each stream folded",
    "whole": "manager, no snapshot",
    "tail": f"manager, snapshot {SNAPSHOT_EVENTS} events old",
    "fresh": "manager, snapshot of a clean stop",
    "lost": "the same, and the worker is new: all is lost",
}
SNAPSHOT_OF = {"tail": "tail", "fresh": "fresh", "lost": "fresh"}
RECORDS_MUCH = "lost"
"""Adds to the log, so it comes last, once."""


async def prepare(root: Path, log: Path | None, events: int, live: int) -> dict[str, Any]:
    """The log, its seal, and directories of snapshots for the ways that want them."""
    target = root / LOG
    if log is None:
        await make_log(target, events=events, live=live)
    else:
        shutil.copy2(log, target)
    async with open_log(target, seal=SealPolicy(signer=load_signer(root / "log.key"))) as opened:
        head = await opened.head()
        facts: dict[str, Any] = {"events": head}
        fold = NodeFold()
        for way, position in (("tail", head - SNAPSHOT_EVENTS), ("fresh", head)):
            await advance(fold, opened, until=position)
            last = await anext(aiter(opened.read(after=position - 1, limit=1)))
            clock = time.perf_counter()
            body = encode_sandboxes(fold.live.items())
            facts["encode_ms"] = (time.perf_counter() - clock) * 1000
            clock = time.perf_counter()
            snapshot = Snapshot(position=position, leaf_hash=last.leaf_hash, body=body)
            node_snapshots(root / way).save(snapshot)
            facts["write_ms"] = (time.perf_counter() - clock) * 1000
            facts["snapshot_mib"] = len(body) / 2**20
    states = [folded.state for folded in fold.live.values()]
    containers = [found for state in states for found in state.containers.values()]
    run = [found.intent for found in containers if found.status == "running"]
    launches = [intent.launch_id for intent in run if intent is not None]
    (root / "launches.json").write_text(json.dumps(launches))
    return facts | {
        "sandboxes": len(states),
        "remembered": len(containers),
        "running": len(launches),
        "log_mib": target.stat().st_size / 2**20,
    }


def one_round(root: Path, way: str) -> dict[str, float]:
    shutil.rmtree(root / SNAPSHOT_DIRECTORY, ignore_errors=True)
    source = SNAPSHOT_OF.get(way)
    if source:
        shutil.copytree(root / source / SNAPSHOT_DIRECTORY, root / SNAPSHOT_DIRECTORY)
    command = [sys.executable, "-m", "benchmarks.bench_open", "--way", way, "--root", str(root)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--live", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--record", action="store_true", help="keep the ratios of this run")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way:
        child(asked.way, asked.root)
        return
    with tempfile.TemporaryDirectory(prefix="sandtrail-bench-") as name:
        root = Path(name)
        (root / "tail").mkdir()
        (root / "fresh").mkdir()
        facts = asyncio.run(prepare(root, asked.log, asked.events, asked.live))
        found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(asked.rounds):
            for way in WAYS:
                if way != RECORDS_MUCH:
                    found[way].append(one_round(root, way))
        found[RECORDS_MUCH].append(one_round(root, RECORDS_MUCH))
    ratios = report(facts, found)
    print_beside("open", ratios)
    if asked.record:
        record("open", ratios)


def report(facts: dict[str, Any], found: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """Print the table; returns its ratios."""
    ratios = {}
    print(
        f"{facts['events']} events, {facts['log_mib']:.0f} MiB; {facts['running']} containers run "
        f"in {facts['sandboxes']} sandboxes, which remember {facts['remembered']}"
    )
    print(
        f"snapshot: {facts['snapshot_mib']:.1f} MiB, {facts['encode_ms']:.0f} ms to encode, "
        f"{facts['write_ms']:.0f} ms to write"
    )
    base = statistics.median(each["seconds"] for each in found["rows"])
    print(f"{'':<48}{'seconds':>9}{'x rows':>9}{'events/s':>11}{'peak MiB':>10}")
    for way, rounds in found.items():
        seconds = statistics.median(each["seconds"] for each in rounds)
        peak = max(each["peak_mib"] for each in rounds)
        pace = "" if way in SNAPSHOT_OF else f"{facts['events'] / seconds:.0f}"
        ratio = ratios[f"{WAYS[way]}, to bare rows"] = seconds / base
        print(f"{WAYS[way]:<48}{seconds:>9.2f}{ratio:>9.2f}{pace:>11}{peak:>10.0f}")
    return ratios


if __name__ == "__main__":
    main()
