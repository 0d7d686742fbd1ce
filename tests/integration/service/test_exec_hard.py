"""Executed processes where it is hard: terminals, groups, crashes, crowds."""

import contextlib
import os
import pty
import shutil
import signal
import struct
import termios
from collections.abc import AsyncIterator
from fcntl import ioctl
from pathlib import Path

import anyio
import pytest

from manager.adapters.client import SIGNAL_FOREGROUND, SIGNAL_GROUP, SandboxClient
from manager.application.errors import CallRefused
from manager.domain.exit_status import Exited, Signaled
from tests.integration.service.conftest import (
    ENGINES,
    Donor,
    Service,
    fd_count,
    know_engines,
    pipe,
    read_all,
    service_with,
    sh,
    wait_for_end,
)
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime

every_engine = pytest.mark.parametrize("service", ENGINES, indirect=True)
# runsc refuses what these ask for, by name: test_what_runsc_cannot_give_is_refused.
host_kernel = pytest.mark.parametrize("service", ["crun", "runc", "bwrap"], indirect=True)
SHORT_LIVES = {"runsc": 30, "runc": 50}
SLOWNESS = {"runsc": 4, "runc": 2}
"""How much longer an engine takes over one than crun does."""


@pytest.fixture
async def sandbox(service: Service, donor: Donor) -> SandboxClient:
    made = await service.client.create_sandbox("sb", sh("sleep 1000"), donor.donation())
    await made.start_root()
    return made


@pytest.fixture
async def terminal() -> AsyncIterator[tuple[int, int]]:
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    yield master, slave
    os.close(master)
    os.close(slave)


async def read_until(fd: int, text: bytes) -> bytes:
    seen = b""
    with anyio.fail_after(PATIENCE_S):
        while text not in seen:
            await anyio.wait_readable(fd)
            seen += os.read(fd, 4096)
    return seen


@every_engine
async def test_a_terminal_is_a_terminal(
    service: Service, sandbox: SandboxClient, terminal: tuple[int, int]
) -> None:
    master, slave = terminal
    # gVisor learns the size from whoever holds the other end, a moment later.
    # A terminal of the host's is no /dev/tty to it.
    tty = "" if service.engine == "runsc" else "</dev/tty"
    size = f"until test \"`$b stty size {tty}`\" = '33 99'; do $b usleep 1000; done"
    script = f"b=/bin/busybox; {size}; test -t 0 && test -t 1 && echo sized"
    files = {0: slave, 1: slave, 2: slave}
    command = ["/bin/sh", "-c", f"{script}; read word; echo got $word; exit 5"]
    pid = await sandbox.execute("sb", command, files, terminal=True)
    await read_until(master, b"sized")
    os.write(master, b"hello\n")
    await read_until(master, b"got hello")
    assert await sandbox.wait_process("sb", pid) == Exited(code=5)


@every_engine
async def test_the_foreground_group_of_a_terminal(
    sandbox: SandboxClient, terminal: tuple[int, int]
) -> None:
    master, slave = terminal
    files = {0: slave, 1: slave, 2: slave}
    script = "trap 'exit 9' INT; echo ready; while :; do sleep 1000 & wait; done"
    pid = await sandbox.execute("sb", ["/bin/sh", "-c", script], files, terminal=True)
    await read_until(master, b"ready\r\n")
    await sandbox.signal(signal.SIGINT, "sb", pid=pid, mode=SIGNAL_FOREGROUND)
    assert await sandbox.wait_process("sb", pid) == Exited(code=9)
    with pytest.raises(CallRefused, match=r"PID 0: no TTY attached$"):
        await sandbox.signal(signal.SIGINT, "sb", mode=SIGNAL_FOREGROUND)


@host_kernel
async def test_a_process_group_of_its_own(sandbox: SandboxClient) -> None:
    with pipe() as (read_end, write_end):
        child = "echo $$; exec sleep 1000"
        script = f"/bin/busybox setsid sh -c '{child}' & wait $!"
        command = ["/bin/sh", "-c", script]
        pid = await sandbox.execute("sb", command, {1: write_end})
        leader = int(await read_until(read_end, b"\n"))
        assert leader != pid
    await sandbox.signal(signal.SIGTERM, "sb", pid=leader, mode=SIGNAL_GROUP)
    assert await sandbox.wait_process("sb", pid) == Exited(code=128 + 15)
    text = f"signaling process group {leader}: no such process group with PGID {leader}"
    with pytest.raises(CallRefused, match=f"^{text}$"):
        await sandbox.signal(signal.SIGTERM, "sb", pid=leader, mode=SIGNAL_GROUP)


