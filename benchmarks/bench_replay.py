"""Asking a log of a million events: how long the questions of an auditor take.

Makes the log (benchmarks.make_log, spread over thirty days) unless one is given, with snapshots as
a service leaves them. Each command is run as a user runs it, in a process of its own. Usage::

    python -m benchmarks.bench_replay [--events N] [--live N] [--rounds N] [--log FILE] [--record]
"""

import argparse
import asyncio
import hashlib
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.make_log import make_log
from benchmarks.recorded import print_beside, record
from eventstore import SealPolicy, Snapshot, Verdict, load_signer, load_verifier, open_log
from eventstore.canonical import encode_fields, hash_leaf
from eventstore.keys import public_path
from eventstore.merkle import Frontier
from manager.domain.decide import decide
from manager.schema.layout import LOG_FILE
from manager.schema.layout import SEAL_KEY_FILE as KEY
from manager.schema.node_fold import STREAM_PREFIX, NodeFold, decode_record
from manager.schema.node_snapshot import (
    advance,
    encode_sandboxes,
    node_snapshots,
    open_fold,
    recall,
)
from replay.commands import commands_of
from replay.evidence.verification import verify_file
from replay.facts import FactReader
from replay.redecide import redecide, whatif
from replay.settings import parse_settings
from replay.trail import Trail, Window

