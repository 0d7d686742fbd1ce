"""The file of `sandtrail checkpoint`: all there may be of a sandbox, and what restores leave."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from tests.integration.service.conftest import Donor, Service, service_with
from tests.integration.service.killing import Killed
from tests.integration.service.saving import can_save, event, started, tags
from tests.integration.service.test_cli import cli
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime

WAITS_TO_SAVE = r"""#!/bin/sh
case " $* " in
*" checkpoint "*) [ -p {gate} ] && cat {gate} ;;
esac
exec {real} "$@"
"""
"""The real one, but it saves nothing until there is a gate and somebody has opened and shut it."""


@asynccontextmanager
async def waiting(tmp_path: Path) -> AsyncIterator[tuple[Service, Path]]:
    """A service whose saves wait, and the gate that they wait at."""
    gate = tmp_path / "gate"
    script = WAITS_TO_SAVE.replace("{gate}", str(gate))
    async with service_with(script, "runsc", tmp_path) as service:
        os.mkfifo(gate)
        yield service, gate


@contextmanager
def saving(service: Service, image: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "manager.cli", "checkpoint", "old", str(image)]
    environment = {**os.environ, "SANDTRAIL_ROOT": str(service.root)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        yield process


@asynccontextmanager
async def engine_at(gate: Path) -> AsyncIterator[None]:
    """From when the engine has come to the gate until the end of the block it waits there."""
    with anyio.fail_after(PATIENCE_S):
        end = await anyio.to_thread.run_sync(os.open, gate, os.O_WRONLY, abandon_on_cancel=True)
    try:
        yield
    finally:
        os.close(end)


def kept_beside(image: Path) -> Path:
    (kept,) = image.parent.glob(f".{image.name}.*.partial")
    return kept


@pytest.mark.parametrize("service", ["runsc"], indirect=True)
async def test_a_restore_that_cannot_be_leaves_nothing(
    service: Service, donor: Donor, image: Path, rootfs: Path
) -> None:
    """A container without files is found out before anything is made; what the service refuses,
    afterwards: the root cannot go on beside itself."""
    _, counts = await started(service, donor, ["root", "other"])
    done = cli(service, "checkpoint", "old", "--leave-running", str(image))
    assert done.returncode == 0, done.stderr
    for where, text in (("root=", "no --rootfs for container 'other'"), ("", "is still here")):
        refused = cli(service, "restore", "again", str(image), "--rootfs", f"{where}{rootfs}")
        assert (refused.returncode, text in refused.stderr) == (1, True), refused.stderr
        assert [each["ID"] for each in await service.client.sandboxes()] == ["old"]
    assert "sandbox.deleted" in await tags(service, "again")
    taken = cli(service, "restore", "old", str(image), "--rootfs", str(rootfs))
    assert (taken.returncode, "already exists" in taken.stderr) == (1, True), taken.stderr
    assert [each["ID"] for each in await service.client.sandboxes()] == ["old"]
    await service.client.sandbox("old").delete(force=True)
    for each in counts:
        await each.rest()
    restores(service, image, image, rootfs)


async def is_saved(service: Service) -> None:
    with anyio.fail_after(PATIENCE_S):
        await service.client.sandbox("old").wait()
    assert (await event(service, "old", "sandbox.checkpointed"))["resumed"] is False


def restores(service: Service, kept: Path, image: Path, rootfs: Path) -> None:
    kept.rename(image)
    done = cli(service, "restore", "again", str(image), "--rootfs", str(rootfs))
    assert done.returncode == 0, done.stderr


async def test_an_interrupt_leaves_the_image_that_the_service_goes_on_with(
    tmp_path: Path, donor: Donor, image: Path, rootfs: Path
) -> None:
    async with waiting(tmp_path) as (service, gate):
        _, counts = await started(service, donor, ["root"])
        with saving(service, image) as process:
            async with engine_at(gate):
                process.send_signal(signal.SIGINT)
                _, told = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130
        kept = kept_beside(image)
        assert "sandtrail log -s old" in told
        assert f"mv {kept} {image}" in told
        await is_saved(service)
        await counts[0].rest()
        restores(service, kept, image, rootfs)


async def test_a_service_that_is_killed_leaves_it_too(
    tmp_path: Path, donor: Donor, image: Path, rootfs: Path
) -> None:
    async with waiting(tmp_path) as (service, gate):
        _, counts = await started(service, donor, ["root"])
        with saving(service, image) as process:
            async with engine_at(gate):
                service.kill()
                _, told = process.communicate(timeout=PATIENCE_S)
                service.start()
        assert process.returncode == 1
        kept = kept_beside(image)
        assert f"mv {kept} {image}" in told
        await is_saved(service)
        await counts[0].rest()
        restores(service, kept, image, rootfs)


async def test_what_the_log_has_as_interrupted_may_be_whole(
    tmp_path: Path, probed: Path, donor: Donor, image: Path
) -> None:
    killed = Killed(tmp_path / "state", probed, "runsc", "image.written")
    async with killed.running() as service:
        if not await can_save(service):
            pytest.skip("runsc saves nothing here")
        _, counts = await started(service, donor, ["root"])
        with saving(service, image) as process:
            _, told = await anyio.to_thread.run_sync(process.communicate)
        assert (process.returncode, "its file tells" in told) == (1, True), told
        assert f"the image is whole, and kept under another name: mv {kept_beside(image)}" in told
        counts[0].close()


@pytest.mark.parametrize("service", ["runsc"], indirect=True)
async def test_a_file_that_cannot_be_replaced_costs_no_image(
    service: Service, donor: Donor, image: Path, rootfs: Path
) -> None:
    _, counts = await started(service, donor, ["root"])
    image.touch()
    script = 'mount --bind "$0" "$0" && exec "$@"'
    command = [sys.executable, "-m", "manager.cli", "checkpoint", "old", str(image)]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, image, *command],
        env={**os.environ, "SANDTRAIL_ROOT": str(service.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "Device or resource busy" in done.stderr) == (1, True), done.stderr
    kept = kept_beside(image)
    assert f"the image is whole, and kept under another name: mv {kept} {image}" in done.stderr
    await is_saved(service)
    await counts[0].rest()
    restores(service, kept, image, rootfs)


@pytest.mark.parametrize("service", ["runsc"], indirect=True)
async def test_nothing_of_somebody_else_is_touched(
    service: Service, donor: Donor, tmp_path: Path, image: Path
) -> None:
    _, counts = await started(service, donor, ["root"])
    mine, link = tmp_path / "image.partial", tmp_path / "link"
    mine.write_text("mine")
    link.symlink_to(image.name)
    done = cli(service, "checkpoint", "old", "--leave-running", str(link))
    assert (done.returncode, link.is_symlink(), image.stat().st_size > 0) == (0, True, True)
    refused = cli(service, "checkpoint", "nobody", str(image))
    assert (refused.returncode, "not found" in refused.stderr) == (1, True)
    for kind in (stat.S_IFIFO, stat.S_IFCHR):
        device = tmp_path / f"device-{kind}"
        os.mknod(device, kind | 0o600, os.makedev(1, 3))
        refused = cli(service, "checkpoint", "old", str(device))
        assert (refused.returncode, "no regular file" in refused.stderr) == (1, True)
        assert not device.is_file()
    assert mine.read_text() == "mine"
    assert not list(tmp_path.glob(".*.partial"))
    await service.client.sandbox("old").delete(force=True)
    await counts[0].rest()