@pytest.mark.parametrize("service", ["runsc"], indirect=True)
async def test_what_runsc_cannot_give_is_refused(sandbox: SandboxClient) -> None:
    with pytest.raises(CallRefused, match="runsc cannot signal a process group"):
        await sandbox.signal(signal.SIGTERM, "sb", pid=1, mode=SIGNAL_GROUP)
    with pipe() as (read_end, _), pytest.raises(CallRefused, match="exec-extra-files"):
        await sandbox.execute("sb", ["/bin/true"], {3: read_end})


@host_kernel
async def test_other_descriptors_and_no_more(sandbox: SandboxClient) -> None:
    with pipe() as (read_end, write_end), pipe() as (other, other_write):
        files = {1: write_end, 3: other, 4: other_write}
        # `ls` itself has one for the directory.
        command = ["/bin/sh", "-c", "ls /proc/self/fd; exec 3<&- 4>&-; ls /proc/self/fd"]
        pid = await sandbox.execute("sb", command, files)
        assert await sandbox.wait_process("sb", pid) == Exited(code=0)
        text = read_all(read_end, write_end).decode().split()
        assert text == ["0", "1", "2", "3", "4", "5", "0", "1", "2", "3"]


@every_engine
async def test_another_user_has_its_groups_and_home(
    sandbox: SandboxClient, service: Service
) -> None:
    with pipe() as (read_end, write_end):
        command = ["/bin/sh", "-c", "id -u; id -g; id -G; echo $HOME"]
        options = {"uid": 7, "gid": 8, "extra_gids": [9, 10]}
        pid = await sandbox.execute("sb", command, {1: write_end}, **options)
        assert await sandbox.wait_process("sb", pid) == Exited(code=0)
        assert read_all(read_end, write_end).decode().split("\n")[:4] == ["7", "8", "8 9 10", "/"]


@every_engine
async def test_no_short_life_is_lost(sandbox: SandboxClient, service: Service) -> None:
    count = SHORT_LIVES.get(service.engine, 100)
    ends: list[tuple[int, object]] = []

    async def one(code: int) -> None:
        pid = await sandbox.execute("sb", ["/bin/sh", "-c", f"exit {code}"], {})
        ends.append((code, await sandbox.wait_process("sb", pid)))

    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(one, number)
    assert sorted(code for code, _ in ends) == list(range(count))
    assert all(ended == Exited(code=code) for code, ended in ends)


