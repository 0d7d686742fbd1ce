"""The event log beside bare `sqlite3` and a rival, `eventsourcing`, all durable, in one run.

Usage::

    python -m benchmarks.bench_log [--rounds N] [--quick] [--record]

Contenders take turns; each figure is the median of the rounds, and a ratio to what
benchmarks.raw_log does in the same rounds. `--quick` only shows that it runs.
"""

import argparse
import asyncio
import hashlib
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import raw_log, rival_log
from benchmarks.event_loop import run
from benchmarks.recorded import record, recorded
from benchmarks.tail_log import tail
from eventstore import ANY, Actor, EventLog, NewEvent, open_log, verify_log
from eventstore.canonical import encode_fields

DATA = b'{"cid":"c1","exit":{"type":"exited","code":3},"source":"waitid","at_ns":1800000000000000}'
ACTOR = Actor(uid=0, gid=0, pid=1)
STREAMS = 256
BATCH = 256
STREAM_EVENTS = 100


class Exit(msgspec.Struct, frozen=True):
    """How something ended."""

    type: str
    code: int


class Happened(msgspec.Struct, frozen=True):
    """The payload, typed."""

    cid: str
    exit: Exit
    source: str
    at_ns: int


decode = msgspec.json.Decoder(Happened).decode


class Sizes(msgspec.Struct, frozen=True):
    """How much each contender does in a round."""

    single: int = 1500
    many: int = 40_000
    read: int = 100_000
    streams: int = 300
    rival: int = 400
    tail: int = 400


QUICK = Sizes(single=20, many=600, read=2_000, streams=5, rival=10, tail=10)


def new_event() -> NewEvent:
    return NewEvent(type="container.exited", data=DATA, actor=ACTOR)


