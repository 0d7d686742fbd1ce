"""Following a log: how soon `sandtrail log -f` prints an event that was appended.

One process appends, another one follows, as a person would. Meanwhile the writer is started anew,
and the follower is interrupted and goes on with its cursor; no event may be missing or come twice.
A delay is from the moment when an append was answered until the line was read.
Usage::

    python -m benchmarks.bench_follow [--quick] [--log DIR]
"""

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.event_loop import run
from eventstore import ANY, EventLog, NewEvent, open_log
from manager.schema.layout import LOG_FILE

PACED, BURST = 500, 4_000
PAUSE_S_MAX = 0.02
APPENDERS = 16
AIM_P99_MS = 50
EVENT = NewEvent(type="sandbox.stopped", data={"reason": "its root container exited"}).data
READ_S_MAX = 120


class Follower:
    """The command, and when each of its lines was read.

    Attributes:
        seen: Positions in the order of the lines.
        at: When each was read, by position.
    """

    def __init__(self, path: Path) -> None:
        self.seen: list[int] = []
        self.at: dict[int, float] = {}
        self._path = path
        self._cursor = path.with_name("cursor")
        self._news = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin where the cursor is, if there is one."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "manager.cli", "log", "-f", "--json", "--log", str(self._path),
            "--cursor-file", str(self._cursor),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read(self._process.stdout))

    async def _read(self, lines: asyncio.StreamReader | None) -> None:
        assert lines is not None
        async for line in lines:
            now = time.perf_counter()
            position = json.loads(line)["position"]
            self.seen.append(position)
            self.at[position] = now
            self._news.set()

    async def until(self, position: int) -> None:
        """Wait until an event was read."""
        async with asyncio.timeout(READ_S_MAX):
            while position not in self.at:
                self._news.clear()
                await self._news.wait()

    async def interrupt(self) -> None:
        """End it as Ctrl-C does."""
        assert self._process is not None
        assert self._reading is not None
        self._process.send_signal(signal.SIGINT)
        await self._reading
        await self._process.wait()


async def append(log: EventLog, answered: dict[int, float], stream: str = "sandbox-a") -> None:
    (record,) = await log.append(stream, [NewEvent(type="x.y", data=EVENT)], expected=ANY)
    answered[record.position] = time.perf_counter()


async def paced(path: Path, count: int, answered: dict[int, float]) -> None:
    """Appends of a writer of its own, each after a pause that nobody knows."""
    chance = random.Random(count)
    async with open_log(path) as log:
        for _ in range(count):
            await asyncio.sleep(chance.random() * PAUSE_S_MAX)
            await append(log, answered)


async def burst(path: Path, count: int, answered: dict[int, float]) -> None:
    """Appends by many at once, as fast as they go."""

    async def some(log: EventLog, name: str) -> None:
        for _ in range(count // APPENDERS):
            await append(log, answered, name)

    async with open_log(path) as log:
        await asyncio.gather(*(some(log, f"sandbox-{each}") for each in range(APPENDERS)))


def tell(name: str, follower: Follower, answered: dict[int, float]) -> None:
    found = sorted((follower.at[position] - at) * 1000 for position, at in answered.items())
    p50, p99 = found[len(found) // 2], found[len(found) * 99 // 100]
    print(f"{name:<34} p50 {p50:7.1f} ms   p99 {p99:7.1f} ms   max {found[-1]:7.1f} ms")


async def follow(path: Path, count: int, many: int) -> None:
    follower = Follower(path)
    everything: dict[int, float] = {}
    await paced(path, 1, everything)
    await follower.start()
    await follower.until(1)
    for name in ("one at a time", "by a writer that was started anew"):
        answered: dict[int, float] = {}
        await paced(path, count, answered)
        await follower.until(max(answered))
        tell(name, follower, answered)
        everything |= answered
    answered = {}
    await burst(path, many, answered)
    await follower.until(max(answered))
    tell(f"{APPENDERS} at once, as fast as they go", follower, answered)
    everything |= answered
    await follower.interrupt()
    missed: dict[int, float] = {}
    await paced(path, count // 10, missed)
    began = time.perf_counter()
    await follower.start()
    await follower.until(max(missed))
    print(
        f"{'with its cursor, from its start on':<34} {(time.perf_counter() - began) * 1000:.0f} ms"
    )
    await follower.interrupt()
    everything |= missed
    assert follower.seen == sorted(everything), "an event is missing, or came twice"
    print(
        f"{len(follower.seen)} events, none is missing, none came twice; aim: p99 {AIM_P99_MS} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    parser.add_argument("--log", type=Path, help="a directory on the disk that is meant")
    asked = parser.parse_args()
    count, many = (20, 160) if asked.quick else (PACED, BURST)
    with tempfile.TemporaryDirectory(prefix="bench-follow-", dir=asked.log) as directory:
        run(follow(Path(directory) / LOG_FILE, count, many))


if __name__ == "__main__":
    main()