@pytest.mark.parametrize(
    ("service", "lives"),
    [("crun", 200), ("bwrap", 50), ("runc", 30), ("runsc", 20)],
    indirect=["service"],
)
async def test_nothing_is_left_of_many(
    sandbox: SandboxClient, service: Service, lives: int
) -> None:
    await sandbox.execute("sb", ["/bin/true"], {})
    before = await service.fd_counts()
    for _ in range(lives // 10):
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(run_true, sandbox)
    assert await service.fd_counts() == before
    assert list((service.root / "worker" / "execs").iterdir()) == []
    assert fd_count(service.pid) > 0


async def test_a_word_that_runsc_strikes_out_is_refused(
    donor: Donor, probed: Path, tmp_path: Path
) -> None:
    root = tmp_path / "semi-detached"
    know_engines(root, probed)
    service = Service(root, "runsc").start()
    if not service.told:
        pytest.skip("runsc does not work here")
    sandbox = await service.client.create_sandbox("sb", sh("sleep 1000"), donor.donation())
    await sandbox.start_root()
    with pytest.raises(CallRefused, match="runsc cannot execute with 'detach' in a path"):
        await sandbox.execute("sb", ["/bin/true"], {})
    await service.end()


async def run_true(sandbox: SandboxClient) -> None:
    pid = await sandbox.execute("sb", ["/bin/true"], {})
    assert await sandbox.wait_process("sb", pid) == Exited(code=0)


@every_engine
@pytest.mark.parametrize("victims", ["worker", "both"])
async def test_an_executed_process_survives_its_makers(
    service: Service, sandbox: SandboxClient, victims: str
) -> None:
    with pipe() as (read_end, write_end):
        command = ["/bin/sh", "-c", "read line; exit 42"]
        pid = await sandbox.execute("sb", command, {0: read_end})
        worker = await service.worker_pid()
        if victims == "both":
            service.kill()
        os.kill(worker, signal.SIGKILL)
        await wait_for_end(worker)
        os.write(write_end, b"go\n")
        if victims == "both":
            service.start()
        assert await sandbox.wait_process("sb", pid) == Exited(code=42)
        assert await sandbox.wait_process("sb", pid) == Exited(code=42)
        pid = await sandbox.execute("sb", ["/bin/sh", "-c", "exit 5"], {})
        assert await sandbox.wait_process("sb", pid) == Exited(code=5)


LOOKS_TOO_LATE = """#!/bin/sh
case "$*" in
*" exec "*)
    delay=wait4:delay_enter=300000
    exec strace -f -qq -o /dev/null -e trace=wait4 -e inject=$delay {real} "$@"
    ;;
esac
exec {real} "$@"
"""
"""The real one, but the process has ended when it looks whether it has failed to start."""


@pytest.mark.skipif(shutil.which("strace") is None, reason="apt-get install strace")
async def test_a_life_that_its_runtime_misses(tmp_path: Path, donor: Donor) -> None:
    async with service_with(LOOKS_TOO_LATE, "runsc", tmp_path) as service:
        sandbox = await service.client.create_sandbox("sb", sh("sleep 1000"), donor.donation())
        await sandbox.start_root()
        pid = await sandbox.execute("sb", ["/bin/sh", "-c", "exit 137"], {})
        assert await sandbox.wait_process("sb", pid) == Exited(code=137)


@pytest.mark.parametrize("service", ["runsc"], indirect=True)
@pytest.mark.parametrize("code", [3, 137])
async def test_whoever_was_to_tell_of_a_process_is_killed(
    service: Service, sandbox: SandboxClient, code: int
) -> None:
    with pipe() as (read_end, write_end):
        command = ["/bin/sh", "-c", f"trap 'exit {code}' TERM; echo; sleep 1000 & wait"]
        pid = await sandbox.execute("sb", command, {1: write_end})
        await read_until(read_end, b"\n")
        (told,) = (service.root / "worker" / "execs").glob("*/pid")
        teller = int(told.read_text())
        os.kill(teller, signal.SIGKILL)
        await wait_for_end(teller)
        await sandbox.signal(signal.SIGTERM, "sb", pid=pid)
        try:
            ended = await sandbox.wait_process("sb", pid)
        except CallRefused as refusal:
            # The kernel had told it already, to the one that was killed.
            assert "is lost" in refusal.text  # noqa: PT017  # the call may succeed, too
        else:
            assert ended == Exited(code=code)


@every_engine
async def test_destroy_ends_and_tells_all(service: Service, sandbox: SandboxClient) -> None:
    pids = [await sandbox.execute("sb", ["/bin/sleep", "1000"], {}) for _ in range(3)]
    await sandbox.destroy("sb")
    with pytest.raises(CallRefused, match=f'^waiting for PID {pids[0]}: container "sb" not found$'):
        await sandbox.wait_process("sb", pids[0])
    tags = [each.type for each in await service.records("sandbox-sb")]
    # Where the kernel of a gVisor sandbox is killed, not every process in it lives to be told of.
    lost = tags.count("process.lost") if service.engine == "runsc" else 0
    assert tags.count("process.exited") + lost == len(pids)
    assert tags.index("process.exited") < tags.index("container.destroyed")


@every_engine
async def test_a_fork_bomb_and_an_executed_one_are_ended(service: Service, donor: Donor) -> None:
    spec = sh("f() { f & f & wait; }; f; sleep 1000")
    spec["linux"]["resources"] = {"pids": {"limit": 60}}
    sandbox = await service.client.create_sandbox("sb", spec, donor.donation())
    await sandbox.start_root()
    # At its limit a container may have no room for one more.
    with contextlib.suppress(CallRefused):
        await sandbox.execute("sb", ["/bin/sh", "-c", "f() { f & f & wait; }; f"], {})
    with anyio.fail_after(PATIENCE_S):
        await sandbox.destroy("sb")


@every_engine
async def test_everyone_is_signalled_executed_ones_too(sandbox: SandboxClient) -> None:
    pid = await sandbox.execute("sb", ["/bin/sleep", "1000"], {})
    await sandbox.signal(signal.SIGKILL, "sb", everyone=True)
    assert await sandbox.wait_process("sb", pid) == Signaled(signal=9)
    assert await sandbox.wait() == Signaled(signal=9)
    with pytest.raises(CallRefused, match=r'^container "sb" has stopped$'):
        await sandbox.execute("sb", ["/bin/true"], {})


@host_kernel
async def test_a_process_of_another_container_in_a_shared_namespace(
    service: Service, donor: Donor
) -> None:
    root = sh("sleep 1000")
    sandbox = await service.client.create_sandbox("sb", root, donor.donation())
    await sandbox.start_root()
    shared = sh("sleep 1000")
    namespaces = shared["linux"]["namespaces"]
    shared["linux"]["namespaces"] = [each for each in namespaces if each["type"] != "pid"]
    await sandbox.create_subcontainer("c1")
    await sandbox.start_subcontainer("c1", shared, donor.donation())
    pid = await sandbox.execute("c1", ["/bin/sleep", "1000"], {})
    text = f'process {pid} belongs to a different container: "c1"'
    with pytest.raises(CallRefused, match=text):
        await sandbox.signal(signal.SIGTERM, "sb", pid=pid)
    with pytest.raises(CallRefused, match=f'process {pid} is part of a different container: "c1"'):
        await sandbox.wait_process("sb", pid)
    await sandbox.signal(signal.SIGTERM, "c1", pid=pid)
    assert await sandbox.wait_process("c1", pid) == Signaled(signal=15)


CONFINED = (
    "for f in CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp: Groups; do"
    " /bin/busybox grep ^$f /proc/self/status; done;"
    " cat /proc/self/cgroup /proc/self/oom_score_adj; ulimit -a"
)
INSIDE = "; for n in mnt pid net ipc uts cgroup user; do readlink /proc/self/ns/$n; done"


@every_engine
async def test_it_is_confined_as_init_is(service: Service, donor: Donor) -> None:
    # gVisor of 2022 makes a new number for a namespace at each look.
    told = CONFINED if service.engine == "runsc" else CONFINED + INSIDE
    with pipe() as (read_end, write_end), pipe() as (other, other_write):
        spec = sh(f"{told}; echo end; sleep 1000")
        sandbox = await service.client.create_sandbox("sb", spec, donor.donation(write_end))
        await sandbox.start_root()
        of_init = (await read_until(read_end, b"end\n")).removesuffix(b"end\n")
        pid = await sandbox.execute("sb", ["/bin/sh", "-c", told], {1: other_write})
        assert await sandbox.wait_process("sb", pid) == Exited(code=0)
        assert read_all(other, other_write) == of_init
        assert b"CapEff" in of_init


@every_engine
async def test_values_of_the_environment_are_in_no_file(
    service: Service, sandbox: SandboxClient
) -> None:
    secret = "hunter2-in-clear"
    command = ["/bin/sh", "-c", "sleep 1000"]
    await sandbox.execute("sb", command, {}, env=["PATH=/bin", f"TOKEN={secret}"])
    with pytest.raises(CallRefused, match="error finding executable"):
        await sandbox.execute("sb", ["/nix"], {}, env=[f"TOKEN={secret}"])
    for path in service.root.rglob("*"):
        with contextlib.suppress(OSError):  # no plain file, or gone by now
            assert secret.encode() not in path.read_bytes(), path


@every_engine
async def test_what_was_interrupted_does_not_run(service: Service, sandbox: SandboxClient) -> None:
    pids: list[int] = []

    async def execute() -> None:
        with contextlib.suppress(CallRefused):
            pids.append(
                await sandbox.execute("sb", ["/bin/busybox", "tail", "-f", "/dev/null"], {})
            )

    for delay_ms in (1, 5, 10, 15, 20, 25, 30, 40):
        worker = await service.worker_pid()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute)
            # A different moment each time.
            await anyio.sleep(delay_ms * SLOWNESS.get(service.engine, 1) / 1000)
            os.kill(worker, signal.SIGKILL)
        with anyio.fail_after(PATIENCE_S):
            while await service.worker_pid() == worker:
                await anyio.sleep(0.01)
            while await running(sandbox) != sorted(pids):
                await anyio.sleep(0.01)


async def running(sandbox: SandboxClient) -> list[int]:
    """Which run of those that were executed to follow a file; those that are being made do not."""
    rows = await sandbox.processes("sb")
    return sorted(row["pid"] for row in rows if row["cmd"] in {"tail", "busybox"})
