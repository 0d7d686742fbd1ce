"""The power fails while a log is written: nothing that was acknowledged is lost, nothing is broken.

A child process runs the real log under strace. From what it did, moment by moment, images are made
of what a disk may hold if the power is cut right then; each is opened with the real code.

``make sim SEED=n`` cuts elsewhere and more often; SANDTRAIL_IMAGES says how often for each of the
four recordings. As a recording has threads in it, no two are quite the same: so the image that
failed is kept, and the failure says where.
"""

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from eventstore import Signer, load_signer
from tests.simulation.power_loss_disk import Disk, Image, in_order
from tests.simulation.power_loss_promises import BrokenError, LostError, check_log
from tests.simulation.power_loss_recording import Said, Step, Write, read_trace, record

FIRST_SEED = int(os.environ.get("SEED", "1"))
IMAGES = int(os.environ.get("SANDTRAIL_IMAGES", "550"))
CONTROL_IMAGES = 120
RECORDINGS = 4

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


@dataclass(frozen=True)
class Cut:
    """One image, and what the writer had said by then."""

    number: int
    step: int
    image: Image
    said: list[dict[str, object]]


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return load_signer(tmp_path_factory.mktemp("keys") / "log.key")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> "Recordings":
    return Recordings(tmp_path_factory.mktemp("recordings"), tmp_path_factory.getbasetemp())


class Recordings:
    def __init__(self, directory: Path, base: Path) -> None:
        self.directory = directory
        self.key = next(base.glob("keys*/log.key"))

    def make(self, seed: int, synchronous: str) -> list[Step]:
        log = self.directory / f"log-{seed}-{synchronous}" / "events.db"
        log.parent.mkdir()
        steps = record(self.directory, log, self.key, seed, synchronous)
        left = {
            each.name: each.read_bytes() for each in log.parent.iterdir() if each.suffix != ".lock"
        }
        disk = Disk()
        for step in in_order(steps):
            disk.take(step)
        assert disk.now() == left, "the recording is not what happened"
        return steps


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """Where images are made: in memory, as their syncs prove nothing any more."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    directory = shared / f"sandtrail-power-loss-{os.getpid()}"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


def cuts(steps: list[Step], seed: int, how_many: int) -> Iterator[Cut]:
    """Images at random moments, in the order of time."""
    chance = random.Random(seed)
    ordered = in_order(steps)
    moments = sorted(chance.randrange(len(ordered) + 1) for _ in range(how_many))
    disk = Disk()
    said: list[dict[str, object]] = []
    done = 0
    for number, moment in enumerate(moments):
        for step in ordered[done:moment]:
            disk.take(step)
            if isinstance(step, Said):
                said.append(step.line)
        done = moment
        yield Cut(number, moment, disk.after_cut(random.Random(f"{seed}/{number}")), list(said))


async def examine(cut: Cut, directory: Path, signer: Signer) -> None:
    """Open an image with the real code and hold it against what was said.

    Raises:
        LostError: As it says.
        BrokenError: As it says.
    """
    for old in directory.iterdir():
        old.unlink()
    for name, contents in cut.image.items():
        (directory / name).write_bytes(contents)
    await check_log(directory / "events.db", signer, cut.said)


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + RECORDINGS))
async def test_no_cut_of_the_power_loses_or_breaks_anything(
    seed: int, recordings: Recordings, signer: Signer, memory: Path, tmp_path: Path
) -> None:
    steps = recordings.make(seed, "FULL")
    moved = sum(isinstance(step, Write) and step.name == "events.db" for step in steps)
    assert moved > 50, "the WAL was never moved: nothing much was tried"
    acknowledged = 0
    for cut in cuts(steps, seed, IMAGES):
        try:
            await examine(cut, memory, signer)
        except AssertionError as error:
            kept = keep(cut, tmp_path / f"image-{seed}-{cut.number}")
            raise AssertionError(
                f"seed {seed}, image {cut.number} at step {cut.step} of {len(steps)}: {error}. "
                f"The image is kept in {kept}: open that. To cut the same program again at the "
                f"same share of its way: make sim SEED={seed} IMAGES={IMAGES}"
            ) from error
        acknowledged += sum("did" in said for said in cut.said)
    print(f"seed {seed}: {IMAGES} images, {acknowledged} acknowledged appends looked for")
    assert acknowledged > IMAGES


def keep(cut: Cut, directory: Path) -> Path:
    directory.mkdir()
    for name, contents in cut.image.items():
        (directory / name).write_bytes(contents)
    (directory / "said.json").write_text(json.dumps(cut.said))
    return directory


@pytest.mark.parametrize(
    ("synchronous", "must_happen", "must_not"),
    [("NORMAL", LostError, BrokenError), ("OFF", BrokenError, None)],
)
async def test_with_fewer_syncs_it_is_noticed(
    synchronous: str,
    must_happen: type[AssertionError],
    must_not: type[AssertionError] | None,
    recordings: Recordings,
    signer: Signer,
    memory: Path,
) -> None:
    """The simulation can fail: a log with fewer syncs does not pass it."""
    steps = recordings.make(FIRST_SEED, synchronous)
    counts: Counter[type[BaseException] | None] = Counter()
    for cut in cuts(steps, FIRST_SEED, CONTROL_IMAGES):
        try:
            await examine(cut, memory, signer)
        except (LostError, BrokenError) as error:
            counts[type(error)] += 1
        else:
            counts[None] += 1
    print(f"synchronous={synchronous}: {counts}")
    assert counts[must_happen] > CONTROL_IMAGES // 10
    assert must_not is None or counts[must_not] == 0


def test_a_trace_with_a_call_that_is_not_modelled_is_refused(tmp_path: Path) -> None:
    def coded(text: str) -> str:
        return "".join(f"\\x{byte:02x}" for byte in text.encode())

    trace = tmp_path / "trace"
    trace.write_text(f'1 rename("{coded("/d/a")}", "{coded("/d/b")}") = 0\n')
    with pytest.raises(AssertionError, match="rename"):
        read_trace(trace, Path("/d"))
