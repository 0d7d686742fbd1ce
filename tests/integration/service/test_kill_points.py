"""SIGKILL at every named place of manager and worker, amid real containers, once each."""

import contextlib
import re
from pathlib import Path

import anyio
import pytest

import manager
from manager import CallRefused
from manager.adapters.client import SandboxClient
from manager.domain.exit_status import Exited
from manager.kernel.fail_points import (
    IMAGE_POINTS,
    MANAGER_POINTS,
    POINTS,
    WORKER_POINTS,
    fail_point,
)
from tests.integration.service.conftest import Donor
from tests.integration.service.killing import Killed, Story, answered, reconcile
from tests.integration.service.saving import Counted, counter, save
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime


def test_every_place_is_somewhere() -> None:
    sources = Path(manager.__file__).parent.rglob("*.py")
    found = [
        name
        for source in sources
        for name in re.findall(r'\breached\("([\w.]+)"\)', source.read_text())
    ]
    assert sorted(found) == sorted(POINTS)


def test_a_place_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"'nowhere' is none of append\.begun"):
        fail_point("nowhere:1:/x")


@pytest.mark.parametrize("point", [*MANAGER_POINTS, *WORKER_POINTS])
async def test_a_kill_at(point: str, tmp_path: Path, probed: Path, donor: Donor) -> None:
    killed = Killed(tmp_path / "state", probed, "crun", point)
    async with killed.running() as service:
        story = Story(service, donor, tmp_path)
        await story.tell()
        await reconcile(service, story)
        assert killed.marker.exists(), "nobody was killed"


class ImageStory(Story):
    """Two counters are saved, and go on from the image where they stopped."""

    counts: tuple[Counted, ...] = ()

    async def _whole(self, name: str) -> None:
        image = self.notes / f"{name}.image"
        sandbox = await self._two(name)
        await sandbox.start_root()
        await sandbox.create_subcontainer(f"{name}-other")
        other = self.donor.donation(self.counts[1].write)
        await sandbox.start_subcontainer(f"{name}-other", counter("other"), other)
        for count in self.counts:
            await count.numbers(2)
        await save(sandbox, image)
        for cid in (name, f"{name}-other"):
            assert await sandbox.wait(cid) == Exited(code=0)
        stopped = [await count.rest() for count in self.counts]
        self.counts = ()
        await sandbox.delete()

        sandbox = await self._two(f"{name}-again")
        with image.open("rb") as file:
            await sandbox.restore(file)
        await sandbox.create_subcontainer(f"{name}-other")
        other = self.donor.donation(self.counts[1].write)
        await sandbox.restore_subcontainer(f"{name}-other", counter("other"), other)
        await sandbox.wait_restore()
        for before, count in zip(stopped, self.counts, strict=True):
            assert await count.numbers(1) == [before + 1]
        await self._give_up(name)

    async def _two(self, name: str) -> SandboxClient:
        self.counts = (Counted(), Counted())
        donation = self.donor.donation(self.counts[0].write)
        return await self.service.client.create_sandbox(name, counter("root"), donation)

    async def _give_up(self, name: str) -> None:
        """What is said to run does: nobody is left frozen."""
        for each in (name, f"{name}-again"):
            sandbox = self.service.client.sandbox(each)
            for cid, count in zip((each, f"{name}-other"), self.counts, strict=False):
                with contextlib.suppress(CallRefused):
                    await self._goes_on(sandbox, cid, count)
            await super()._give_up(each)
        for count in self.counts:
            count.close()
        self.counts = ()

    async def _goes_on(self, sandbox: SandboxClient, cid: str, count: Counted) -> None:
        """One that was saved ends of it; any other counts."""
        with anyio.fail_after(PATIENCE_S):
            while not count.goes_on():
                state = await answered(sandbox.state)
                if state["containers"].get(cid, {}).get("status") != "running":
                    return
                await anyio.sleep(0.05)


AMID_IMAGES = [
    *((point, 1) for point in IMAGE_POINTS),
    *(("intent.appended", count) for count in (3, 4)),
    *(("effect.sent", count) for count in (6, 8)),
    *(("outcome.appended", count) for count in (5, 7)),
    *(("launch.recorded", count) for count in (3, 4)),
    ("launch.unrecorded", 4),
]


@pytest.mark.parametrize(("point", "count"), AMID_IMAGES)
async def test_a_kill_amid_images(
    point: str, count: int, tmp_path: Path, probed: Path, donor: Donor
) -> None:
    killed = Killed(tmp_path / "state", probed, "runsc", point, count)
    async with killed.running() as service:
        await ImageStory(service, donor, tmp_path).tell()
        await reconcile(service)
        assert killed.marker.exists(), "nobody was killed"
