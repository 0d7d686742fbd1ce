"""Checkpoints and restores above the worker's socket: who is answered what, and what survives."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from manager.application.arguments import StartArguments
from manager.application.calls import Calls
from manager.application.default_spec import default_spec
from manager.application.errors import CallRefused
from manager.application.image_calls import ImageCalls
from manager.domain.checkpoint import FLATE
from manager.schema import worker as w
from manager.urpc.fds import FdBundle, OwnedFd
from tests.unit.application.conftest import World

Donate = Callable[[], FdBundle]
NAME = "io.kubernetes.cri.container-name"
FAILED = w.StartFailed(seq=0, launch_id="", stage="restore", reason="no kernel", errno=None)


def arguments(cid: str, name: str, request_id: str = "", **spec: Any) -> StartArguments:
    body = {**default_spec(args=["/bin/true"], **spec), "annotations": {NAME: name}}
    return StartArguments(cid=cid, spec=body, conf={}, request_id=request_id)


def opened(path: Path, flags: int = os.O_RDONLY) -> FdBundle:
    return FdBundle([OwnedFd(os.open(path, flags))])


async def create(calls: Calls, donate: Donate, sandbox_id: str) -> None:
    await calls.create(sandbox_id, arguments(sandbox_id, "root"), donate(), calls.origin(None))


async def saved(calls: Calls, donate: Donate, image: Path, **how: Any) -> None:
    """An image of two containers, `root` and `job`."""
    await create(calls, donate, "old")
    await calls.start_root("old", calls.origin(None))
    await calls.create_subcontainer("old", "j", FdBundle(), calls.origin(None))
    await calls.start_subcontainer("old", arguments("j", "job"), donate(), calls.origin(None))
    images = ImageCalls(calls)
    file = opened(image, os.O_RDWR | os.O_CREAT)
    await images.checkpoint("old", file, calls.origin(None), **how)


async def begun(calls: Calls, donate: Donate, image: Path, **how: Any) -> ImageCalls:
    """A sandbox that waits for `job`."""
    await create(calls, donate, "new")
    images = ImageCalls(calls)
    await images.restore("new", opened(image), calls.origin(None), "begin", **how)
    await calls.create_subcontainer("new", "k", FdBundle(), calls.origin(None))
    return images


async def test_an_image_and_what_comes_of_it(world: World, donate: Donate, tmp_path: Path) -> None:
    image = tmp_path / "image"
    async with world.manager() as (_, calls):
        await saved(calls, donate, image, request_id="save")
        assert await calls.wait("old", "j") == 0
        images = ImageCalls(calls)
        await images.wait_checkpoint("old")  # it has come to its end: there will be no other
        await images.checkpoint("old", FdBundle(), calls.origin(None), request_id="save")
        engine_ids = [each.engine_id for each in world.worker.launched]

        images = await begun(calls, donate, image)
        done = anyio.Event()

        async def waiter() -> None:
            await images.wait_restore("new")
            done.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiter)
            asked = arguments("k", "job", "last")
            await images.restore_subcontainer("new", asked, donate(), calls.origin(None))
            await done.wait()
        assert calls.state("new").phase == "restored"
        await images.restore_subcontainer("new", asked, donate(), calls.origin(None))  # once more
        restored = world.worker.launched[2:]
        assert [each.engine_id for each in restored] == engine_ids
        assert [each.image_name for each in restored] == ["root", "job"]
        assert images.savings_ns("new")[0] == 0
        assert not world.worker.held
    begun_, accepted = "restore.begun", "container.restore_accepted"
    found = await world.tags("sandbox-new")
    assert [tag for tag in found if tag not in {"container.created", "sandbox.created"}] == [
        begun_,
        accepted,
        "restore.validated",
        "container.started",
        "container.started",
        "sandbox.restored",
    ]


async def test_a_start_is_taken_as_a_restore(world: World, donate: Donate, tmp_path: Path) -> None:
    async with world.manager() as (_, calls):
        await saved(calls, donate, tmp_path / "image", resume=True)
        assert calls.state("old").phase == "started"
        await begun(calls, donate, tmp_path / "image")
        await calls.start_subcontainer("new", arguments("k", "job"), donate(), calls.origin(None))
        assert calls.state("new").phase == "restored"
    assert "container.start_translated" in await world.tags("sandbox-new")


async def test_a_compressed_image(world: World, donate: Donate, tmp_path: Path) -> None:
    image, labels = tmp_path / "image", {"compression": FLATE, "any other": "is not looked at"}
    async with world.manager() as (_, calls):
        await saved(calls, donate, image, labels=labels)
        requested = await world.payload("sandbox-old", "sandbox.checkpoint_requested")
        assert requested["image"]["compression"] == FLATE
        images = await begun(calls, donate, image)
        asked = arguments("k", "job", "last")
        await images.restore_subcontainer("new", asked, donate(), calls.origin(None))
        restore_begun = await world.payload("sandbox-new", "restore.begun")
        assert restore_begun["image"]["compression"] == FLATE
        done = await world.payload("sandbox-old", "sandbox.checkpointed")
        assert restore_begun["image"]["digest"] == f"sha256:{done['digest']}"


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ({"compression": "zstd"}, "statefile error: flags set is invalid"),
        ({"a": "b", "_timestamp": "x"}, "statefile error: metadata invalid, can't start with _"),
    ],
)
async def test_labels_that_gvisor_refuses(
    world: World, donate: Donate, tmp_path: Path, labels: dict[str, str], text: str
) -> None:
    async with world.manager() as (_, calls):
        with pytest.raises(CallRefused, match=f"^{text}$"):
            await saved(calls, donate, tmp_path / "image", labels=labels)
        assert calls.state("old").phase == "started"
    assert (tmp_path / "image").stat().st_size == 0


async def test_what_differs_is_refused(world: World, donate: Donate, tmp_path: Path) -> None:
    async with world.manager() as (_, calls):
        await saved(calls, donate, tmp_path / "image")
        images = await begun(calls, donate, tmp_path / "image")
        asked = arguments("k", "job", cwd="/tmp", env=["SECRET=hunter2"])
        text = '"Cwd" does not match across checkpoint restore for container: "job", checkpoint "/"'
        with pytest.raises(CallRefused, match=f"^failed to handle restore spec .*{text}"):
            await images.restore_subcontainer("new", asked, donate(), calls.origin(None))
        with pytest.raises(CallRefused, match=r"^RestoreSubcontainer failed: failed to handle"):
            await images.wait_restore("new")
        with pytest.raises(CallRefused, match=r"^RestoreSubcontainer failed"):
            await calls.wait("new", "k")
        assert not world.worker.held
        await calls.delete("new", calls.origin(None))


@pytest.mark.parametrize(
    ("contents", "text"),
    [(b"", "statefile cannot be empty"), (b"x" * 100, "bad magic header")],
)
async def test_a_file_that_is_no_image(
    world: World, donate: Donate, tmp_path: Path, contents: bytes, text: str
) -> None:
    (tmp_path / "image").write_bytes(contents)
    async with world.manager() as (_, calls):
        await create(calls, donate, "new")
        images = ImageCalls(calls)
        with pytest.raises(CallRefused, match=text):
            await images.restore("new", opened(tmp_path / "image"), calls.origin(None))
        with pytest.raises(CallRefused, match=f"Restore failed: .*{text}"):
            await images.wait_restore("new")
        assert not world.worker.held


async def test_what_is_no_file(world: World, donate: Donate, tmp_path: Path) -> None:
    async with world.manager() as (_, calls):
        images = ImageCalls(calls)
        for number, (files, text) in enumerate(
            [
                (FdBundle(), "at least one file must be passed to Restore"),
                (opened(Path(os.devnull)), "must be a regular file"),
                (opened(Path("/proc/self/mem"), os.O_WRONLY), "failed to open state file"),
            ]
        ):
            await create(calls, donate, f"new{number}")
            with pytest.raises(CallRefused, match=text):
                await images.restore(f"new{number}", files, calls.origin(None))
        await create(calls, donate, "idle")
        with pytest.raises(CallRefused, match="cannot wait for restore: state=created"):
            await images.wait_restore("idle")


async def test_a_kernel_that_does_not_load(world: World, donate: Donate, tmp_path: Path) -> None:
    async with world.manager() as (_, calls):
        await saved(calls, donate, tmp_path / "image")
        images = await begun(calls, donate, tmp_path / "image")
        world.worker.fail_next = FAILED
        asked = arguments("k", "job")
        with pytest.raises(CallRefused, match=r"^failed to load kernel: no kernel$"):
            await images.restore_subcontainer("new", asked, donate(), calls.origin(None))
        assert calls.state("new").phase == "restoreFailed"
        await calls.delete("new", calls.origin(None), force=True)
        assert not world.worker.running
        assert not world.worker.held


async def test_a_restore_in_the_background(world: World, donate: Donate, tmp_path: Path) -> None:
    async with world.manager() as (_, calls):
        await saved(calls, donate, tmp_path / "image")
        images = await begun(calls, donate, tmp_path / "image", background=True)
        world.worker.silent = True
        await images.restore_subcontainer(
            "new", arguments("k", "job", "last"), donate(), calls.origin(None)
        )
        assert calls.state("new").phase == "restoringStarted"
        for launch in world.worker.launched[2:]:
            world.worker.start(launch.launch_id)
        await images.wait_restore("new")
        assert calls.state("new").phase == "restored"


async def test_a_manager_that_dies_between(world: World, donate: Donate, tmp_path: Path) -> None:
    async with world.manager() as (_, calls):
        await saved(calls, donate, tmp_path / "image")
        await begun(calls, donate, tmp_path / "image")
    async with world.manager() as (_, calls):
        images = ImageCalls(calls)
        asked = arguments("k", "job")
        await images.restore_subcontainer("new", asked, donate(), calls.origin(None))
        assert calls.state("new").phase == "restored"


async def test_a_worker_that_dies_between(world: World, donate: Donate, tmp_path: Path) -> None:
    async with world.manager() as (_, calls):
        await saved(calls, donate, tmp_path / "image")
        images = await begun(calls, donate, tmp_path / "image")
        world.worker.die()
        with pytest.raises(CallRefused, match=r"failed: the (image is|files donated .* are) lost"):
            await images.wait_restore("new")


async def test_a_worker_that_dies_while_it_saves(
    world: World, donate: Donate, tmp_path: Path
) -> None:
    async with world.manager() as (_, calls):
        await create(calls, donate, "old")
        await calls.start_root("old", calls.origin(None))
        world.worker.silent = True
        images = ImageCalls(calls)
        file = opened(tmp_path / "image", os.O_RDWR | os.O_CREAT)
        async with anyio.create_task_group() as tasks:

            async def save() -> None:
                text = "(interrupted: the worker|sandbox has ended)"
                with pytest.raises(CallRefused, match=text):
                    await images.checkpoint("old", file, calls.origin(None))

            tasks.start_soon(save)
            await calls.live("old").until(lambda state: state.checkpointing)
            world.worker.die()
        assert (tmp_path / "image").stat().st_size == 0
