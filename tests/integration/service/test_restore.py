"""Processes that are saved to a file, and go on from it: by gVisor, and by runc through CRIU.

With runc they run where `criu check` passes. `SANDTRAIL_CRIU=/path/to/criu` names one that is not
in PATH.
"""

import contextlib
import fcntl
import json
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import anyio
import pytest

from manager import CallRefused, Donation, Layer
from manager.adapters.client import SandboxClient
from manager.domain.checkpoint import COMPRESSIONS, FLATE
from manager.domain.exit_status import Exited, Signaled
from manager.schema.image import ALIGNMENT_BYTES, HEADER_BYTES, Image, read_image
from tests.integration.service.conftest import Donor, Service, pipe, read_all, sh
from tests.integration.service.saving import (
    COUNTER,
    Counted,
    OpenFile,
    contains,
    counter,
    event,
    events,
    restored,
    save,
    serving,
    started,
    tags,
)
from tests.integration.service.test_cli import cli

pytestmark = pytest.mark.runtime
DAMAGES = int(os.environ.get("SANDTRAIL_DAMAGES", "1"))
"""How many bytes of the engine's files are turned over, and how often it is cut, at random."""
EVERY_OFFSET = "SANDTRAIL_EVERY_OFFSET" in os.environ
"""Whether each byte before the engine's files is turned over, and it is cut at each, which takes
minutes."""

WAITS_SECONDS = 10
"""So long gVisor's own tests wait for whoever waits for a checkpoint or a restore; here that is
from its end on, since containers take as long as the machine does."""


@pytest.fixture(params=["runsc", "runc"])
async def service(
    request: pytest.FixtureRequest, tmp_path: Path, rootfs: Path, probed: Path
) -> AsyncIterator[Service]:
    criu = request.getfixturevalue("criu") if request.param == "runc" else None
    async with serving(tmp_path / "state", probed, request.param, criu) as running:
        if not running.told:
            pytest.skip(f"engine {request.param} does not work here")
        yield running


async def said(sandbox: SandboxClient, cid: str, *argv: str) -> str:
    """What a program says that is executed in a container."""
    with pipe() as (read_end, write_end):
        pid = await sandbox.execute(cid, argv, {1: write_end})
        assert await sandbox.wait_process(cid, pid) == Exited(code=0)
        return read_all(read_end, write_end).decode().strip()


async def three_again(
    service: Service, donor: Donor, image: Path
) -> tuple[SandboxClient, list[Counted]]:
    """The root, one that is parked, and the last, which sets the restore of all off."""
    counts = [Counted() for _ in range(3)]
    donations = [donor.donation(each.write) for each in counts]
    sandbox = await restored(service, image, "new", counter("root"), donations[0])
    assert (await sandbox.state())["phase"] == "restoringUnstarted"
    for cid in ("p", "l"):
        await sandbox.create_subcontainer(cid)
    await sandbox.restore_subcontainer("p", counter("parked"), donations[1])
    assert (await sandbox.state())["phase"] == "restoringUnstarted"
    # What is asked for is a start; what it is taken as, the log says.
    await sandbox.start_subcontainer("l", counter("last"), donations[2])
    return sandbox, counts


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_three_counters_go_on_where_they_stopped(
    service: Service, donor: Donor, image: Path, compression: str
) -> None:
    """Twice from one image, under the same new ids."""
    sandbox, counts = await started(service, donor, ["root", "parked", "last"])
    await save(sandbox, image, compression=compression)
    for cid in ("old", "old-parked", "old-last"):
        assert await sandbox.wait(cid) == Exited(code=0), cid
    stopped = [await each.rest() for each in counts]
    exited = await event(service, "old", "container.exited")
    saved = await event(service, "old", "sandbox.checkpointed")
    assert exited["checkpoint_id"] == saved["checkpoint_id"]
    assert saved["image_bytes"] == image.stat().st_size
    requested = await event(service, "old", "sandbox.checkpoint_requested")
    assert requested["image"]["compression"] == read(image).metadata.compression == compression
    await sandbox.delete()
    for _ in range(2):
        before = len(await service.records("sandbox-new"))
        again, counts = await three_again(service, donor, image)
        with anyio.fail_after(WAITS_SECONDS):
            await again.wait_restore()
        state = await again.state()
        assert state["phase"] == "restored"
        assert [each["status"] for each in state["containers"].values()] == ["running"] * 3
        for last, each in zip(stopped, counts, strict=True):
            assert await each.numbers(3) == [last + 1, last + 2, last + 3]
        await _saves_time(service, again)
        pid = await again.execute("l", ["/bin/true"], {})
        assert await again.wait_process("l", pid) == Exited(code=0)
        await again.delete(force=True)
        for each in counts:
            await each.rest()
        trail = (await tags(service, "new"))[before:]
        accepted = (await events(service, "new", "container.restore_accepted"))[-2:]
        assert [(each["registered"], each["total"]) for each in accepted] == [(2, 3), (3, 3)]
        places = [
            trail.index(tag)
            for tag in (
                "restore.begun",
                "container.restore_accepted",
                "container.start_translated",
                "restore.validated",
                "sandbox.restored",
            )
        ]
        assert places == sorted(places)


