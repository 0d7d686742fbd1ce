"""Processes that are saved to a file, and go on from it: real gVisor sandboxes."""

import contextlib
import fcntl
import json
import os
import select
import signal
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from manager import CallRefused
from manager.adapters.client import SandboxClient
from manager.domain.exit_status import Exited, Signaled
from tests.integration.service.conftest import Donor, Service, pipe, read_all, service_with, sh
from tests.integration.service.test_cli import cli

pytestmark = pytest.mark.runtime
gvisor = pytest.mark.parametrize("service", ["runsc"], indirect=True)
COUNTER = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done"
NAME = "io.kubernetes.cri.container-name"


def counter(name: str, **members: Any) -> dict[str, Any]:
    return {**sh(COUNTER, **members), "annotations": {NAME: name}}


class Counted:
    """The numbers that one container writes: each is one more than the one before."""

    def __init__(self) -> None:
        self._read, self.write = os.pipe()
        self._seen = b""
        self._last: int | None = None

    async def numbers(self, count: int) -> list[int]:
        """The next ``count`` numbers."""
        with anyio.fail_after(30):
            while self._seen.count(b"\n") < count:
                await anyio.wait_readable(self._read)
                self._seen += os.read(self._read, 4096)
        lines = self._seen.split(b"\n")
        self._seen = b"\n".join(lines[count:])
        return self._checked(lines[:count])

    def _checked(self, lines: list[bytes]) -> list[int]:
        found = [int(line) for line in lines]
        for number in found:
            assert self._last is None or number == self._last + 1
            self._last = number
        return found

    async def rest(self) -> int:
        """The last number; closes our end for writing, and waits for that of all others."""
        os.close(self.write)
        with anyio.fail_after(30):
            while True:
                await anyio.wait_readable(self._read)
                piece = os.read(self._read, 65536)
                if not piece:
                    break
                self._seen += piece
        os.close(self._read)
        self._checked(self._seen.split())
        assert self._last is not None
        return self._last

    def goes_on(self) -> bool:
        """Whether there are numbers that were not read yet."""
        ready, _, _ = select.select([self._read], [], [], 0)
        return bool(ready and os.read(self._read, 65536))

    def close(self) -> None:
        """Close both ends, whatever is written yet."""
        for fd in (self._read, self.write):
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "image"


async def started(
    service: Service, donor: Donor, names: list[str], sandbox_id: str = "old"
) -> tuple[SandboxClient, list[Counted]]:
    """A sandbox with a counter in each of its containers."""
    counts = [Counted() for _ in names]
    donation = donor.donation(counts[0].write)
    sandbox = await service.client.create_sandbox(sandbox_id, counter(names[0]), donation)
    await sandbox.start_root()
    for name, each in zip(names[1:], counts[1:], strict=True):
        await sandbox.create_subcontainer(f"{sandbox_id}-{name}")
        donation = donor.donation(each.write)
        await sandbox.start_subcontainer(f"{sandbox_id}-{name}", counter(name), donation)
    for each in counts:
        await each.numbers(3)
    return sandbox, counts


async def save(sandbox: SandboxClient, image: Path, **how: Any) -> None:
    with image.open("wb") as file:
        await sandbox.checkpoint(file, **how)


async def can_save(service: Service) -> bool:
    """Whether the worker has found that its engine can save containers."""
    found = [each for each in await service.records("node") if each.type == "worker.started"]
    engines = msgspec.json.decode(found[-1].data)["engines"]
    return all("checkpoint" not in e["lacks"] for e in engines if e["name"] == service.engine)


async def tags(service: Service, sandbox_id: str) -> list[str]:
    return [each.type for each in await service.records(f"sandbox-{sandbox_id}")]


async def events(service: Service, sandbox_id: str, tag: str) -> list[dict[str, Any]]:
    records = await service.records(f"sandbox-{sandbox_id}")
    return [dict(msgspec.json.decode(each.data)) for each in records if each.type == tag]


async def event(service: Service, sandbox_id: str, tag: str) -> dict[str, Any]:
    return (await events(service, sandbox_id, tag))[-1]


