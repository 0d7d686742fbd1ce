"""What only runc does through CRIU: streams, mounts, namespaces and what it cannot save.

They run where `criu check` passes. `SANDTRAIL_CRIU=/path/to/criu` names one that is not in PATH.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from manager import CallRefused, Donation
from manager.adapters.client import SandboxClient
from manager.domain.checkpoint import COMPRESSIONS, FLATE, NONE
from manager.domain.exit_status import Exited
from tests.integration.service.conftest import Donor, Service, pipe, sh
from tests.integration.service.killing import Killed, reconcile
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
)
from tests.integration.service.test_kill_points import AMID_IMAGES, ImageStory
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime


@pytest.fixture
async def service(tmp_path: Path, rootfs: Path, probed: Path, criu: str) -> AsyncIterator[Service]:
    async with serving(tmp_path / "state", probed, "runc", criu) as running:
        yield running


async def pids(sandbox: SandboxClient) -> dict[str, int]:
    containers = (await sandbox.state())["containers"]
    return {cid: each["launched"]["pid"] for cid, each in containers.items()}


async def test_what_runs_on_are_the_very_same_processes(
    service: Service, donor: Donor, image: Path
) -> None:
    sandbox, counts = await started(service, donor, ["root", "other"])
    before = await pids(sandbox)
    await save(sandbox, image, resume=True)
    assert await pids(sandbox) == before
    assert (await event(service, "old", "sandbox.checkpointed"))["revived"] == {}
    await sandbox.delete(force=True)
    for each in counts:
        await each.rest()


async def test_a_compressed_image_is_smaller(service: Service, donor: Donor, image: Path) -> None:
    sandbox, counts = await started(service, donor, ["root"])
    sizes = {}
    for compression in COMPRESSIONS:
        await save(sandbox, image, resume=True, compression=compression)
        sizes[compression] = image.stat().st_size
    assert sizes[FLATE] < sizes[NONE] * 3 / 4
    await sandbox.delete(force=True)
    counts[0].close()


async def test_a_name_that_is_too_long_to_be_restored(
    service: Service, donor: Donor, image: Path
) -> None:
    sandbox, counts = await started(service, donor, ["root"])
    await save(sandbox, image)
    await sandbox.wait()
    counts[0].close()
    for member in ("hostname", "domainname"):
        spec = {**counter("root"), member: "é" * 33}
        text = "failed to load kernel: runc restore: a name has at most 64 bytes, unlike 'é+'"
        with pytest.raises(CallRefused, match=text):
            await restored(service, image, f"new-{member}", spec, donor.donation())


async def test_a_container_as_it_was_ends_as_it_would_have(
    service: Service, donor: Donor, image: Path
) -> None:
    script = "trap 'exit 7' TERM; sleep 900 & echo ready; wait"
    with pipe() as (read_end, write_end):
        sandbox = await service.client.create_sandbox("old", sh(script), donor.donation(write_end))
        await sandbox.start_root()
        assert os.read(read_end, 100) == b"ready\n"
        await save(sandbox, image)
    with pipe() as (_, write_end):
        again = await restored(service, image, "new", sh(script), donor.donation(write_end))
    # They are found by their control group, so all are in it.
    assert sorted([row["cmd"] for row in await again.processes()]) == ["sh", "sleep"]
    await again.signal(signal.SIGTERM)
    assert await again.wait() == Exited(code=7)


@pytest.mark.parametrize("kind", ["file", "named pipe", "one pipe for two"])
async def test_what_streams_may_be(
    service: Service, donor: Donor, image: Path, tmp_path: Path, kind: str
) -> None:
    spec = sh("n=0; while :; do n=$((n+1)); echo $n; echo $n >&2; sleep 0.05; done")
    async with _streams(kind, tmp_path, "before") as (fds, seen):
        first = _with_stdio(donor, fds)
        sandbox = await service.client.create_sandbox("old", spec, first)
        await sandbox.start_root()
        await seen(3)
        await save(sandbox, image)
        await sandbox.wait()
        last = await seen(0)
    async with _streams(kind, tmp_path, "after") as (fds, seen):
        again = await restored(service, image, "new", spec, _with_stdio(donor, fds))
        assert await seen(4) >= last + 1
        await again.delete(force=True)
        numbers = [int(line) for line in (tmp_path / "after").read_text().split()]
    # The second of the two lines of a number may be what it goes on with.
    assert numbers[0] in {last, last + 1}
    assert sorted(numbers) == numbers


def _with_stdio(donor: Donor, fds: tuple[int, int, int]) -> Donation:
    whole = donor.donation()
    return Donation(rootfs=whole.rootfs, stdio=fds)


@contextlib.asynccontextmanager
async def _streams(kind: str, directory: Path, name: str) -> AsyncIterator[tuple[Any, Any]]:
    """Three streams of that kind, and a wait for so many lines, which all come to a file."""
    path, copy = directory / f"{name}.stream", directory / name
    with contextlib.ExitStack() as owned:
        opened = lambda *how: owned.enter_context(os.fdopen(os.open(*how), "rb")).fileno()  # noqa: E731  # no name for three uses
        stdin = opened("/dev/null", os.O_RDONLY)
        if kind == "file":
            path = copy
            stdin = opened("/etc/passwd", os.O_RDONLY)
            out = opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            err = opened("/dev/null", os.O_WRONLY)
            read_end = -1
        elif kind == "named pipe":
            os.mkfifo(path)
            read_end = opened(path, os.O_RDONLY | os.O_NONBLOCK)
            out, err = opened(path, os.O_WRONLY), opened("/dev/null", os.O_WRONLY)
        else:
            read_end, out = os.pipe()
            owned.callback(os.close, read_end)
            owned.callback(os.close, out)
            os.set_blocking(read_end, False)
            err = out

        async def seen(count: int) -> int:
            with anyio.fail_after(PATIENCE_S):
                while True:
                    if read_end >= 0:
                        with contextlib.suppress(BlockingIOError), copy.open("ab") as file:
                            file.write(os.read(read_end, 65536))
                    lines = copy.read_text().split("\n")[:-1] if copy.exists() else []
                    if len(lines) >= count:
                        return int(lines[-1])
                    await anyio.sleep(0.01)

        yield (stdin, out, err), seen


def _socket() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return theirs.detach(), ours.detach()


def _terminal() -> tuple[int, int]:
    ours, theirs = os.openpty()
    return theirs, ours


@pytest.mark.parametrize(("kind", "make"), [("socket", _socket), ("terminal", _terminal)])
async def test_streams_that_cannot_be_saved_are_refused_before_anything(
    service: Service, donor: Donor, image: Path, kind: str, make: Any
) -> None:
    fd, other = make()
    sandbox = await service.client.create_sandbox("old", counter("root"), donor.donation(fd))
    await sandbox.start_root()
    with pipe() as (_, write_end):
        pid = await sandbox.execute("old", ["/bin/sleep", "900"], {1: write_end})
        text = (
            rf'^checkpointing sandbox "old": freeze: runc cannot save a container: '
            rf"stdout is a {kind}: give it a pipe or a regular file$"
        )
        with pytest.raises(CallRefused, match=text):
            await save(sandbox, image)
        await sandbox.signal(0, pid=pid)
    assert (await sandbox.state())["phase"] == "started"
    await sandbox.delete(force=True)
    os.close(fd)
    os.close(other)


@pytest.mark.parametrize(
    ("out", "text"),
    [
        ("null", "stdout was a file when it was saved: give it a file again"),
        ("no append", "runc would leave a hole in a file: open stdout with O_APPEND"),
    ],
)
async def test_streams_that_cannot_come_in_the_place_of_others(
    service: Service, donor: Donor, image: Path, tmp_path: Path, out: str, text: str
) -> None:
    path = tmp_path / "numbers"
    flags = os.O_WRONLY | os.O_CREAT
    with OpenFile(path, flags | os.O_APPEND) as fd:
        spec = counter("root")
        sandbox = await service.client.create_sandbox("old", spec, donor.donation(fd))
        await sandbox.start_root()
        await save(sandbox, image)
    with (
        OpenFile("/dev/null" if out == "null" else path, flags) as fd,
        pytest.raises(CallRefused, match=f"^failed to load kernel: runc restore: {text}$"),
    ):
        await restored(service, image, "new", spec, donor.donation(fd))
    state = await service.client.sandbox("new").state()
    assert state["phase"] == "restoreFailed"


async def test_a_stream_that_was_nothing_stays_nothing(
    service: Service, donor: Donor, image: Path
) -> None:
    sandbox = await service.client.create_sandbox("old", counter("root"), donor.donation())
    await sandbox.start_root()
    await save(sandbox, image)
    with pipe() as (_, write_end), pytest.raises(CallRefused, match=r"give it /dev/null again$"):
        await restored(service, image, "new", counter("root"), donor.donation(write_end))


async def test_one_that_cannot_come_back_takes_the_others_along(
    service: Service, donor: Donor, image: Path
) -> None:
    sandbox, counts = await started(service, donor, ["root", "other"])
    await save(sandbox, image)
    for each in counts:
        await each.rest()
    count = Counted()
    again = await restored(service, image, "new", counter("root"), donor.donation(count.write))
    await again.create_subcontainer("c")
    with pipe() as (read_end, write_end):
        whole = donor.donation(write_end)
        bad = Donation(rootfs=whole.rootfs, stdio=(read_end, write_end, donor.null_out))
        text = "failed to load kernel: runc restore: stdin was /dev/null when it was saved"
        with pytest.raises(CallRefused, match=text):
            await again.restore_subcontainer("c", counter("other"), bad)
    state = await again.state()
    assert state["phase"] == "restoreFailed"
    assert await count.rest() > 0, "the root that was back already has been ended"
    await again.delete()


async def test_what_criu_cannot_save_goes_on_and_the_event_says_why(
    service: Service, donor: Donor, image: Path
) -> None:
    sandbox, counts = await started(service, donor, ["root", "other"])
    with pipe() as (read_end, write_end):
        make = "/bin/busybox dd if=/dev/zero of=/tmp/big bs=1M count=2 2>/dev/null"
        spec = sh(f"{make}; exec 5</tmp/big; /bin/busybox rm /tmp/big; echo open; {COUNTER}")
        await sandbox.create_subcontainer("ghost")
        await sandbox.start_subcontainer("ghost", spec, donor.donation(write_end))
        await contains(read_end, b"open\n")
        text = r'^checkpointing sandbox "old": save: runc checkpoint: .*[Gg]host'
        with pytest.raises(CallRefused, match=text):
            await save(sandbox, image)
        failed = await event(service, "old", "sandbox.checkpoint_failed")
        assert "host" in failed["error"]
        assert (await sandbox.state())["phase"] == "started"
        for each in counts:
            await each.numbers(3)
        assert image.stat().st_size == 0
        await sandbox.delete(force=True)
    for each in counts:
        await each.rest()


async def test_a_shared_segment_is_brought_back_once(
    service: Service, donor: Donor, image: Path
) -> None:
    if shutil.which("ipcmk") is None:
        pytest.skip("ipcmk is not installed (apt-get install util-linux-extra)")
    sandbox, counts = await started(service, donor, ["root", "other"])
    root = (await pids(sandbox))["old"]
    subprocess.run(["nsenter", "-i", "-t", str(root), "ipcmk", "-M", "4096"], check=True)
    before = _segments(root)
    await save(sandbox, image)
    for cid, each in zip(("old", "old-other"), counts, strict=True):
        assert await sandbox.wait(cid) == Exited(code=0)
        each.close()
    await sandbox.delete()
    counts = [Counted(), Counted()]
    again = await restored(service, image, "new", counter("root"), donor.donation(counts[0].write))
    await again.create_subcontainer("c")
    await again.restore_subcontainer("c", counter("other"), donor.donation(counts[1].write))
    assert before
    assert _segments((await pids(again))["c"]) == before
    for kind in ("net", "ipc", "uts"):
        found = {os.stat(f"/proc/{pid}/ns/{kind}").st_ino for pid in (await pids(again)).values()}
        assert len(found) == 1, f"they share one {kind} namespace"
    await again.delete(force=True)
    for each in counts:
        each.close()


def _segments(pid: int) -> list[str]:
    """Key, id and size of the shared memory segments where a process is."""
    rows = subprocess.check_output(["nsenter", "-i", "-t", str(pid), "cat", "/proc/sysvipc/shm"])
    return [" ".join(row.split()[:4:]) for row in rows.decode().splitlines()[1:]]


async def test_a_worker_killed_while_criu_is_at_work(
    tmp_path: Path, rootfs: Path, probed: Path, criu: str, donor: Donor, image: Path
) -> None:
    """CRIU goes on without the worker, and leaves frozen what it found frozen."""
    slow, begun, go = tmp_path / "criu", tmp_path / "begun", tmp_path / "go"
    slow.write_text(
        f'#!/bin/sh\n[ $1 = swrk ] || exec {criu} "$@"\n'
        f'touch {begun}\nwhile [ ! -e {go} ]; do sleep 0.01; done\nexec {criu} "$@"\n'
    )
    slow.chmod(0o755)
    async with serving(tmp_path / "state", probed, "runc", str(slow)) as service:
        sandbox, counts = await started(service, donor, ["root", "other"])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_save_in_vain, sandbox, image)
            with anyio.fail_after(PATIENCE_S):
                while not begun.exists():
                    await anyio.sleep(0.01)
            os.kill(await service.worker_pid(), signal.SIGKILL)
        go.touch()
        for each in counts:
            await each.numbers(3)
        assert len(await events(service, "old", "sandbox.checkpoint_failed")) == 1
        await save(sandbox, image, resume=True)
        for each in counts:
            await each.numbers(3)
        await sandbox.delete(force=True)
    for each in counts:
        each.close()


async def _save_in_vain(sandbox: SandboxClient, image: Path) -> None:
    with pytest.raises(CallRefused, match="interrupted"):
        await save(sandbox, image)


@pytest.mark.parametrize(("point", "count"), AMID_IMAGES)
async def test_a_kill_amid_images(
    point: str, count: int, tmp_path: Path, probed: Path, criu: str, donor: Donor
) -> None:
    killed = Killed(tmp_path / "state", probed, "runc", point, count)
    killed.service.options = ("--engine-path", f"criu={criu}")
    async with killed.running() as service:
        await ImageStory(service, donor, tmp_path).tell()
        await reconcile(service)
        assert killed.marker.exists(), "nobody was killed"