async def _saves_time(service: Service, sandbox: SandboxClient) -> None:
    """What the image says was used, less what it took to bring it back."""
    image = (await event(service, sandbox.id, "restore.begun"))["image"]
    began = await events(service, sandbox.id, "container.started")
    took = [each["launched"]["cpu_ns"] for each in began[-len(image["containers"]) :]]
    cpu_ns, wall_ns = await sandbox.savings_ns()
    assert all(took)
    assert cpu_ns == image["cpu_ns"] - sum(took)
    assert wall_ns < image["wall_ns"]


def read(image: Path) -> Image:
    content = image.read_bytes()
    return read_image(len(content), lambda offset, length: content[offset:][:length])


async def test_labels_that_gvisor_refuses(service: Service, donor: Donor, image: Path) -> None:
    sandbox, counts = await started(service, donor, ["root"])
    for labels, text in (
        ({"compression": "gzip"}, "statefile error: flags set is invalid"),
        ({"_timestamp": "now"}, "statefile error: metadata invalid, can't start with _"),
    ):
        with image.open("wb") as file, pytest.raises(CallRefused, match=f"^{text}$"):
            await sandbox._call("Checkpoint", {"metadata": labels}, [file])
        assert (await event(service, "old", "sandbox.checkpoint_rejected"))["error"] == text
    await counts[0].numbers(3)
    await sandbox.delete(force=True)
    counts[0].close()


async def test_what_came_out_of_an_image_can_be_saved_again(
    service: Service, donor: Donor, image: Path
) -> None:
    sandbox, counts = await started(service, donor, ["root"])
    count = counts[0]
    for generation in ("new", "newer"):
        await save(sandbox, image)
        assert await sandbox.wait() == Exited(code=0)
        last = await count.rest()
        await sandbox.delete()
        count = Counted()
        donation = donor.donation(count.write)
        sandbox = await restored(service, image, generation, counter("root"), donation)
        assert await count.numbers(3) == [last + 1, last + 2, last + 3]
    await sandbox.delete(force=True)
    count.close()


async def test_a_sandbox_runs_on_after_its_image_was_made(
    service: Service, donor: Donor, image: Path
) -> None:
    sandbox, counts = await started(service, donor, ["root", "other"])
    told = anyio.Event()

    async def wait() -> None:
        await service.client.sandbox("old")._call("WaitCheckpoint", None)
        told.set()

    async with anyio.create_task_group() as tasks:
        # Somebody else waits for the first one, or if it comes too late for the second.
        tasks.start_soon(wait)
        for _ in range(2):
            await save(sandbox, image, resume=True)
            state = await sandbox.state()
            assert (state["phase"], state["restore"]) == ("started", None)
            for each in counts:
                await each.numbers(3)
        with anyio.fail_after(WAITS_SECONDS):
            await told.wait()
    assert (await sandbox.state())["checkpoint_attempts"] == 2
    pid = await sandbox.execute("old", ["/bin/true"], {})
    assert await sandbox.wait_process("old", pid) == Exited(code=0)
    await sandbox.signal(9)
    assert await sandbox.wait() == Signaled(signal=9)
    await sandbox.delete(force=True)
    for each in counts:
        await each.rest()


