"""What a container sees of itself and of its neighbours: users, PID namespaces, a terminal."""

import os
import pty
import signal
import struct
import termios
from collections.abc import AsyncIterator
from fcntl import ioctl
from pathlib import Path
from typing import Any

import anyio
import pytest

from manager import CallRefused, Donation, Layer
from manager.adapters.client import SandboxClient
from manager.domain.exit_status import Exited, Signaled
from tests.integration.service.conftest import ENGINES, Donor, Service, pipe, read_all, sh
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime
every_engine = pytest.mark.parametrize("service", ENGINES, indirect=True)
# With runsc each container has a kernel of its own: there is no PID namespace to share.
host_kernel = pytest.mark.parametrize("service", ["crun", "runc", "bwrap"], indirect=True)
runsc = pytest.mark.parametrize("service", ["runsc"], indirect=True)
UNSHARED = "engine runsc does not support pid-namespace-join"
PASSWD = "root:x:0:0::/root:/bin/sh\nmoth:x:1000:1000::/home/moth:/bin/sh\n"


async def running_sandbox(service: Service, donor: Donor) -> SandboxClient:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 1000"), donor.donation())
    await sandbox.start_root()
    return sandbox


async def output(
    sandbox: SandboxClient, donor: Donor, cid: str, spec: dict[str, Any], **parts: Any
) -> bytes:
    with pipe() as (read_end, write_end):
        await sandbox.create_subcontainer(cid)
        await sandbox.start_subcontainer(cid, spec, donor.donation(write_end, **parts))
        assert await sandbox.wait(cid) == Exited(code=0)
        return read_all(read_end, write_end)


@pytest.fixture
async def layer_with_users(rootfs: Path, tmp_path: Path) -> AsyncIterator[Layer]:
    root = tmp_path / "with-users"
    root.mkdir()
    for each in rootfs.iterdir():
        (root / each.name).mkdir()
    for each in (rootfs / "bin").iterdir():
        target = root / "bin" / each.name
        target.symlink_to(os.readlink(each)) if each.is_symlink() else os.link(each, target)
    (root / "etc" / "passwd").write_text(PASSWD)
    source = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield Layer(source=source, upper="memory", size="16m")
    os.close(source)


@every_engine
@pytest.mark.parametrize(
    ("uid", "env", "told"),
    [
        (0, (), b"/root 0\n"),
        (1000, (), b"/home/moth 1000\n"),
        (1000, ("HOME=/elsewhere",), b"/elsewhere 1000\n"),
        (4242, (), b"/ 4242\n"),
    ],
)
async def test_a_user_has_its_home(
    service: Service,
    donor: Donor,
    layer_with_users: Layer,
    uid: int,
    env: tuple[str, ...],
    told: bytes,
) -> None:
    spec = sh("echo $HOME `id -u`", env=env)
    spec["process"]["user"] = {"uid": uid, "gid": uid}
    sandbox = await running_sandbox(service, donor)
    if service.engine == "bwrap" and uid != 0:
        with pytest.raises(CallRefused, match="engine bwrap does not support non-root-user"):
            await output(sandbox, donor, "c1", spec, root=layer_with_users)
        return
    assert await output(sandbox, donor, "c1", spec, root=layer_with_users) == told


def without_pid_namespace(spec: dict[str, Any]) -> dict[str, Any]:
    namespaces = spec["linux"]["namespaces"]
    spec["linux"]["namespaces"] = [each for each in namespaces if each["type"] != "pid"]
    return spec


@every_engine
async def test_private_and_shared_pid_namespaces(service: Service, donor: Donor) -> None:
    sandbox = await running_sandbox(service, donor)
    private = sh('echo $$; all=$(ls /proc); echo "$all" | /bin/busybox grep -c ^[0-9]')
    # The shell and ls.
    assert (await output(sandbox, donor, "private", private)).split() == [b"1", b"2"]
    if service.engine == "runsc":
        with pytest.raises(CallRefused, match=UNSHARED):
            await output(sandbox, donor, "shared", without_pid_namespace(sh("true")))
        return
    shared = without_pid_namespace(sh("readlink /proc/1/exe; test $$ != 1"))
    assert await output(sandbox, donor, "shared", shared) == b"/bin/busybox\n"


