"""What a call costs that starts nothing: from Python, from gVisor's Go client, beside Go alone.

One connection a call, as both clients make them; where a connection is kept, the row says so.
"""

import os
import sqlite3
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from benchmarks.contenders import container_spec
from benchmarks.event_loop import run
from benchmarks.go_program import build_go
from benchmarks.service import Sandtrail
from manager import CallRefused

GO_PROGRAM: Final = Path(__file__).with_name("gourpc")
GO_CACHE: Final = Path(os.environ.get("GOCACHE", Path.home() / ".cache" / "go-build"))
"""Kept between runs: building takes longer than measuring."""

CALLS_SECONDS: Final = 60

RAW_COMMIT: Final = "raw commit, durable"
REJECTED: Final = "rejected start, Python"
REJECTED_GO: Final = "rejected start, Go client"
TRIVIAL: Final = "trivial call, Python"
TRIVIAL_GO: Final = "trivial call, Go client"
TRIVIAL_KEPT: Final = "trivial call, Go client, one connection"
GO: Final = "Go client, Go server"
GO_KEPT: Final = "Go client, Go server, one connection"

Trips = dict[str, list[float]]
"""Seconds of each round trip, by name."""


def measure_round_trips(
    contender: Sandtrail, rootfs: Path, directory: Path, *, blocks: int, calls: int
) -> Trips:
    """Make so many blocks of so many calls of each kind, the kinds interleaved."""
    service = contender.service
    name = service.client.sandbox("bench").id
    socket_path = service.root / "sandboxes" / name / "control.sock"
    commit = RawCommit(directory / "raw.db", service.root / "events.db")
    kinds: dict[str, Callable[[], list[float]]] = {
        RAW_COMMIT: lambda: [commit.once() for _ in range(calls)],
        REJECTED: lambda: run(_rejected(contender, calls)),
        TRIVIAL: lambda: run(_trivial(contender, calls)),
    }
    program, server = build_go(GO_PROGRAM, directory / "gourpc-program", GO_CACHE), None
    if program is not None:
        go_socket = directory / "go.sock"
        server = subprocess.Popen([program, "serve", go_socket], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        server.stdout.readline()

        def go(what: str, path: Path, last: str) -> list[float]:
            assert program is not None
            return _go([program, what, path, name, str(calls), last])

        kinds |= {
            GO: lambda: go("trivial", go_socket, "anew"),
            TRIVIAL_GO: lambda: go("trivial", socket_path, "anew"),
            GO_KEPT: lambda: go("trivial", go_socket, "keep"),
            TRIVIAL_KEPT: lambda: go("trivial", socket_path, "keep"),
            REJECTED_GO: lambda: go("rejected", socket_path, str(rootfs)),
        }
    trips: Trips = {kind: [] for kind in kinds}
    try:
        for _ in range(blocks):
            for kind, measure in kinds.items():
                trips[kind] += measure()
    finally:
        commit.close()
        if server is not None:
            server.terminate()
            server.wait()
            assert server.stdout is not None
            server.stdout.close()
    return trips


def _go(command: list[str | Path]) -> list[float]:
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, timeout=CALLS_SECONDS
    )
    return [int(line) / 1e9 for line in done.stdout.split()]


async def _timed(count: int, call: Callable[[], Awaitable[object]]) -> list[float]:
    found = []
    for _ in range(count):
        began = time.perf_counter()
        await call()
        found.append(time.perf_counter() - began)
    return found


async def _trivial(contender: Sandtrail, count: int) -> list[float]:
    return await _timed(count, contender.sandbox.runtime_state)


async def _rejected(contender: Sandtrail, count: int) -> list[float]:
    spec = container_spec("/bin/true")

    async def refused() -> None:
        # The sandbox's root container runs already.
        try:
            await contender.start(contender.sandbox.id, spec)
        except CallRefused:
            return
        raise AssertionError("a second start of what runs was accepted")

    return await _timed(count, refused)


class RawCommit:
    """One row a transaction, synced: `sqlite3` in C, called from Python.

    Args:
        path: Of the database to make.
        sample: A log; rows are as long as what it has of a rejected start on average.
    """

    def __init__(self, path: Path, sample: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE raw (position INTEGER PRIMARY KEY, data TEXT)")
        with sqlite3.connect(f"file:{sample}?mode=ro", uri=True) as log:
            ((data,),) = log.execute(
                "SELECT data FROM events WHERE type = 'container.start_accepted' "
                "OR type = 'sandbox.created' LIMIT 1"
            ).fetchall()
        self._data = data

    def once(self) -> float:
        """Commit one; seconds."""
        began = time.perf_counter()
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("INSERT INTO raw (data) VALUES (?)", (self._data,))
        self._connection.execute("COMMIT")
        return time.perf_counter() - began

    def close(self) -> None:
        """Close the database."""
        self._connection.close()