async def test_three_files_and_a_restore_in_the_background(
    service: Service, donor: Donor, image: Path
) -> None:
    sandbox, counts = await started(service, donor, ["root", "other"])
    paths = [image, image.with_name("pages-meta"), image.with_name("pages")]
    with contextlib.ExitStack() as owned:
        files = [owned.enter_context(path.open("wb")) for path in paths]
        await sandbox._call("Checkpoint", {"have_pages_file": True}, files)
    assert [path.stat().st_size > 0 for path in paths] == [True, False, False]
    stopped = [await each.rest() for each in counts]
    await sandbox.delete(force=True)

    counts = [Counted(), Counted()]
    donations = [donor.donation(each.write) for each in counts]
    again = await service.client.create_sandbox("new", counter("root"), donations[0])
    with contextlib.ExitStack() as owned:
        files = [owned.enter_context(path.open("rb")) for path in paths]
        await again._call("Restore", {"HavePagesFile": True, "Background": True}, files)
    await again.create_subcontainer("c")
    told = anyio.Event()

    async def wait() -> None:
        await service.client.sandbox("new").wait_restore()
        told.set()

    async with anyio.create_task_group() as tasks, contextlib.aclosing(_restored(again)) as done:
        tasks.start_soon(wait)
        await again.restore_subcontainer("c", counter("other"), donations[1])
        assert (await again.state())["phase"] in {"restoringStarted", "restored"}
        await anext(done)
        with anyio.fail_after(WAITS_SECONDS):
            await told.wait()
            await again.wait_restore()
    assert (await again.state())["phase"] == "restored"
    for last, each in zip(stopped, counts, strict=True):
        assert await each.numbers(1) == [last + 1]
    await _saves_time(service, again)
    await again.delete(force=True)
    for each in counts:
        each.close()


async def _restored(sandbox: SandboxClient) -> AsyncGenerator[None, None]:
    """Yields once, when the log says so."""
    async for record in sandbox.events(follow=True):
        if record.type == "sandbox.restored":
            yield


async def test_the_names_are_those_of_the_new_spec(
    service: Service, donor: Donor, image: Path
) -> None:
    """But for gVisor of 2022, which has the host name in the image and no domain name at all."""
    specs = [counter("root", hostname=each) for each in ("first", "another")]
    if service.engine == "runc":
        specs = [{**spec, "domainname": f"{spec['hostname']}.example"} for spec in specs]
    count = Counted()
    sandbox = await service.client.create_sandbox("old", specs[0], donor.donation(count.write))
    await sandbox.start_root()
    await count.numbers(1)
    await save(sandbox, image)
    await sandbox.wait()
    await count.rest()
    count = Counted()
    again = await restored(service, image, "new", specs[1], donor.donation(count.write))
    await count.numbers(1)
    hostname = await said(again, "new", "/bin/hostname")
    assert hostname == ("another" if service.engine == "runc" else "first")
    if service.engine == "runc":
        domain = await said(again, "new", "/bin/cat", "/proc/sys/kernel/domainname")
        assert domain == "another.example"
    await again.delete(force=True)
    count.close()