@gvisor
async def test_three_counters_go_on_where_they_stopped(
    service: Service, donor: Donor, image: Path
) -> None:
    names = ["root", "parked", "last"]
    sandbox, counts = await started(service, donor, names)
    await save(sandbox, image)
    for name, cid in zip(names, ["old", "old-parked", "old-last"], strict=True):
        assert await sandbox.wait(cid) == Exited(code=0), name
    stopped = [await each.rest() for each in counts]
    exited = await event(service, "old", "container.exited")
    saved = await event(service, "old", "sandbox.checkpointed")
    assert exited["checkpoint_id"] == saved["checkpoint_id"]
    assert saved["image_bytes"] == image.stat().st_size
    await sandbox.delete()

    for attempt in ("new", "newer"):
        counts = [Counted() for _ in names]
        donation = donor.donation(counts[0].write)
        again = await service.client.create_sandbox(attempt, counter("root"), donation)
        with image.open("rb") as file:
            await again.restore(file)
        assert (await again.state())["phase"] == "restoringUnstarted"
        for cid in ("p", "l"):
            await again.create_subcontainer(cid)
        parked = donor.donation(counts[1].write)
        await again.restore_subcontainer("p", counter("parked"), parked)
        assert (await again.state())["phase"] == "restoringUnstarted"
        # What is asked for is a start; what it is taken as, the log says.
        last = donor.donation(counts[2].write)
        await again.start_subcontainer("l", counter("last"), last)
        assert (await again.state())["phase"] == "restored"
        await again.wait_restore()
        for before, each in zip(stopped, counts, strict=True):
            assert await each.numbers(3) == [before + 1, before + 2, before + 3]
        cpu_ns, wall_ns = await again.savings_ns()
        used = (await event(service, attempt, "restore.begun"))["image"]
        began = await events(service, attempt, "container.started")
        took = [each["launched"]["cpu_ns"] for each in began]
        assert all(took)
        assert cpu_ns == used["cpu_ns"] - sum(took)
        assert wall_ns < used["wall_ns"]
        pid = await again.execute("l", ["/bin/true"], {})
        assert await again.wait_process("l", pid) == Exited(code=0)
        await again.delete(force=True)
        for each in counts:
            await each.rest()
        trail = await tags(service, attempt)
        assert trail.index("restore.begun") < trail.index("container.restore_accepted")
        assert trail.index("container.start_translated") < trail.index("restore.validated")
        assert trail.index("restore.validated") < trail.index("sandbox.restored")
        accepted = await event(service, attempt, "container.restore_accepted")
        assert (accepted["registered"], accepted["total"]) == (3, 3)


DIES_BADLY = r"""#!/bin/sh
for last in "$@"; do :; done
case " $* " in
*" checkpoint "*)
    echo its memory > "$9/checkpoint.img"
    exit
    ;;
*" resume "*)
    state=$({real} "$1" "$2" "$3" "$4" "$5" "$6" state "$last")
    pid=$(echo "$state" | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')
    exec kill -9 "$pid"
    ;;
esac
exec {real} "$@"
"""
"""The real one, but what is said to be saved ends only when it may go on, and badly."""


async def test_what_is_in_an_image_has_ended_well_however_its_kernel_ends(
    tmp_path: Path, donor: Donor, image: Path
) -> None:
    async with service_with(DIES_BADLY, "runsc", tmp_path) as service:
        sandbox, counts = await started(service, donor, ["root"])
        await save(sandbox, image)
        assert await sandbox.wait() == Exited(code=0)
        await counts[0].rest()


@gvisor
async def test_a_sandbox_runs_on_after_its_image_was_made(
    service: Service, donor: Donor, image: Path
) -> None:
    sandbox, counts = await started(service, donor, ["root", "other"])
    async with anyio.create_task_group() as tasks:
        # Somebody else waits for the first one, or if it comes too late for the second.
        tasks.start_soon(service.client.sandbox("old")._call, "WaitCheckpoint", None)
        for _ in range(2):
            await save(sandbox, image, resume=True)
            state = await sandbox.state()
            assert (state["phase"], state["restore"]) == ("started", None)
            for each in counts:
                await each.numbers(3)
    assert (await sandbox.state())["checkpoint_attempts"] == 2
    pid = await sandbox.execute("old", ["/bin/true"], {})
    assert await sandbox.wait_process("old", pid) == Exited(code=0)
    await sandbox.delete(force=True)
    for each in counts:
        await each.rest()


async def begun(
    service: Service, donor: Donor, image: Path, sandbox_id: str
) -> tuple[SandboxClient, list[Counted]]:
    """A sandbox that waits for its second container."""
    counts = [Counted(), Counted()]
    donation = donor.donation(counts[0].write)
    sandbox = await service.client.create_sandbox(sandbox_id, counter("root"), donation)
    with image.open("rb") as file:
        await sandbox.restore(file)
    await sandbox.create_subcontainer("c")
    return sandbox, counts


