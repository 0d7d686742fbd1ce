"""Ways out of a container that engines have known: none of them leads to the host."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from manager import CallRefused, Layer
from manager.adapters.client import SandboxClient
from manager.domain.exit_status import Exited
from tests.integration.service.conftest import Donor, Service, pipe, read_all, sh

pytestmark = pytest.mark.runtime

host_kernel = pytest.mark.parametrize("service", ["crun", "runc", "bwrap"], indirect=True)
WAITING = {"bwrap": ("--args", "0"), "crun": ("create", "-b", "/", "x"), "runc": ("create", "x")}
WAITED_FOR = ("config.json", "evil/pyvenv.cfg")
"""What has an engine's program, or Python, wait for its input, for as long as one likes."""


def shared_pids(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec of a container that sees the processes of its sandbox."""
    namespaces = [each for each in spec["linux"]["namespaces"] if each["type"] != "pid"]
    return {**spec, "linux": {**spec["linux"], "namespaces": namespaces}}


def engine_program(service: Service) -> str:
    [path] = [each["path"] for each in service.told["Engines"] if each["name"] == service.engine]
    return str(path)


@pytest.fixture
async def sandbox(service: Service, donor: Donor) -> SandboxClient:
    made = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await made.start_root()
    return made


@pytest.fixture
def evil(service: Service, rootfs: Path, tmp_path: Path) -> Iterator[Layer]:
    """A tree whose shell is whatever runs it, with all that the engine's program needs to run."""
    root = tmp_path / "evil"
    shutil.copytree(rootfs, root, symlinks=True)
    (root / "evil").mkdir()
    (root / "evil" / "sh").symlink_to("/proc/self/exe")
    for name in WAITED_FOR:
        os.mkfifo(root / name)
    command = ["ldd", engine_program(service), sys.executable]
    needs = subprocess.run(command, capture_output=True, text=True, check=False)
    for library in re.findall(r"(/\S+) \(0x", needs.stdout):
        (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library, root / library[1:])
    source = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield Layer(source=source, upper="memory", size="64m")
    os.close(source)


TAMPER = """
n=0
while [ $n -lt 1000 ]; do
  for each in /proc/[0-9]*; do
    case $(readlink $each/exe) in
      */busybox | "") ;;
      *) echo found; /bin/busybox chmod 755 $each/exe; exit 0 ;;
    esac
  done
  sleep 0.01; n=$((n + 1))
done
exit 9
"""
"""What is no part of a shell is the engine's program: change the mode of its file."""


@host_kernel
@pytest.mark.parametrize("how", ["started", "executed"])
async def test_the_engines_own_program_cannot_be_changed(
    service: Service, sandbox: SandboxClient, donor: Donor, evil: Layer, how: str
) -> None:
    ours = os.stat(engine_program(service))
    python = os.stat(sys.executable)
    by_python = (service.engine, how) == ("bwrap", "executed")
    args = ["/evil/sh", *(() if by_python else WAITING[service.engine])]
    env = ("PATH=/evil:/bin",)
    with pipe() as (held, _), pipe() as (out, out_write):
        await sandbox.create_subcontainer("victim")
        donation = donor.donation(root=evil)
        victim = shared_pids(sh("sleep 600"))
        if how == "started":
            victim["process"] |= {"args": args[0].rsplit("/")[-1:] + args[1:], "env": env}
            donation = replace(donation, stdio=(held, *donation.stdio[1:]))
        await sandbox.start_subcontainer("victim", victim, donation)
        await sandbox.create_subcontainer("attacker")
        attacker = shared_pids(sh(TAMPER))
        await sandbox.start_subcontainer("attacker", attacker, donor.donation(out=out_write))
        if how == "executed":
            await sandbox.execute("victim", args, {0: held}, env=env)
        assert await sandbox.wait("attacker") == Exited(code=0)
        assert read_all(out, out_write) == b"found\n"
    assert os.stat(engine_program(service)).st_ctime_ns == ours.st_ctime_ns
    assert os.stat(sys.executable).st_ctime_ns == python.st_ctime_ns


@host_kernel
async def test_a_working_directory_by_magic_link_leads_nowhere(
    service: Service, sandbox: SandboxClient, donor: Donor, tmp_path: Path
) -> None:
    """Whatever an engine has left open, nobody gets to the host's tree through its number."""
    (tmp_path / "marker").touch()
    look = ["/bin/sh", "-c", f"test -e {'../' * 20}{tmp_path}/marker && echo out || echo in"]
    assert subprocess.run(look, cwd="/", capture_output=True, check=True).stdout == b"out\n"
    with pipe() as (out, out_write):
        for number in range(3, 16):
            spec = sh("true")
            spec["process"] |= {"cwd": f"/proc/self/fd/{number}", "args": look}
            cid = f"c{number}"
            await sandbox.create_subcontainer(cid)
            with contextlib.suppress(CallRefused):
                await sandbox.start_subcontainer(cid, spec, donor.donation(out=out_write))
                await sandbox.wait(cid)
            with contextlib.suppress(CallRefused):
                cwd = spec["process"]["cwd"]
                pid = await sandbox.execute("sb", look, {1: out_write}, cwd=cwd)
                await sandbox.wait_process("sb", pid)
        assert b"out" not in read_all(out, out_write)


def with_cgroups(script: str, mode: str) -> dict[str, Any]:
    spec = sh(script)
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "c", "options": [mode]}
    return {**spec, "mounts": [*spec["mounts"], mount]}