DAYS = 30
VERIFY_ROUNDS = 2
SELECT_ROWS = (
    "SELECT position, stream, version, type, event_id, recorded_at_ns, correlation_id, causation, "
    "actor, data, (SELECT documents FROM event_record r WHERE r.position = events.position), "
    "leaf_hash FROM events ORDER BY position"
)
BYTECODE = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""Commands find their modules compiled, as they do where they are installed."""
SNAPSHOTS = 16
"""About as many as a service keeps of so long a log."""
CHECKED_EVENTS = 100_000
EVENTS_A_ROUND = 140
SUPPOSED = ("restore-spec-validation=enforce", "permit=none")
"""A setting that reaches restores, of which this log has none, and one that reaches each start."""


def timed(command: Sequence[str], path: Path) -> tuple[float, float, float]:
    """Seconds, seconds of a processor, and the largest memory in MiB of one command."""
    began = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "manager.cli", *command],
        env={**BYTECODE, "SANDTRAIL_ROOT": str(path.parent)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    took = time.perf_counter() - began
    return took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


async def snapshots(path: Path, events: int) -> None:
    """Write the snapshots that a service would have left."""
    files = node_snapshots(path.parent)
    fold = NodeFold()
    async with open_log(path, read_only=True) as log:
        for number in range(1, SNAPSHOTS + 1):
            position = events * number // SNAPSHOTS
            await advance(fold, log, until=position)
            async for record in log.read(after=position - 1, limit=1):
                body = encode_sandboxes(fold.live.items())
                files.save(Snapshot(position=position, leaf_hash=record.leaf_hash, body=body))


async def checked(path: Path, window: Window) -> int:
    async with Trail.open(path) as trail:
        return len([each async for each in redecide(trail, window)])


async def supposed(path: Path, window: Window, setting: str) -> int:
    """Answer a what-if; how many decisions it is about."""
    async with Trail.open(path) as trail:
        return len([each async for each in whatif(trail, window, parse_settings([setting]))])


async def bare(path: Path, window: Window) -> int:
    """The same work without the machinery: read, rebuild, decide, compare, fold."""
    count = 0
    async with Trail.open(path) as trail:
        files = node_snapshots(path.parent)
        fold = await open_fold(trail.log, files, until=window.first - 1)
        facts = FactReader(trail.log)
        records = [each async for each in trail.log.read(after=window.first - 1, until=window.last)]
        at = 0
        while at < len(records):
            record = records[at]
            step = 1
            if record.stream.startswith(STREAM_PREFIX):
                await recall(fold, trail.log, record)
                state = fold.known(record.stream.removeprefix(STREAM_PREFIX)).state
                near = [each for each in records[at : at + 4] if each.stream == record.stream]
                events = [decode_record(each) for each in near]
                known = await facts.of(state, events[:1])
                command = next(commands_of(state, record.stream, events, known))
                step = len(decide(state, command)) or 1
                count += 1
            for each in records[at : at + step]:
                fold.apply(each)
            at += step
    return count


def verified(path: Path, _: Window) -> None:
    """Every layer of ``audit verify``."""
    report = verify_file(
        path, trusted=(load_verifier(public_path(path.parent / KEY)),), memory=False
    )
    assert report.verdict is Verdict.INTACT, report


async def verified_bare(path: Path, _: Window) -> None:
    """The same work without the machinery: one look at each row, one fold, two indexes walked."""
    raw = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    raw.execute("PRAGMA integrity_check").fetchall()
    frontier = Frontier()
    for row in raw.execute(SELECT_ROWS):
        digests = () if row[10] is None else json.loads(row[10])
        fields = [None if each is None else str(each).encode() for each in row[:10]]
        leaf = hash_leaf(encode_fields([*fields, *(each.encode() for each in digests)]))
        assert leaf == row[11]
        frontier.append(leaf)
    (root,) = raw.execute("SELECT root FROM checkpoints ORDER BY size DESC LIMIT 1").fetchone()
    assert frontier.root() == root
    for _ in raw.execute("SELECT stream_id, version FROM event_record ORDER BY stream_id, version"):
        pass
    for digest, body in raw.execute("SELECT digest, body FROM documents"):
        assert digest == "sha256:" + hashlib.sha256(body).hexdigest()
    raw.close()
    fold = NodeFold()
    async with open_log(path, read_only=True) as log:
        async for record in log.read():
            await recall(fold, log, record)
            fold.apply(record)


async def seal(path: Path) -> None:
    """Sign all of it, as the service would have done now and then."""
    policy = SealPolicy(signer=load_signer(path.parent / KEY))
    async with open_log(path, seal=policy):
        pass


def median(measure: Callable[[], float], rounds: int) -> float:
    return statistics.median(measure() for _ in range(rounds))


def run_seconds(work: Callable[[Path, Window], object], path: Path, window: Window) -> float:
    """Seconds of the processor: those that pass are as many more as others want it, too."""
    began = time.process_time()
    found = work(path, window)
    if asyncio.iscoroutine(found):
        asyncio.run(found)
    return time.process_time() - began


def report(path: Path, rounds: int) -> dict[str, float]:
    """Print what was asked and what it took; returns the ratios."""
    ratios = {}
    raw = sqlite3.connect(path)
    head, last_ns = raw.execute(
        "SELECT position, recorded_at_ns FROM event_record ORDER BY position DESC LIMIT 1"
    ).fetchone()
    raw.close()
    hour = f"@{last_ns // 10**9 - 3600}"
    questions = {
        "log --since -1h --outcome fail": ["log", "--since", hour, "--outcome", "fail"],
        "log --outcome fail --count (all of it)": ["log", "--outcome", "fail", "--count"],
        "replay show --at the middle": ["replay", "show", "--at", f"#{head // 2 + 777}"],
        "ps --at head": ["ps", "--at", "head"],
        "replay bisect --bad, the last 20,000": [
            "replay", "bisect", "--bad", "count(status == lost) > 0", "--good", f"#{head - 20_000}"
        ],
        "--help": ["--help"],
    }  # fmt: skip
    base = median(lambda: subprocess_seconds(["-c", "import click"]), rounds)
    print(f"python -c 'import click'                 {base * 1000:7.0f} ms")
    for name, command in questions.items():
        found = [timed(command, path) for _ in range(rounds)]
        took, busy = (statistics.median(column) for column in list(zip(*found, strict=True))[:2])
        peak = max(mib for *_, mib in found)
        ratio = ratios[f"{name}, to import click"] = took / base
        print(
            f"{name:<40} {took * 1000:7.0f} ms   processor {busy * 1000:5.0f} ms   "
            f"ratio {ratio:4.1f}   {peak:4.0f} MiB"
        )
    window = Window(first=head - CHECKED_EVENTS + 1, last=head)
    pairs = [
        (run_seconds(checked, path, window), run_seconds(bare, path, window)) for _ in range(rounds)
    ]
    ours, theirs = (statistics.median(each) for each in zip(*pairs, strict=True))
    print(f"replay check of the last {CHECKED_EVENTS:,}           {ours:7.1f} s")
    check = ratios["replay check, speed to a bare loop's"] = theirs / ours
    print(f"a bare loop over the same                {theirs:7.1f} s   ratio {check:.2f}")
    for setting in SUPPOSED:
        began = time.process_time()
        count = asyncio.run(supposed(path, window, setting))
        took = time.process_time() - began
        print(f"whatif {setting:<33} {took:7.1f} s   {count / took:,.0f} decisions/s")
    if public_path(path.parent / KEY).exists():
        ratios["audit verify, speed to a bare loop's"] = report_verification(path, window, head)
    return ratios


def report_verification(path: Path, window: Window, head: int) -> float:
    """The best of a few rounds of each, taken in turns; returns the ratio."""
    ours, bare = [], []
    for _ in range(VERIFY_ROUNDS):
        ours.append(run_seconds(verified, path, window))
        bare.append(run_seconds(verified_bare, path, window))
    took, least = min(ours), min(bare)
    print(f"audit verify, all layers                 {took:7.1f} s   {head / took:,.0f} events/s")
    print(f"a bare loop over the same                {least:7.1f} s   ratio {least / took:.2f}")
    return least / took


def subprocess_seconds(args: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *args], check=True, env=BYTECODE)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--live", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--record", action="store_true", help="keep the ratios of this run")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-replay-") as directory:
        path = asked.log or Path(directory) / LOG_FILE
        if asked.log is None:
            pace = DAYS * 86_400 * 10**9 * 2 * EVENTS_A_ROUND // asked.events
            asyncio.run(make_log(path, events=asked.events, live=asked.live, round_ns_max=pace))
            asyncio.run(seal(path))
            asyncio.run(snapshots(path, asked.events))
        ratios = report(path, asked.rounds)
    print_beside("replay", ratios)
    if asked.record:
        record("replay", ratios)


if __name__ == "__main__":
    main()