@host_kernel
async def test_a_pid_namespace_that_is_named_by_a_path(service: Service, donor: Donor) -> None:
    """Those who name the same one share it; one that nobody has named before is a new one."""
    sandbox = await running_sandbox(service, donor)

    async def namespace(cid: str, path: str) -> str:
        spec = sh("sleep 1000")
        for each in spec["linux"]["namespaces"]:
            if each["type"] == "pid":
                each["path"] = path
        await sandbox.create_subcontainer(cid)
        await sandbox.start_subcontainer(cid, spec, donor.donation())
        init = (await sandbox.state())["containers"][cid]["launched"]["pid"]
        return os.readlink(f"/proc/{init}/ns/pid")

    first = await namespace("c1", "/proc/4711/ns/pid")
    assert await namespace("c2", "/proc/4711/ns/pid") == first
    other = await namespace("c3", "/proc/4712/ns/pid")
    root = (await sandbox.state())["containers"]["sb"]["launched"]["pid"]
    assert len({first, other, os.readlink(f"/proc/{root}/ns/pid")}) == 3
    assert len(await sandbox.processes("c1")) == 1, "each has a list of its own"
    pid = (await sandbox.processes("c2"))[0]["pid"]
    with pytest.raises(CallRefused, match=f'process {pid} belongs to a different container: "c2"'):
        await sandbox.signal(signal.SIGKILL, "c1", pid=pid)


@runsc
async def test_a_path_that_nobody_has_named_before_is_all_that_runsc_takes(
    service: Service, donor: Donor
) -> None:
    sandbox = await running_sandbox(service, donor)

    async def start(cid: str, path: str) -> None:
        spec = without_pid_namespace(sh("sleep 1000"))
        spec["linux"]["namespaces"].append({"type": "pid", "path": path})
        await sandbox.create_subcontainer(cid)
        await sandbox.start_subcontainer(cid, spec, donor.donation())

    await start("c1", "/proc/4711/ns/pid")
    with pytest.raises(CallRefused, match=UNSHARED):
        await start("c2", "/proc/4711/ns/pid")
    await start("c3", "/proc/4712/ns/pid")


@host_kernel
async def test_everyone_ends_with_init_and_by_a_signal_for_all(
    service: Service, donor: Donor
) -> None:
    sandbox = await running_sandbox(service, donor)
    root = (await sandbox.state())["containers"]["sb"]["launched"]["pid"]
    namespace = os.readlink(f"/proc/{root}/ns/pid")
    crowd = "for n in 1 2 3 4 5 6 7; do sleep 1000 & done; echo made;"
    for cid, then, told in (
        ("dead", "exit 3", Exited(code=3)),
        ("alive", "wait", Signaled(signal=9)),
    ):
        with pipe() as (read_end, write_end):
            await sandbox.create_subcontainer(cid)
            spec = without_pid_namespace(sh(f"{crowd} {then}"))
            await sandbox.start_subcontainer(cid, spec, donor.donation(write_end))
            assert os.read(read_end, 100) == b"made\n"
        if cid == "alive":
            assert len(members(namespace)) == 9
        else:
            assert await sandbox.wait(cid) == told
        await sandbox.signal(signal.SIGKILL, cid, everyone=True)
        assert await sandbox.wait(cid) == told
        with anyio.fail_after(PATIENCE_S):
            while members(namespace) != [root]:
                await anyio.sleep(0.01)  # nobody tells when the last of them is gone
        await sandbox.signal(signal.SIGKILL, cid, everyone=True)  # nobody is left to be missed
        await sandbox.destroy(cid)
        with pytest.raises(CallRefused, match=f'container "{cid}" not found'):
            await sandbox.signal(signal.SIGKILL, cid, everyone=True)
    await sandbox.signal(signal.SIGKILL)
    assert await sandbox.wait() == Signaled(signal=9)