@gvisor
async def test_a_manager_killed_while_containers_are_parked(
    service: Service, donor: Donor, image: Path
) -> None:
    sandbox, counts = await started(service, donor, ["root", "other"])
    await save(sandbox, image)
    stopped = [await each.rest() for each in counts]
    sandbox, counts = await begun(service, donor, image, "new")
    service.kill()
    service.start()
    assert (await sandbox.state())["phase"] == "restoringUnstarted"
    await sandbox.restore_subcontainer("c", counter("other"), donor.donation(counts[1].write))
    for before, each in zip(stopped, counts, strict=True):
        assert await each.numbers(1) == [before + 1]


@gvisor
async def test_a_worker_killed_while_containers_are_parked(
    service: Service, donor: Donor, image: Path
) -> None:
    sandbox, counts = await started(service, donor, ["root", "other"])
    await save(sandbox, image)
    sandbox, counts = await begun(service, donor, image, "new")
    os.kill(await service.worker_pid(), signal.SIGKILL)
    with pytest.raises(CallRefused, match=r"failed: the .* lost: the worker that kept the donated"):
        await sandbox.wait_restore()
    assert (await sandbox.state())["phase"] == "restoreFailed"
    text = "sandbox is not being restored, cannot restore subcontainer: state=restoreFailed"
    donation = donor.donation(counts[1].write)
    with pytest.raises(CallRefused, match=text):
        await sandbox.restore_subcontainer("c", counter("other"), donation)
    await sandbox.delete()


