"""A start: sandtrail over its sockets, durable, beside bare engines, podman and containerd.

All contenders start `true` from one root filesystem, in turns, one at a time and many at once; what
is not installed is left out, and said to be. Then what a call costs that starts nothing, what a
container takes of processor, memory and log, and how long a service takes until it is ready. As
root. Usage::

    python -m benchmarks.bench_start [--quick] [--record] [--markdown]
"""

import argparse
import contextlib
import math
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from benchmarks.bench_open import WAYS, one_round, prepare
from benchmarks.contenders import (
    BWRAP,
    CRUN_OVERLAY,
    CRUN_RUN,
    CTR_RUN,
    PODMAN_RUN,
    RUNC_RUN,
    RUNSC_RUN,
    Contender,
    Room,
    bare_contenders,
    enter_own_mount_namespace,
    make_rootfs,
)
from benchmarks.event_loop import run
from benchmarks.recorded import print_beside, record
from benchmarks.round_trips import (
    GO,
    GO_KEPT,
    RAW_COMMIT,
    REJECTED,
    REJECTED_GO,
    TRIVIAL,
    TRIVIAL_GO,
    TRIVIAL_KEPT,
    Trips,
    measure_round_trips,
)
from benchmarks.service import Sandtrail, measure_ready, measure_steps
from benchmarks.start_tables import print_tables
from manager.worker.cgroups import Cgroups

RUNNING, EXIT, LIFE = " -> running", " -> exit on record", " -> whole life"
ENGINES = (
    ("crun", False),
    ("bwrap", False),
    ("runc", False),
    ("crun", True),
    ("bwrap", True),
    ("runsc", False),
)
BASES = {
    "sandtrail crun": CRUN_RUN,
    "sandtrail crun, overlay": CRUN_OVERLAY,
    "sandtrail bwrap": BWRAP,
    "sandtrail bwrap, overlay": BWRAP,
    "sandtrail runc": RUNC_RUN,
    "sandtrail runsc": RUNSC_RUN,
}


class Sizes(Struct, frozen=True):
    """How much is done.

    Attributes:
        rounds: One at a time: blocks of three starts of each contender.
        slow_every: A contender that is slow takes part in every so many rounds.
        levels: How many starts at once, and how many in all; slow contenders make one each.
        steps: Containers that are taken through their lives step by step.
        blocks: Of calls that start nothing,
        calls: so many each.
        ready: Services started.
        live: Containers in the live state of logs that are opened.
        everything: Whether slow contenders take part, and every engine and kind of root of ours.
    """

    rounds: int = 15
    slow_every: int = 4
    levels: tuple[tuple[int, int], ...] = ((8, 80), (32, 96), (64, 128))
    steps: tuple[int, ...] = (50, 200)
    blocks: int = 5
    calls: int = 200
    ready: int = 5
    live: tuple[int, ...] = (10, 1_000, 10_000)
    everything: bool = True


QUICK = Sizes(
    rounds=1,
    slow_every=2,
    levels=((2, 2),),
    steps=(2,),
    blocks=1,
    calls=3,
    ready=1,
    live=(),
    everything=False,
)
BLOCK = 3