LEAVE = """
for each in $(/bin/busybox find /sys/fs/cgroup -name cgroup.procs); do
  echo 0 > $each && echo left $each
done
"""


@pytest.mark.parametrize("service", ["crun", "runc"], indirect=True)
async def test_control_groups_that_are_shown_cannot_be_left(
    service: Service, sandbox: SandboxClient, donor: Donor
) -> None:
    with pipe() as (out, out_write), pipe() as (errors, errors_write):
        donation = donor.donation(out=out_write)
        donation = replace(donation, stdio=(*donation.stdio[:2], errors_write))
        await sandbox.create_subcontainer("c")
        if service.engine == "crun":
            with pytest.raises(CallRefused, match="does not support writable-cgroup-mount"):
                await sandbox.start_subcontainer("c", with_cgroups(LEAVE, "rw"), donation)
        await sandbox.start_subcontainer("c", with_cgroups(LEAVE, "ro"), donation)
        await sandbox.wait("c")
        assert read_all(out, out_write) == b""
        assert read_all(errors, errors_write)


HIDE = """
sleep 98765 &
for each in /sys/fs/cgroup/*/; do
  test -e $each/cgroup.procs || continue
  /bin/busybox mkdir $each/hidden
  for file in cpuset.cpus cpuset.mems; do
    test -e $each/$file && cat $each/$file > $each/hidden/$file
  done
  echo $! > $each/hidden/cgroup.procs || echo failed $each
done
test -e /sys/fs/cgroup/pids/hidden/pids.max && echo hidden
wait
"""
"""Its only child goes to a control group of the container's own making, in every hierarchy."""


@pytest.mark.parametrize("service", ["runc"], indirect=True)
async def test_who_hides_in_a_control_group_below_ends_with_the_rest(
    sandbox: SandboxClient, donor: Donor
) -> None:
    with pipe() as (out, out_write):
        await sandbox.create_subcontainer("c")
        spec = shared_pids(with_cgroups(HIDE, "rw"))
        await sandbox.start_subcontainer("c", spec, donor.donation(out=out_write))
        await anyio.wait_readable(out)
        told = os.read(out, 4096)
        if told != b"hidden\n":
            pytest.skip(f"the container cannot make control groups here: {told!r}")
        assert len(await sandbox.processes("c")) == 2
        await sandbox.destroy("c")
    assert not [each for each in await sandbox.processes("") if each["cmd"] == "sh"]
    assert len(await sandbox.processes("")) == 1, "only the root's own process is left"