async def test_mounts_are_the_new_ones(
    service: Service, donor: Donor, image: Path, tmp_path: Path
) -> None:
    """In the root, and beneath a filesystem that the engine mounts; there a file is open."""
    counting = COUNTER.replace("echo $n", "echo $n; cat /data/greeting")
    script = f"exec 4</run/inner/greeting; {counting}"
    spec = sh(script)
    spec["mounts"] += [
        {"destination": "/data", "type": "bind", "source": "x", "options": ["rbind"]},
        {"destination": "/run", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/run/inner", "type": "bind", "source": "x", "options": ["rbind", "ro"]},
    ]
    for name in ("first!", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "greeting").write_text(f"{name}\n")
    for name in ("first!", "second"):
        with (
            OpenFile(tmp_path / name, os.O_RDONLY | os.O_DIRECTORY) as tree,
            pipe() as (read_end, write_end),
        ):
            layers = (Layer(source=tree), Layer(source=tree))
            donation = donor.donation(write_end, mounts=layers)
            if name == "first!":
                sandbox = await service.client.create_sandbox("old", spec, donation)
                await sandbox.start_root()
                await contains(read_end, b"first!\n")
                await save(sandbox, image)
                await sandbox.wait()
            else:
                again = await restored(service, image, "new", spec, donation)
                await contains(read_end, b"second\n")
                await again.delete(force=True)


async def test_an_upper_tar_is_for_starts(service: Service, donor: Donor, image: Path) -> None:
    sandbox, counts = await started(service, donor, ["root"])
    await save(sandbox, image)
    await sandbox.wait()
    counts[0].close()
    tar = os.memfd_create("tar")
    text = "^rootfs upper tar file is not supported during restore$"
    with pytest.raises(CallRefused, match=text):
        await restored(service, image, "new", counter("root"), donor.donation(upper_tar=tar))
    assert (await service.client.sandbox("new").state())["phase"] == "created"
    os.close(tar)


async def test_of_two_that_race_for_one_place_one_is_restored(
    service: Service, donor: Donor, image: Path
) -> None:
    sandbox, counts = await started(service, donor, ["root", "other"])
    await save(sandbox, image)
    stopped = [await each.rest() for each in counts]
    await sandbox.delete(force=True)
    counts = [Counted() for _ in range(3)]
    donations = [donor.donation(each.write) for each in counts]
    again = await restored(service, image, "new", counter("root"), donations[0])
    refused: dict[str, str] = {}

    async def register(cid: str, donation: Donation) -> None:
        try:
            await again.restore_subcontainer(cid, counter("other"), donation)
        except CallRefused as refusal:
            refused[cid] = str(refusal)

    rivals = {"a": counts[1], "b": counts[2]}
    for cid in (*rivals, "late"):
        await again.create_subcontainer(cid)
    async with anyio.create_task_group() as tasks:
        for cid, donation in zip(rivals, donations[1:], strict=True):
            tasks.start_soon(register, cid, donation)
    ((loser, text),) = refused.items()
    begins = "sandbox is not being restored, cannot restore subcontainer: state=restor"
    assert text.startswith(begins), "the first one completes the image"
    await register("late", donations[1])
    assert refused["late"] == f"{begins}ed"
    lost = rivals.pop(loser)
    (winner,) = rivals
    for last, each in zip(stopped, (counts[0], rivals[winner]), strict=True):
        assert await each.numbers(1) == [last + 1]
    assert not lost.goes_on()
    containers = (await again.state())["containers"]
    assert {cid: each["status"] for cid, each in containers.items()} == {
        "new": "running",
        winner: "running",
        loser: "creating",
        "late": "creating",
    }
    await again.delete(force=True)
    for each in counts:
        each.close()


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_damaged_images_restore_nothing(
    service: Service, donor: Donor, image: Path, compression: str
) -> None:
    sandbox, counts = await started(service, donor, ["root"])
    await save(sandbox, image, compression=compression)
    await counts[0].rest()
    await sandbox.wait()
    await sandbox.delete()
    whole, found = image.read_bytes(), read(image)
    (container,) = found.metadata.containers or ()
    files = {file: found.begin + file.offset for file in container.files}
    middles = [begin + file.room // 2 for file, begin in list(files.items())[::5]]
    dice = random.Random(compression)
    for _ in range(DAMAGES):
        file, begin = dice.choice([each for each in files.items() if each[0].room > 1])
        middles.append(begin + dice.randrange(file.room - 1))
    told = [*range(HEADER_BYTES), *range(ALIGNMENT_BYTES, ALIGNMENT_BYTES + len(found.body))]
    told = told if EVERY_OFFSET else []
    for number, at in enumerate([0, 20, 40, 4100, *told, *middles]):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        image.write_bytes(damaged)
        text = "failed to load kernel: the image is damaged" if at in middles else ""
        await _fails(service, donor, image, f"flipped{number}", text)
    cuts = [dice.randrange(len(whole) - 4096) for _ in range(DAMAGES)]
    for number, length in enumerate([0, 10, 63, 4096, 4500, len(whole) - 4097, *told, *cuts]):
        image.write_bytes(whole[:length])
        await _fails(service, donor, image, f"cut{number}")
    assert await service.client.sandboxes() == []


async def _fails(
    service: Service, donor: Donor, image: Path, sandbox_id: str, text: str = ""
) -> None:
    with pytest.raises(CallRefused, match=f"^{text}"):
        await restored(service, image, sandbox_id, counter("root"), donor.donation())
    sandbox = service.client.sandbox(sandbox_id)
    state = await sandbox.state()
    assert state["phase"] == "restoreFailed"
    assert state["restore_error"]
    assert [each["status"] for each in state["containers"].values()] != ["running"]
    await sandbox.delete(force=True)


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


@pytest.mark.parametrize("resume", [False, True])
async def test_what_was_executed_is_in_no_image(
    service: Service, donor: Donor, image: Path, resume: bool
) -> None:
    sandbox, counts = await started(service, donor, ["root"])
    with pipe() as (read_end, write_end), pipe() as (never, _):
        script = "/bin/busybox usleep 900000000 & echo made; exec /bin/cat"
        argv = ["/bin/sh", "-c", script]
        executed = await sandbox.execute("old", argv, {0: never, 1: write_end})
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
    again = await restored(service, image, "new", counter("root"), donor.donation(count.write))
    (first,) = await count.numbers(1)
    assert first <= stopped + 1 if resume else first == stopped + 1
    commands = [row["cmd"] for row in await again.processes()]
    assert len(commands) <= 2, "the counter, and what it runs"
    # Newer gVisors call an applet that the shell runs by what it was executed as: /proc/self/exe.
    assert {"sh", "sleep", "exe"}.issuperset(commands)
    with pytest.raises(CallRefused, match=f"waiting for PID {executed}: no such process"):
        await again.wait_process("new", executed)
    await again.delete(force=True)
    count.close()


async def test_the_command_line(service: Service, rootfs: Path, image: Path) -> None:
    script = "trap 'exit 7' TERM; while :; do sleep 0.05; done"
    where = ("--rootfs", str(rootfs))
    assert cli(service, "create", "web", *where, "--", "/bin/sh", "-c", script).returncode == 0
    assert cli(service, "start", "web").returncode == 0
    unknown = cli(service, "checkpoint", "web", str(image), "--compression", "zstd")
    assert (unknown.returncode, "'zstd' is not one of" in unknown.stderr) == (2, True)
    done = cli(service, "checkpoint", "web", str(image), "--json", "--compression", FLATE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["image_bytes"] == image.stat().st_size
    assert image.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in image.parent.iterdir() if "partial" in each.name] == []
    done = cli(service, "restore", "again", str(image), *where)
    assert done.returncode == 0, done.stderr
    assert cli(service, "kill", "again", "TERM").returncode == 0
    assert cli(service, "wait", "again").stdout == "7\n"
    refused = cli(service, "checkpoint", "again", str(image))
    assert (refused.returncode, "state=stopped" in refused.stderr) == (1, True)
    missing = cli(service, "restore", "x", str(image), "--rootfs", f"other={rootfs}")
    assert (missing.returncode, "no --rootfs for container" in missing.stderr) == (1, True)