class Times:
    """What was measured at one number of starts at once: seconds, and lives a second."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self.rates: dict[str, list[float]] = {}

    def take(self, contender: Contender, count: int, concurrency: int) -> None:
        """Have a contender do its share."""
        batch = contender.measure(count, concurrency)
        if isinstance(contender, Sandtrail):
            self._add(contender.name + RUNNING, contender.running)
            self._add(contender.name + EXIT, contender.ended)
            self._add(contender.name + LIFE, batch.lives)
        else:
            self._add(contender.name, batch.lives)
        self.rates.setdefault(contender.name, []).append(count / batch.elapsed)

    def _add(self, name: str, seconds: list[float]) -> None:
        self.seconds.setdefault(name, []).extend(seconds)

    def median(self, name: str) -> float:
        """Median seconds."""
        return statistics.median(self.seconds[name])

    def rate(self, name: str) -> float:
        """Median lives a second."""
        return statistics.median(self.rates[name])


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@contextlib.contextmanager
def namespaces_holder() -> Iterator[int]:
    """A process whose net, IPC and UTS namespaces bare contenders join."""
    command = ["unshare", "--net", "--ipc", "--uts", "sh", "-c", "echo ready; exec sleep 3600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def measure_starts(contenders: Sequence[Contender], sizes: Sizes) -> dict[int, Times]:
    """Everything that a contender can be compared by, by starts at once."""
    found = {1: Times()}
    for contender in contenders:
        contender.measure(BLOCK, 1)
    for number in range(sizes.rounds):
        for contender in contenders:
            if not contender.slow or number % sizes.slow_every == 0:
                found[1].take(contender, BLOCK, 1)
    for level, count in sizes.levels:
        found[level] = Times()
        for contender in contenders:
            found[level].take(contender, level if contender.slow else count, level)
    return found


def report_starts(found: dict[int, Times]) -> dict[str, float]:
    """Print the tables; returns the ratios."""
    ratios: dict[str, float] = {}
    for level, times in found.items():
        print(f"\n{level} at once")
        print(f"{'':<36}{'x base':>8}{'median':>9}{'p95':>9}{'p99 ms':>9}{'lives/s':>9}{'n':>6}")
        for name, seconds in times.seconds.items():
            contender = name.partition(" -> ")[0]
            base = BASES.get(contender, CRUN_RUN)
            ratio = times.median(name) / times.median(base) if base in times.seconds else math.nan
            rate = (
                f"{times.rate(contender):.1f}" if name.endswith(LIFE) or contender == name else ""
            )
            milliseconds = "".join(
                f"{value * 1000:>9.1f}"
                for value in (
                    times.median(name),
                    percentile(seconds, 0.95),
                    percentile(seconds, 0.99),
                )
            )
            print(f"{name:<36}{ratio:>8.2f}{milliseconds}{rate:>9}{len(seconds):>6}")
            if contender in BASES and not name.endswith(LIFE):
                ratios[f"{level} at once: {name}, to {base}"] = ratio
        for contender, base in BASES.items():
            if contender in times.rates and base in times.rates:
                ratios[f"{level} at once: {contender}, lives/s, to {base}"] = times.rate(
                    contender
                ) / times.rate(base)
    for rival in (PODMAN_RUN, CTR_RUN):
        if rival in found[1].seconds and "sandtrail crun" + EXIT in found[1].seconds:
            ratios[f"{rival}, to sandtrail crun{EXIT}"] = found[1].median(rival) / found[1].median(
                "sandtrail crun" + EXIT
            )
    return ratios


def report_tables(found: dict[int, Times]) -> None:
    """Print the tables of docs/performance.md."""
    times = found[1]
    rows = {}
    for name, seconds in times.seconds.items():
        base = BASES.get(name.partition(" -> ")[0], CRUN_RUN)
        median, p95 = times.median(name), percentile(seconds, 0.95)
        rows[name] = (median * 1000, p95 * 1000, median / times.median(base))
    rates = {name: [each.rate(name) for each in found.values()] for name in times.rates}
    print_tables(rows, tuple(found), rates)


def report_trips(trips: Trips) -> dict[str, float]:
    """Print what calls cost; returns the ratios."""
    print(f"\n{'a call that starts nothing':<44}{'p50 us':>9}{'p99 us':>9}{'n':>7}")
    median = {name: statistics.median(seconds) for name, seconds in trips.items()}
    for name, seconds in trips.items():
        tail = percentile(seconds, 0.99)
        print(f"{name:<44}{median[name] * 1e6:>9.0f}{tail * 1e6:>9.0f}{len(seconds):>7}")
    if GO not in trips:
        print("left out: Go (apt-get install golang-go golang-gvisor-gvisor-dev)")
    pairs = (
        (REJECTED, RAW_COMMIT),
        (REJECTED_GO, RAW_COMMIT),
        (TRIVIAL, GO),
        (TRIVIAL_GO, GO),
        (TRIVIAL_KEPT, GO_KEPT),
    )
    return {
        f"{value}, to {base}": median[value] / median[base]
        for value, base in pairs
        if value in median and base in median
    }


def report_steps(contender: Sandtrail, counts: Sequence[int]) -> dict[str, float]:
    """Print what containers take, step by step; returns some of it."""
    facts: dict[str, float] = {}
    for count in counts:
        phases, found = measure_steps(contender, count)
        print(f"\n{contender.name}, {count} containers step by step, eight at a time")
        print(f"{'a container':<24}{'wall ms':>9}{'manager CPU ms':>16}{'worker CPU ms':>15}")
        for name, phase in phases.items():
            print(
                f"{name:<24}{phase.seconds * 1000:>9.2f}{phase.manager * 1000:>16.2f}"
                f"{phase.worker * 1000:>15.2f}"
            )
        print(
            f"memory of manager and worker, a running container: {found['memory KiB']:.0f} KiB; "
            f"log, a life: {found['log bytes']:.0f} bytes"
        )
        facts = {
            f"{contender.name}: manager CPU ms a start": phases["start"].manager * 1000,
            f"{contender.name}: worker CPU ms a start": phases["start"].worker * 1000,
            f"{contender.name}: KiB a running container": found["memory KiB"],
            f"{contender.name}: log bytes a life": found["log bytes"],
        }
    return facts


def report_ready(directory: Path, sizes: Sizes) -> dict[str, float]:
    """Print how long a service takes to be ready; returns the same."""
    ready = measure_ready(directory, sizes.ready)
    print(
        f"\nsandtrail serve to ready: new directory {ready['new'] * 1000:.0f} ms, again "
        f"{ready['again'] * 1000:.0f} ms (python -c pass: {ready['python'] * 1000:.0f} ms)"
    )
    return {
        "ready, new directory, ms": ready["new"] * 1000,
        "ready, again, ms": ready["again"] * 1000,
    }


def report_live(directory: Path, live: Sequence[int]) -> None:
    """Print what opening a log takes by the containers in its live state."""
    print(f"\n{'opening a log with so many running':<36}{'events':>9}{'ms':>8}{'peak MiB':>10}")
    for count in live:
        root = directory / f"live-{count}"
        for name in ("tail", "fresh"):
            (root / name).mkdir(parents=True)
        # Enough events for a life before the snapshot that "tail" takes.
        facts = run(prepare(root, None, max(25_000, 11 * count), count))
        for way in ("whole", "fresh"):
            found = one_round(root, way)
            print(
                f"{facts['running']:>6} {WAYS[way]:<29}{facts['events']:>9}"
                f"{found['seconds'] * 1000:>8.0f}{found['peak_mib']:>10.0f}"
            )
        shutil.rmtree(root)


def measure(directory: Path, sizes: Sizes, *, markdown: bool) -> dict[str, float]:
    """Measure and print everything; returns the ratios."""
    rootfs = directory / "rootfs"
    make_rootfs(rootfs, "true", "sleep")
    with contextlib.ExitStack() as stack:
        holder = stack.enter_context(namespaces_holder())
        room = Room(directory, rootfs, holder, Cgroups.prepare())
        contenders: list[Contender] = []
        for name, slow, make in bare_contenders(room):
            if make is None:
                print(f"left out, not installed: {name}")
            elif sizes.everything or not slow:
                contenders.append(stack.enter_context(make()))
        ours: dict[str, Sandtrail] = {}
        for engine, overlay in ENGINES if sizes.everything else ENGINES[:1]:
            if shutil.which(engine) or engine == "bwrap":
                state = directory / f"{engine}{'-overlay' if overlay else ''}"
                made = Sandtrail(state, rootfs, engine, overlay=overlay)
                ours[made.name] = stack.enter_context(made)
        contenders += ours.values()
        found = measure_starts(contenders, sizes)
        ratios = report_starts(found)
        if markdown:
            report_tables(found)
        for name in ("sandtrail crun", "sandtrail bwrap"):
            if name in ours:
                ratios |= report_steps(ours[name], sizes.steps)
        crun = ours["sandtrail crun"]
        trips = measure_round_trips(crun, rootfs, directory, blocks=sizes.blocks, calls=sizes.calls)
        ratios |= report_trips(trips)
    ratios |= report_ready(directory, sizes)
    report_live(directory, sizes.live)
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    parser.add_argument("--record", action="store_true", help="keep the ratios of this run")
    parser.add_argument("--markdown", action="store_true", help="print tables for the docs, too")
    arguments = parser.parse_args()
    began = time.perf_counter()
    enter_own_mount_namespace()
    with tempfile.TemporaryDirectory(prefix="bs-") as name:
        sizes = QUICK if arguments.quick else Sizes()
        ratios = measure(Path(name), sizes, markdown=arguments.markdown)
    print_beside("start", ratios)
    print(f"\nthe whole run took {time.perf_counter() - began:.0f} s")
    if arguments.record:
        record("start", ratios)


if __name__ == "__main__":
    main()
