"""The service of an ordinary user: no root, no capability, no control group."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import anyio
import pytest

import eventstore
from manager import Donation, Layer
from manager.application.errors import CallRefused
from manager.domain.exit_status import Exited, Signaled
from tests.integration.service.conftest import (
    APPLETS,
    Donor,
    Service,
    pipe,
    read_all,
    sh,
)
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime
UID = 54321
"""Nobody in particular."""

ENGINES = ("bwrap", "crun")
DROP = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--inh-caps=-all")
SOURCES = Path(eventstore.__file__).parents[1]


@pytest.fixture(scope="module")
def command() -> Sequence[str]:
    """A Python that has everything installed and that an ordinary user may execute."""
    if os.geteuid() != 0:
        pytest.skip("becoming an ordinary user takes root")
    packages = [entry for entry in sys.path if entry.endswith("site-packages")]
    environment = ("env", f"PYTHONPATH={':'.join([str(SOURCES), *packages])}")
    own = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{own}"):
        candidate = (*DROP, *environment, python)
        found = subprocess.run(
            [*candidate, "-c", "import manager.cli, anyio, msgspec"],
            check=False,
            capture_output=True,
        )
        if found.returncode == 0:
            return candidate
    pytest.skip(f"an ordinary user cannot execute {sys.executable} here, or read its packages")


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that an ordinary user owns and can reach, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="sandtrail-rootless-"))
    os.chown(path, UID, UID)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def donor(home: Path, rootfs: Path) -> Iterator[Donor]:
    own = home / "rootfs"
    shutil.copytree(rootfs, own, symlinks=True)
    assert all((own / "bin" / applet).is_symlink() for applet in APPLETS)
    for place, _, names in os.walk(own):
        for name in (".", *names):
            os.chown(Path(place, name), UID, UID, follow_symlinks=False)
    lender = Donor(own)
    yield lender
    lender.close()


@pytest.fixture(params=ENGINES)
async def service(
    request: pytest.FixtureRequest, home: Path, command: Sequence[str]
) -> AsyncIterator[Service]:
    running = Service(home / "state", request.param, command).start()
    assert running.told, f"{request.param} does not work for an ordinary user"
    yield running
    await running.end()


async def test_execute(service: Service, donor: Donor) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    with pipe() as (read_end, write_end):
        command = ["/bin/sh", "-c", "id -u; echo $HOME; exit 7"]
        pid = await sandbox.execute("sb", command, {1: write_end})
        assert await sandbox.wait_process("sb", pid) == Exited(code=7)
        assert read_all(read_end, write_end) == b"0\n/\n"
    pid = await sandbox.execute("sb", ["/bin/sleep", "600"], {})
    os.kill(await service.worker_pid(), signal.SIGKILL)
    await next_worker(service)
    await sandbox.signal(signal.SIGTERM, "sb", pid=pid)
    assert await sandbox.wait_process("sb", pid) == Signaled(signal=15)


async def test_start_wait_signal_and_destroy(service: Service, donor: Donor) -> None:
    with pipe() as (read_end, write_end):
        spec = {**sh("sleep 600"), "domainname": "example.org"}
        sandbox = await service.client.create_sandbox("sb", spec, donor.donation())
        await sandbox.start_root()
        await sandbox.create_subcontainer("c1")
        script = "id; cat /proc/sys/kernel/domainname; echo new > /bin/new; ls /bin/new; exit 3"
        await sandbox.start_subcontainer("c1", sh(script), donor.donation(write_end))
        assert await sandbox.wait("c1") == Exited(code=3)
        assert read_all(read_end, write_end) == b"uid=0 gid=0\nexample.org\n/bin/new\n"
    await sandbox.signal(signal.SIGTERM, cid="sb")
    await sandbox.signal(signal.SIGKILL, cid="sb")
    assert await sandbox.wait() == Signaled(signal=9)
    await sandbox.destroy("c1")


async def test_its_processes_are_the_users_own(service: Service, donor: Donor) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    init = (await sandbox.state())["containers"]["sb"]["launched"]["pid"]
    assert Path(f"/proc/{init}").stat().st_uid == UID
    assert Path(f"/proc/{await service.worker_pid()}").stat().st_uid == UID


async def test_everybody_in_a_container_is_found_without_a_control_group(
    service: Service, donor: Donor
) -> None:
    with pipe() as (read_end, write_end):
        script = "for i in 1 2 3; do (sleep 600 & sleep 600) & done; echo ready; wait; sleep 600"
        sandbox = await service.client.create_sandbox("sb", sh(script), donor.donation(write_end))
        await sandbox.start_root()
        await anyio.wait_readable(read_end)
        assert os.read(read_end, 6) == b"ready\n"
        init = (await sandbox.state())["containers"]["sb"]["launched"]["pid"]
        namespace = os.readlink(f"/proc/{init}/ns/pid")
        assert len(members(namespace)) > 3
        await sandbox.delete(force=True)
        assert members(namespace) == []


async def test_the_worker_is_killed_and_the_next_one_takes_over(
    service: Service, donor: Donor
) -> None:
    with pipe() as (read_end, write_end):
        sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
        await sandbox.start_root()
        await sandbox.create_subcontainer("c1")
        await sandbox.start_subcontainer("c1", sh("read line; exit 42"), donated(donor, read_end))
        worker = await service.worker_pid()
        os.kill(worker, signal.SIGKILL)
        await next_worker(service)
        os.write(write_end, b"go on\n")
        assert await sandbox.wait("c1") == Exited(code=42)
        await sandbox.signal(signal.SIGKILL, cid="sb")
        assert await sandbox.wait() == Signaled(signal=9)


async def test_a_file_to_be_read_cannot_be_written_through_proc(
    service: Service, donor: Donor, home: Path
) -> None:
    secret = home / "input"
    secret.write_text("first\nsecond\n")
    os.chown(secret, UID, UID)
    with secret.open("rb") as file, pipe() as (read_end, write_end):
        os.lseek(file.fileno(), len("first\n"), os.SEEK_SET)
        script = "cat; echo evil > /proc/self/fd/0 || exit 5"
        donation = donated(donor, file.fileno(), write_end)
        sandbox = await service.client.create_sandbox("sb", sh(script), donation)
        await sandbox.start_root()
        assert await sandbox.wait() in (Exited(code=1), Exited(code=5), Exited(code=2))
        assert read_all(read_end, write_end).startswith(b"second\n")
    assert secret.read_text() == "first\nsecond\n"


async def test_what_cannot_be_found_again_by_name_is_refused(
    service: Service, donor: Donor, home: Path
) -> None:
    with (home / "gone").open("w+b") as file:
        os.unlink(file.name)
        read_only = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY)
        sandbox = await service.client.create_sandbox("sb", sh("cat"), donated(donor, read_only))
        with pytest.raises(CallRefused, match=r"cannot take .*gone.* over"):
            await sandbox.start_root()
        os.close(read_only)


@pytest.mark.parametrize(
    ("change", "feature"),
    [
        ({"user": {"uid": 7, "gid": 7}}, "non-root-user"),
        ({"oomScoreAdj": -500}, "oom-score-adj"),
    ],
)
async def test_what_takes_more_is_refused_before_anything_happens(
    service: Service, donor: Donor, change: dict[str, object], feature: str
) -> None:
    spec = sh("true")
    spec["process"].update(change)
    with pytest.raises(CallRefused, match=feature):
        await service.client.create_sandbox("sb", spec, donor.donation())


async def test_limits_that_nobody_would_keep_are_refused(service: Service, donor: Donor) -> None:
    spec = sh("true")
    spec["linux"]["resources"] = {"pids": {"limit": 5}}
    with pytest.raises(CallRefused, match="resources"):
        await service.client.create_sandbox("sb", spec, donor.donation())


async def test_nothing_is_left_after_fifty_lives(service: Service, donor: Donor) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    before = await service.fd_counts()
    worker = await service.worker_pid()
    mounts = len(Path(f"/proc/{worker}/mountinfo").read_text().splitlines())
    for number in range(50):
        name = f"c{number}"
        await sandbox.create_subcontainer(name)
        await sandbox.start_subcontainer(name, sh("exit 9"), donor.donation())
        assert await sandbox.wait(name) == Exited(code=9)
        await sandbox.destroy(name)
    assert await service.fd_counts() == before
    assert len(Path(f"/proc/{worker}/mountinfo").read_text().splitlines()) == mounts


async def next_worker(service: Service) -> None:
    """Wait until a second worker is on record: by then it has taken over."""
    async with (
        eventstore.open_log(service.root / "events.db", read_only=True) as log,
        log.subscribe(stream="node") as records,
    ):
        started = 0
        with anyio.fail_after(PATIENCE_S):
            while started < 2:
                started += (await anext(records)).type == "worker.started"


def donated(donor: Donor, stdin: int, stdout: int | None = None) -> Donation:
    out = donor.null_out if stdout is None else stdout
    layer = Layer(source=donor.rootfs, upper="memory", size="16m")
    return Donation(rootfs=layer, stdio=(stdin, out, donor.null_out))


def members(namespace: str) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and os.readlink(f"/proc/{entry}/ns/pid") == namespace:
                found.append(int(entry))
        except OSError:
            continue
    return found