async def append_each(path: Path, count: int, appenders: int) -> list[float]:
    """Append single events from concurrent tasks; the seconds that each waited, the whole last."""
    waited: list[float] = []

    async def appender(log: EventLog, number: int) -> None:
        for _ in range(count // appenders):
            began = time.perf_counter()
            await log.append(f"stream-{number}", [new_event()], expected=ANY)
            waited.append(time.perf_counter() - began)

    async with open_log(path) as log:
        began = time.perf_counter()
        await asyncio.gather(*(appender(log, number) for number in range(appenders)))
        waited.append(time.perf_counter() - began)
    return waited


async def append_many(path: Path, count: int, batch: int) -> float:
    """Append many events at once; the seconds that it took."""
    async with open_log(path) as log:
        began = time.perf_counter()
        for number in range(count // batch):
            events = [new_event() for _ in range(batch)]
            await log.append(f"stream-{number % STREAMS}", events, expected=ANY)
        return time.perf_counter() - began


async def replay(path: Path) -> float:
    """Read everything, decode and fold; the seconds that it took."""
    async with open_log(path, read_only=True) as log:
        began = time.perf_counter()
        state: dict[str, int] = {}
        async for found in log.read():
            payload = decode(found.data)
            state[found.stream] = state.get(found.stream, 0) + payload.exit.code
        return time.perf_counter() - began


def replay_raw(path: Path) -> float:
    began = time.perf_counter()
    state: dict[object, int] = {}
    for row in raw_log.read_all(path):
        payload = decode(row[9])  # type: ignore[arg-type]  # the row is the bench's own
        state[row[1]] = state.get(row[1], 0) + payload.exit.code
    return time.perf_counter() - began


async def load_streams(path: Path, count: int) -> float:
    """Load streams of 100 events, one after the other; the seconds for one."""
    async with open_log(path, read_only=True) as log:
        began = time.perf_counter()
        for number in range(count):
            total = 0
            async for found in log.read(f"stream-{number % STREAMS}", limit=STREAM_EVENTS):
                total += decode(found.data).exit.code
            assert total == 3 * STREAM_EVENTS
        return (time.perf_counter() - began) / count


def load_streams_raw(path: Path, count: int) -> float:
    connection = raw_log.open_raw(path)
    began = time.perf_counter()
    for number in range(count):
        rows = connection.execute(
            raw_log.SELECT + "WHERE stream_id = ? ORDER BY version LIMIT ?",
            (number % STREAMS, STREAM_EVENTS),
        ).fetchall()
        assert sum(decode(row[9]).exit.code for row in rows) == 3 * STREAM_EVENTS
    taken = time.perf_counter() - began
    connection.close()
    return taken / count


def verify_raw(path: Path) -> float:
    """Hash the canonical bytes of every row and the tree above them, in a bare loop."""
    began = time.perf_counter()
    peaks: list[tuple[int, bytes]] = []
    for row in raw_log.read_all(path):
        fields = [None if each is None else str(each).encode() for each in row[:9]]
        fields.append(row[9])  # type: ignore[arg-type]  # the row is the bench's own
        peak = (1, hashlib.sha256(b"\0" + encode_fields(fields)).digest())
        while peaks and peaks[-1][0] == peak[0]:
            size, left = peaks.pop()
            peak = (2 * size, hashlib.sha256(b"\1" + left + peak[1]).digest())
        peaks.append(peak)
    return time.perf_counter() - began


def verify(path: Path) -> float:
    began = time.perf_counter()
    verify_log(path)
    return time.perf_counter() - began


class Figures:
    """What was measured, by row; medians of the rounds."""

    def __init__(self) -> None:
        self._samples: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        """Keep one sample."""
        self._samples.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        """The median of a row's samples."""
        return statistics.median(self._samples[name])

    def __contains__(self, name: str) -> bool:
        return name in self._samples


def measure(figures: Figures, directory: Path, sizes: Sizes) -> None:
    """One round of everything."""
    ready = raw_log.rows(sizes.many, DATA, STREAMS)

    def place(name: str) -> Path:
        return directory / name

    raw_single = raw_log.store_all(place("raw-1"), ready[: sizes.single], 1)
    figures.add("raw commit p50 ms", statistics.median(raw_single) * 1000)
    taken = sum(raw_log.store_all(place("raw-256"), ready, BATCH))
    figures.add("raw rows/s in batches of 256", sizes.many / taken)
    taken = raw_log.make_and_store_all(place("raw-hashed"), sizes.many, DATA, STREAMS, BATCH)
    figures.add("raw rows/s, made and hashed, in 256s", sizes.many / taken)
    taken = sum(raw_log.store_all(place("raw-1000"), ready, 1000))
    figures.add("raw rows/s in batches of 1000", sizes.many / taken)

    waited = run(append_each(place("log-1"), sizes.single, 1))
    figures.add("append p50 ms, 1 appender", statistics.median(waited[:-1]) * 1000)
    figures.add("append/s, 1 appender", sizes.single / waited[-1])
    for appenders in (16, 256):
        count = max(appenders, sizes.many * min(appenders, 64) // 64)
        waited = run(append_each(place(f"log-{appenders}"), count, appenders))
        figures.add(f"append/s, {appenders} appenders", (len(waited) - 1) / waited[-1])
        p99 = sorted(waited[:-1])[len(waited) * 99 // 100 - 1]
        figures.add(f"append p99 ms, {appenders} appenders", p99 * 1000)
    taken = run(append_many(place("log-many"), sizes.many, min(1000, sizes.many)))
    figures.add("append_many events/s, 1000 at once", sizes.many / taken)
    if rival_log.AVAILABLE:
        taken = sum(rival_log.save_each(place("rival-1"), sizes.rival))
        figures.add("rival save(1)/s", sizes.rival / taken)
    tails = run(tail(place("log-1"), new_event, sizes.tail))
    figures.add("tail in another process p50 ms", tails[len(tails) // 2])
    figures.add(TAIL_P99, tails[len(tails) * 99 // 100])


def prepare(directory: Path, sizes: Sizes) -> list[Any]:
    """Make the logs that are read; the ids of the rival's streams."""
    count = max(sizes.read, STREAMS * STREAM_EVENTS)
    ready = raw_log.rows(count, DATA, STREAMS)
    raw_log.store_all(directory / "raw-read", ready, 1000)

    async def fill() -> None:
        async with open_log(directory / "log-read") as log:
            for number in range(count // STREAM_EVENTS + 1):
                events = [new_event() for _ in range(STREAM_EVENTS)]
                await log.append(f"stream-{number % STREAMS}", events, expected=ANY)

    run(fill())
    if not rival_log.AVAILABLE:
        return []
    return rival_log.save_streams(directory / "rival-read", sizes.rival // 4, STREAM_EVENTS)


def measure_reads(figures: Figures, directory: Path, sizes: Sizes, ids: list[Any]) -> None:
    """One round of everything that only reads."""
    raw, log = directory / "raw-read", directory / "log-read"
    events = max(sizes.read, STREAMS * STREAM_EVENTS)
    figures.add("raw replay and fold events/s", events / replay_raw(raw))
    figures.add("replay and fold events/s", events / run(replay(log)))
    figures.add("raw stream of 100, ms", load_streams_raw(raw, sizes.streams) * 1000)
    figures.add("stream of 100, ms", run(load_streams(log, sizes.streams)) * 1000)
    figures.add("raw hashing of rows events/s", events / verify_raw(raw))
    figures.add("verify events/s", events / verify(log))
    if ids:
        rival = directory / "rival-read"
        began = time.perf_counter()
        seen = rival_log.read_notifications(rival)
        figures.add("rival notifications/s", seen / (time.perf_counter() - began))
        began = time.perf_counter()
        rival_log.load_streams(rival, ids)
        taken = (time.perf_counter() - began) / len(ids)
        figures.add("rival stream of 100, ms", taken * 1000)
    for name, path in (("raw ", raw), ("", log)):
        figures.add(f"{name}bytes per event", path.stat().st_size / events)


RAW_256 = "raw rows/s in batches of 256"
AT_256 = "append/s, 256 appenders"
REPLAY = "replay and fold events/s"
TAIL_P99 = "tail in another process p99 ms"


class Ratio(msgspec.Struct, frozen=True):
    """A figure beside another, and where we would like to be."""

    name: str
    value: str
    base: str
    aim: str = ""


RATIOS = (
    Ratio(
        "append p50, 1 appender / raw commit p50",
        "append p50 ms, 1 appender",
        "raw commit p50 ms",
        "<= 2",
    ),
    Ratio("append, 256 appenders / raw in 256s", AT_256, RAW_256, ">= 0.6"),
    Ratio("append, 256 appenders / raw and hashed", AT_256, "raw rows/s, made and hashed, in 256s"),
    Ratio("append, 16 appenders / raw in 256s", "append/s, 16 appenders", RAW_256),
    Ratio("append, 256 appenders / rival save(1)", AT_256, "rival save(1)/s", ">= 45"),
    Ratio("raw in 256s / rival save(1)", RAW_256, "rival save(1)/s"),
    Ratio(
        "append_many / raw in 1000s",
        "append_many events/s, 1000 at once",
        "raw rows/s in batches of 1000",
    ),
    Ratio("replay and fold / raw", REPLAY, "raw replay and fold events/s", ">= 0.8"),
    Ratio("replay and fold / rival notifications", REPLAY, "rival notifications/s", ">= 10"),
    Ratio(
        "raw replay and fold / rival notifications",
        "raw replay and fold events/s",
        "rival notifications/s",
    ),
    Ratio("stream of 100 / raw", "stream of 100, ms", "raw stream of 100, ms"),
    Ratio("stream of 100 / rival", "stream of 100, ms", "rival stream of 100, ms"),
    Ratio("verify / raw hashing", "verify events/s", "raw hashing of rows events/s"),
    Ratio("bytes per event / raw", "bytes per event", "raw bytes per event"),
)
ABSOLUTE = (
    "append p50 ms, 1 appender",
    "append/s, 1 appender",
    "append/s, 16 appenders",
    "append/s, 256 appenders",
    "append p99 ms, 16 appenders",
    "append p99 ms, 256 appenders",
    "append_many events/s, 1000 at once",
    "replay and fold events/s",
    "stream of 100, ms",
    "verify events/s",
    "bytes per event",
    "tail in another process p50 ms",
    TAIL_P99,
)
TAIL_P99_AIM_MS = 50


def report(figures: Figures) -> dict[str, float]:
    """Print the ratios, then what they are made of; returns the ratios."""
    last = recorded("log")
    ratios = {}
    print(f"{'ratio':<46}{'now':>9}{'last':>9}  aim")
    for ratio in RATIOS:
        if ratio.value not in figures or ratio.base not in figures:
            print(f"{ratio.name:<46}{'-':>9}{'-':>9}  needs: pip install eventsourcing")
            continue
        now = ratios[ratio.name] = figures.median(ratio.value) / figures.median(ratio.base)
        before = f"{last[ratio.name]:.2f}" if ratio.name in last else "-"
        print(f"{ratio.name:<46}{now:>9.2f}{before:>9}  {ratio.aim}")
    print()
    for name in ABSOLUTE:
        aim = f"  <= {TAIL_P99_AIM_MS}" if name == TAIL_P99 else ""
        print(f"{name:<46}{figures.median(name):>12.2f}{aim}")
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--record", action="store_true", help="keep the ratios of this run")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else Sizes()
    figures = Figures()
    reads = Path(tempfile.mkdtemp(prefix="bench-log-"))
    try:
        ids = prepare(reads, sizes)
        for _ in range(1 if arguments.quick else arguments.rounds):
            directory = Path(tempfile.mkdtemp(prefix="bench-log-"))
            try:
                measure(figures, directory, sizes)
            finally:
                shutil.rmtree(directory)
            measure_reads(figures, reads, sizes, ids)
    finally:
        shutil.rmtree(reads)
    ratios = report(figures)
    if arguments.record:
        record("log", ratios)


if __name__ == "__main__":
    main()