@gvisor
async def test_damaged_images_restore_nothing(service: Service, donor: Donor, image: Path) -> None:
    sandbox, counts = await started(service, donor, ["root"])
    await save(sandbox, image)
    await counts[0].rest()
    await sandbox.wait()
    await sandbox.delete()
    whole = image.read_bytes()
    places = [0, 20, 40, 4100, 4600, len(whole) // 2, len(whole) * 2 // 3]
    for number, at in enumerate(places):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        image.write_bytes(damaged)
        await _fails(service, donor, image, f"flipped{number}")
    for length in (0, 10, 63, 4096, 5000, len(whole) - 4097):
        image.write_bytes(whole[:length])
        await _fails(service, donor, image, f"cut{length}")
    assert await service.client.sandboxes() == []


async def _fails(service: Service, donor: Donor, image: Path, sandbox_id: str) -> None:
    sandbox = await service.client.create_sandbox(sandbox_id, counter("root"), donor.donation())
    with image.open("rb") as file, pytest.raises(CallRefused):
        await sandbox.restore(file)
    state = await sandbox.state()
    assert state["phase"] == "restoreFailed"
    assert state["restore_error"]
    await sandbox.delete(force=True)


@gvisor
async def test_an_image_without_room_leaves_the_sandbox_running(
    service: Service, donor: Donor
) -> None:
    sandbox, counts = await started(service, donor, ["root", "other"])
    full = os.memfd_create("full", os.MFD_ALLOW_SEALING)
    fcntl.fcntl(full, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    text = r'^checkpointing sandbox "old": write: Operation not permitted$'
    with pytest.raises(CallRefused, match=text):
        await sandbox.checkpoint(full)
    os.close(full)
    assert (await sandbox.state())["phase"] == "started"
    for each in counts:
        await each.numbers(3)
    await sandbox.delete(force=True)
    for each in counts:
        await each.rest()


@gvisor
async def test_what_still_runs_is_not_brought_back_beside_itself(
    service: Service, donor: Donor, image: Path
) -> None:
    sandbox, _ = await started(service, donor, ["root"])
    await save(sandbox, image, resume=True)
    again = await service.client.create_sandbox("new", counter("root"), donor.donation())
    with image.open("rb") as file, pytest.raises(CallRefused, match="is still here: destroy it"):
        await again.restore(file)
    assert (await sandbox.state())["phase"] == "started"


@pytest.mark.parametrize("service", ["crun", "runc", "bwrap"], indirect=True)
async def test_other_engines_refuse(service: Service, donor: Donor, image: Path) -> None:
    if await can_save(service):
        pytest.skip(f"CRIU works here: {service.engine} does not refuse")
    sandbox = await service.client.create_sandbox("sb", counter("root"), donor.donation())
    image.write_bytes(b"")
    why = {
        "bwrap": "bubblewrap cannot save",
        "crun": "(this crun is built without CRIU|sandtrail uses CRIU with runc only)",
        "runc": "(CRIU is not|`criu check`)",
    }[service.engine]
    text = f"^engine {service.engine} does not support checkpoint: {why}"
    with image.open("rb") as file, pytest.raises(CallRefused, match=text):
        await sandbox.restore(file)
    await sandbox.start_root()
    with pytest.raises(CallRefused, match=text):
        await save(sandbox, image)
    for three, wanted in ((False, 1), (True, 3)):
        argument = {"have_pages_file": three}
        with pytest.raises(CallRefused, match=f"^got 0 files, wanted {wanted}$"):
            await sandbox._call("Checkpoint", argument)
    assert (await sandbox.state())["phase"] == "started"


@gvisor
async def test_the_command_line(service: Service, rootfs: Path, image: Path) -> None:
    script = "trap 'exit 7' TERM; while :; do sleep 0.05; done"
    where = ("--rootfs", str(rootfs))
    assert cli(service, "create", "web", *where, "--", "/bin/sh", "-c", script).returncode == 0
    assert cli(service, "start", "web").returncode == 0
    done = cli(service, "checkpoint", "web", str(image), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["image_bytes"] == image.stat().st_size
    assert image.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in image.parent.iterdir() if "partial" in each.name] == []
    assert cli(service, "restore", "again", str(image), *where).returncode == 0
    assert cli(service, "kill", "again", "TERM").returncode == 0
    assert cli(service, "wait", "again").stdout == "7\n"
    refused = cli(service, "checkpoint", "again", str(image))
    assert (refused.returncode, "state=stopped" in refused.stderr) == (1, True)
    missing = cli(service, "restore", "x", str(image), "--rootfs", f"other={rootfs}")
    assert (missing.returncode, "no --rootfs for container" in missing.stderr) == (1, True)


@gvisor
@pytest.mark.parametrize("resume", [False, True])
async def test_what_was_executed_is_in_no_image(
    service: Service, donor: Donor, image: Path, resume: bool
) -> None:
    sandbox, counts = await started(service, donor, ["root"])
    with pipe() as (read_end, write_end):
        script = "/bin/busybox usleep 900000000 & echo made; wait"
        executed = await sandbox.execute("old", ["/bin/sh", "-c", script], {1: write_end})
        assert os.read(read_end, 100) == b"made\n"
        await save(sandbox, image, resume=resume)
        assert await sandbox.wait_process("old", executed) == Signaled(signal=9)
        assert read_all(read_end, write_end) == b"", "its child has gone with it"
    exited = await event(service, "old", "process.exited")
    saved = await event(service, "old", "sandbox.checkpointed")
    assert exited["checkpoint_id"] == saved["checkpoint_id"]
    if resume:
        await counts[0].numbers(3)
        await sandbox.delete(force=True)
    else:
        await sandbox.wait()
        await sandbox.delete()
    stopped = await counts[0].rest()
    count = Counted()
    again = await service.client.create_sandbox("new", counter("root"), donor.donation(count.write))
    with image.open("rb") as file:
        await again.restore(file)
    (first,) = await count.numbers(1)
    assert first <= stopped + 1 if resume else first == stopped + 1
    commands = [row["cmd"] for row in await again.processes()]
    assert (commands.count("sh"), commands.count("busybox")) == (1, 0)
    with pytest.raises(CallRefused, match=f"waiting for PID {executed}: no such process"):
        await again.wait_process("new", executed)
    await again.delete(force=True)
    count.close()


@gvisor
async def test_three_files_and_a_restore_in_the_background(
    service: Service, donor: Donor, image: Path
) -> None:
    before = Counted()
    spec = counter("root", hostname="first")
    sandbox = await service.client.create_sandbox("old", spec, donor.donation(before.write))
    await sandbox.start_root()
    await before.numbers(3)
    paths = [image, image.with_name("pages-meta"), image.with_name("pages")]
    with contextlib.ExitStack() as owned:
        files = [owned.enter_context(path.open("wb")) for path in paths]
        await sandbox._call("Checkpoint", {"have_pages_file": True}, files)
    assert [path.stat().st_size > 0 for path in paths] == [True, False, False]
    stopped = await before.rest()
    count = Counted()
    spec = counter("root", hostname="another")
    again = await service.client.create_sandbox("new", spec, donor.donation(count.write))
    with contextlib.ExitStack() as owned:
        files = [owned.enter_context(path.open("rb")) for path in paths]
        await again._call("Restore", {"HavePagesFile": True, "Background": True}, files)
    assert (await again.state())["phase"] in {"restoringStarted", "restored"}
    await again.wait_restore()
    assert (await again.state())["phase"] == "restored"
    assert await count.numbers(1) == [stopped + 1]
    with pipe() as (read_end, write_end):
        pid = await again.execute("new", ["/bin/hostname"], {1: write_end})
        assert await again.wait_process("new", pid) == Exited(code=0)
        # gVisor of 2022 has the name in the image; in newer releases the new spec's counts.
        assert read_all(read_end, write_end) == b"first\n"
    await again.delete(force=True)
    count.close()