@runsc
async def test_everyone_in_a_kernel_of_their_own(service: Service, donor: Donor) -> None:
    sandbox = await running_sandbox(service, donor)
    crowd = "for n in 1 2 3 4 5 6 7; do sleep 1000 & done; echo made;"
    for cid, then, told in (
        ("dead", "exit 3", Exited(code=3)),
        ("alive", "wait", Signaled(signal=9)),
    ):
        with pipe() as (read_end, write_end):
            await sandbox.create_subcontainer(cid)
            spec = sh(f"{crowd} {then}")
            await sandbox.start_subcontainer(cid, spec, donor.donation(write_end))
            assert os.read(read_end, 100) == b"made\n"
            if cid == "alive":
                assert len(await sandbox.processes(cid)) == 8
            else:
                assert await sandbox.wait(cid) == told
            await sandbox.signal(signal.SIGKILL, cid, everyone=True)
            assert await sandbox.wait(cid) == told
            # Whoever still lived would have it open.
            assert read_all(read_end, write_end) == b""
        assert await sandbox.processes(cid) == []
        await sandbox.signal(signal.SIGKILL, cid, everyone=True)  # nobody is left to be missed
        await sandbox.destroy(cid)
    assert len(await sandbox.processes("sb")) == 1


def members(namespace: str) -> list[int]:
    """Who lives in a PID namespace. The dead that its init does not reap do not count."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                inside = os.readlink(f"/proc/{entry}/ns/pid") == namespace
                dead = "\nState:\tZ" in Path(f"/proc/{entry}/status").read_text()
            except OSError:
                continue
            found += [int(entry)] * (inside and not dead)
    return found


class Terminal:
    """The client's end of a terminal that a container is given."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(24, 80)

    def resize(self, rows: int, columns: int) -> None:
        ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def says(self, text: bytes) -> None:
        seen = b""
        with anyio.fail_after(PATIENCE_S):
            while text not in seen:
                await anyio.wait_readable(self.master)
                seen += os.read(self.master, 4096)

    def type(self, text: bytes) -> None:
        os.write(self.master, text)


@pytest.fixture
async def terminal() -> AsyncIterator[Terminal]:
    made = Terminal()
    yield made
    os.close(made.master)


async def on_terminal(
    service: Service, donor: Donor, terminal: Terminal, args: list[str]
) -> SandboxClient:
    sandbox = await running_sandbox(service, donor)
    await sandbox.create_subcontainer("c1", tty=terminal.slave)
    os.close(terminal.slave)
    spec = sh("", terminal=True)
    spec["process"]["args"] = args
    await sandbox.start_subcontainer("c1", spec, Donation(rootfs=donor.donation().rootfs))
    return sandbox


async def says_when_typed(terminal: Terminal, keys: bytes, text: bytes) -> None:
    """Type until it is told: what comes while a job begins or takes the terminal may be lost."""

    async def keep_typing() -> None:
        while True:
            terminal.type(keys)
            await anyio.sleep(1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep_typing)
        await terminal.says(text)
        tasks.cancel_scope.cancel()


@every_engine
async def test_jobs_are_stopped_and_go_on(
    service: Service, donor: Donor, terminal: Terminal
) -> None:
    sandbox = await on_terminal(service, donor, terminal, ["/bin/sh", "-i"])
    terminal.type(b"sh -c 'echo one-$((1+1)); sleep 1000'\n")
    await terminal.says(b"one-2")
    await says_when_typed(terminal, b"\x1a", b"Stopped")
    terminal.type(b"jobs | cat; bg; echo still-$((1+1))\n")
    await terminal.says(b"still-2")
    terminal.type(b"echo fore-$((1+1)); fg\n")
    await terminal.says(b"fore-2")
    await says_when_typed(terminal, b"\x03echo status-$?\n", b"status-130")
    terminal.type(b"\nexit 6\n")
    assert await sandbox.wait("c1") == Exited(code=6)


@every_engine
async def test_a_change_of_size_is_told(service: Service, donor: Donor, terminal: Terminal) -> None:
    script = "trap '/bin/busybox stty size' WINCH; echo ready; while :; do sleep 0.1; done"
    sandbox = await on_terminal(service, donor, terminal, ["/bin/sh", "-c", script])
    await terminal.says(b"ready")
    terminal.resize(41, 77)
    await terminal.says(b"41 77")
    await sandbox.destroy("c1")
