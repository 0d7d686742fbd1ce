"""Clients that mean harm, and what they could hope to learn or to reach."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from manager import CallRefused, Layer
from tests.integration.service.conftest import (
    Donor,
    Service,
    know_engines,
    pipe,
    sh,
    wait_for_end,
)
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime

SECRET = "correct-horse-battery"
NOBODY = 65534


def with_secret(spec: dict[str, Any]) -> dict[str, Any]:
    return {**spec, "process": {**spec["process"], "env": ["PATH=/bin", f"TOKEN={SECRET}"]}}


@pytest.mark.parametrize("service", ["crun", "bwrap"], indirect=True)
async def test_a_planted_secret_is_in_no_file_no_error_and_no_output(
    service: Service, donor: Donor, capfd: pytest.CaptureFixture[str]
) -> None:
    texts: list[str] = []
    root = with_secret(sh("sleep 600"))
    sandbox = await service.client.create_sandbox("sb", root, donor.donation())
    await sandbox.start_root()
    bad = [
        with_secret({**sh("true"), "hooks": {"prestart": [{"path": "/bin/true"}]}}),
        {**with_secret(sh("true")), "linux": 3},
        with_secret(sh("true")),
    ]
    bad[2]["process"]["args"] = ["/nix"]
    for number, spec in enumerate(bad):
        await sandbox.create_subcontainer(f"bad{number}")
        with pytest.raises(CallRefused) as refused:
            await sandbox.start_subcontainer(f"bad{number}", spec, donor.donation())
        texts.append(refused.value.text)
    await sandbox.create_subcontainer("good")
    await sandbox.start_subcontainer("good", with_secret(sh("sleep 600")), donor.donation())
    worker = await service.worker_pid()
    await anyio.to_thread.run_sync(service.kill)
    os.kill(worker, signal.SIGKILL)
    await wait_for_end(worker)
    service.options = ("--snapshot-events", "1")
    await anyio.to_thread.run_sync(service.start)
    assert (await sandbox.state())["containers"]["good"]["status"] == "running"
    await anyio.to_thread.run_sync(service.stop)  # writes a snapshot, too
    assert list((service.root / "snapshots").iterdir())
    files = [path for path in service.root.rglob("*") if path.is_file()]
    assert {"events.db", "worker.log"} <= {path.name for path in files}
    for path in files:
        # crun and runc keep the spec of a container that lives; theirs is the one place.
        if "engines" not in path.relative_to(service.root).parts:
            assert SECRET.encode() not in path.read_bytes(), path
    printed = capfd.readouterr()
    assert not [text for text in (*texts, *printed) if SECRET in text]
    assert sum("/nix" in text for text in texts) == 1, "it is the texts that were looked at"
    await anyio.to_thread.run_sync(service.start)
    await sandbox.destroy("good")
    await sandbox.destroy("sb")
    for path in (path for path in service.root.rglob("*") if path.is_file()):
        assert SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("service", ["crun", "bwrap"], indirect=True)
async def test_a_planted_secret_is_in_no_file_of_a_service_that_was_killed(
    service: Service, donor: Donor
) -> None:
    """What nobody has tidied up: the WAL is the newest, and no successor has looked at it."""
    sandbox = await service.client.create_sandbox("sb", with_secret(sh("true")), donor.donation())
    await sandbox.start_root()
    worker = await service.worker_pid()
    await anyio.to_thread.run_sync(service.kill)
    os.kill(worker, signal.SIGKILL)
    await wait_for_end(worker)
    files = {path: path.read_bytes() for path in files_below(service.root)}
    await anyio.to_thread.run_sync(service.start)
    wal = files[service.root / "events.db-wal"]
    assert b"TOKEN=hmac-sha256:" in wal, "what is looked at holds the environment, masked"
    assert not [path for path, body in files.items() if SECRET.encode() in body]


DEFECTIVE = """
import importlib, runpy, sys

def made_to_fail(function):
    def fail(*args, **kwargs):
        if {name!r} in repr((args, kwargs)):
            raise RuntimeError("a defect in " + function.__name__)
        return function(*args, **kwargs)
    return fail

place, name = {victim!r}.split(":")
module = importlib.import_module(place)
setattr(module, name, made_to_fail(getattr(module, name)))
del sys.argv[:2]  # the interpreter's own -m
runpy.run_module("manager.cli", run_name="__main__", alter_sys=True)
"""
"""A service with a defect in what it does with each call that knows the secret's variable."""


@pytest.mark.parametrize(
    ("victim", "call"),
    [
        ("manager.application.incoming:masked_document", "start"),
        ("manager.application.incoming:parse_spec_object", "start"),
        ("manager.application.live_sandbox:decide", "start"),
        ("manager.application.exec_arguments:mask_entry", "exec"),
    ],
)
async def test_a_planted_secret_is_in_no_traceback(
    tmp_path: Path,
    probed: Path,
    donor: Donor,
    capfd: pytest.CaptureFixture[str],
    victim: str,
    call: str,
) -> None:
    program = tmp_path / "defective.py"
    program.write_text(DEFECTIVE.format(victim=victim, name="TOKEN"))
    know_engines(tmp_path / "state", probed)
    command = (sys.executable, str(program))
    service = Service(tmp_path / "state", command=command).start()
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    await sandbox.create_subcontainer("c")
    donation, env = donor.donation(), [f"TOKEN={SECRET}"]
    asked = (
        sandbox.start_subcontainer("c", with_secret(sh("true")), donation)
        if call == "start"
        else sandbox.execute("sb", ["/bin/true"], {}, env=env)
    )
    with pytest.raises(CallRefused) as failed:
        await asked
    assert failed.value.text == "internal error"
    await sandbox.start_subcontainer("c", sh("exit 3"), donor.donation())
    assert (await sandbox.wait("c")).code == 3, "the others are served"
    await anyio.to_thread.run_sync(service.kill)
    printed = capfd.readouterr()
    files = {path: path.read_bytes() for path in files_below(service.root)}
    await anyio.to_thread.run_sync(service.start)
    await service.end()
    assert "Traceback (most recent call last)" in printed.err
    assert f"RuntimeError: a defect in {victim.partition(':')[2]}" in printed.err
    assert SECRET not in printed.out + printed.err
    assert not [path for path, body in files.items() if SECRET.encode() in body]


def files_below(root: Path) -> list[Path]:
    """All but sockets, and but the specs of living containers, which crun and runc keep."""
    found = [path for path in root.rglob("*") if path.is_file()]
    return [path for path in found if "engines" not in path.relative_to(root).parts]


@pytest.mark.parametrize("service", ["crun", "runc", "bwrap"], indirect=True)
async def test_a_spec_reaches_nothing_of_the_host(
    service: Service, donor: Donor, tmp_path: Path
) -> None:
    touched = tmp_path / "touched"
    hook = {"path": "/usr/bin/touch", "args": ["touch", str(touched)]}
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    refused = {
        "hooks": {**sh("true"), "hooks": {"createRuntime": [hook], "poststop": [hook]}},
        "joining the network namespace": _with_linux(
            namespaces=[{"type": "network", "path": "/proc/1/ns/net"}]
        ),
        "joining the mount namespace": _with_linux(
            namespaces=[{"type": "mount", "path": "/proc/1/ns/mnt"}]
        ),
    }
    await sandbox.create_subcontainer("c")
    for words, spec in refused.items():
        with pytest.raises(CallRefused, match=words):
            await sandbox.start_subcontainer("c", spec, donor.donation())
    spec = _with_linux(cgroupsPath="/../../evil")
    spec["annotations"] = {"run.oci.hooks.stderr": str(touched), "run.oci.handler": "krun"}
    await sandbox.start_subcontainer("c", spec, donor.donation())
    pid = (await sandbox.state())["containers"]["c"]["launched"]["pid"]
    places = [line.split(":")[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    assert [place for place in places if place.startswith("/sandtrail/")]
    assert not [place for place in places if "evil" in place]
    for name in ("net", "mnt", "ipc", "uts", "pid"):
        ours, theirs = (os.readlink(f"/proc/{each}/ns/{name}") for each in ("self", pid))
        assert ours != theirs, name
    await sandbox.destroy("c")
    assert not touched.exists()


def _with_linux(**members: Any) -> dict[str, Any]:
    spec = sh("sleep 600")
    return {**spec, "linux": {**spec["linux"], **members}}


async def test_an_archive_that_never_comes_holds_up_nobody_else(
    service: Service, donor: Donor
) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    errors: list[str] = []

    async def start_blocked(read_end: int) -> None:
        donation = replace(donor.donation(), upper_tar=read_end)
        with pytest.raises(CallRefused) as refused:
            await sandbox.start_subcontainer("blocked", sh("true"), donation)
        errors.append(refused.value.text)

    with pipe() as (read_end, _), anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            await sandbox.create_subcontainer("blocked")
            tasks.start_soon(start_blocked, read_end)
            while (await sandbox.state())["containers"]["blocked"]["status"] != "starting":
                await anyio.sleep(0.01)
            await sandbox.create_subcontainer("other")
            await sandbox.start_subcontainer("other", sh("exit 3"), donor.donation())
            assert (await sandbox.wait("other")).code == 3
            await sandbox.destroy("blocked")
    assert errors == ['container "blocked" was destroyed while it was being started']


async def test_nobody_else_gets_in(service: Service, donor: Donor) -> None:
    await service.client.create_sandbox("sb", sh("true"), donor.donation())
    assert stat.S_IMODE(service.root.stat().st_mode) == 0o700
    sockets = [path for path in service.root.rglob("*") if path.is_socket()]
    assert len(sockets) >= 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in sockets} <= {0o600}
    # A stranger that is let through to the socket's file is still no peer.
    script = f"""
import os, socket
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
sock = socket.socket(socket.AF_UNIX)
sock.connect({str(service.root / "control.sock")!r})
os.write(1, sock.recv(100) or b"closed")
"""
    places = [service.root, *service.root.parents]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in places}
    command = [sys.executable, "-c", script]
    try:
        shut = subprocess.run(command, check=False, capture_output=True)
        assert b"PermissionError" in shut.stderr
        for path, mode in modes.items():
            path.chmod(mode | 0o011)
        (service.root / "control.sock").chmod(0o666)
        let_in = subprocess.run(command, check=False, capture_output=True)
        assert (let_in.stdout, let_in.returncode) == (b"closed", 0), let_in.stderr
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


async def test_a_stranger_at_an_address_without_a_file_is_no_peer(
    tmp_path: Path, rootfs: Path, donor: Donor
) -> None:
    """The sockets for gVisor's own command have no mode that could keep anybody out."""
    service = Service(tmp_path / "state")
    service.options = ("--runsc-root", str(tmp_path / "runsc"))
    service.start()
    name = f"abstract-{os.getpid()}"
    sandbox = await service.client.create_sandbox(name, sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    script = f"""
import os, socket, sys
if sys.argv[1] == "nobody":
    os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
sock = socket.socket(socket.AF_UNIX)
sock.connect("\\0runsc-sandbox.{name}\\0")
try:
    sock.send(b'{{"method":"containerManager.Wait","arg":"no"}}')
    os.write(1, sock.recv(1000) or b"closed")
except ConnectionError:
    os.write(1, b"closed")
"""
    for who, answer in (("root", b"not found"), ("nobody", b"closed")):
        command = [sys.executable, "-c", script, who]
        done = await anyio.run_process(command, check=False, stderr=None)
        assert answer in done.stdout
    await service.end()


async def test_streams_that_block_hold_up_nobody_but_their_container(
    service: Service, donor: Donor, tmp_path: Path
) -> None:
    """A FIFO that nobody writes to, and a pipe that nobody reads."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    silent = os.open(fifo, os.O_RDWR)
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    script = sh("(while :; do echo flood; done) & read line")
    with pipe() as (_, flooded):
        await sandbox.create_subcontainer("blocked")
        donation = replace(donor.donation(out=flooded), stdio=(silent, flooded, flooded))
        await sandbox.start_subcontainer("blocked", script, donation)
        await sandbox.create_subcontainer("other")
        await sandbox.start_subcontainer("other", sh("exit 3"), donor.donation())
        assert (await sandbox.wait("other")).code == 3
        assert (await sandbox.state())["containers"]["blocked"]["status"] == "running"
        await sandbox.destroy("blocked")
    os.close(silent)
    spec = {**sh("true"), "mounts": [{"destination": "/data", "type": "bind", "source": "/x"}]}
    fd = os.open(fifo, os.O_PATH)
    bound = replace(donor.donation(), mounts=[Layer(source=fd)])
    await sandbox.create_subcontainer("bound")
    with pytest.raises(CallRefused, match='"/data" must be a directory or regular file'):
        await sandbox.start_subcontainer("bound", spec, bound)
    os.close(fd)


@pytest.mark.parametrize("service", ["crun", "runc"], indirect=True)
async def test_a_setting_of_the_kernel_is_not_a_containers(service: Service, donor: Donor) -> None:
    name = "vm.swappiness"
    path = Path("/proc/sys") / name.replace(".", "/")
    before = path.read_text().strip()
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    await sandbox.create_subcontainer("c")
    spec = _with_linux(sysctl={name: before})
    with pytest.raises(CallRefused, match=name):
        await sandbox.start_subcontainer("c", spec, donor.donation())


async def test_a_socket_that_cannot_be_made_is_made_later(service: Service, donor: Donor) -> None:
    place = service.root / "sandboxes"
    place.rmdir()
    place.touch()  # as if the disk took no directory
    sandbox = await service.client.create_sandbox("sb", sh("exit 3"), donor.donation())
    assert [each["ID"] for each in await service.client.sandboxes()] == ["sb"]
    place.unlink()
    with anyio.fail_after(PATIENCE_S):
        while not (place / "sb" / "control.sock").exists():
            await anyio.sleep(0.05)
    await sandbox.start_root()
    assert (await sandbox.wait()).code == 3


async def test_a_runsc_root_that_takes_no_file_costs_no_service(
    probed: Path, donor: Donor, tmp_path: Path
) -> None:
    root, files = tmp_path / "state", tmp_path / "runsc"
    know_engines(root, probed)
    service = Service(root)
    service.options = ("--runsc-root", str(files))
    service.start()
    files.rmdir()
    files.touch()  # as if the disk took no file
    sandbox = await service.client.create_sandbox("sb", sh("exit 3"), donor.donation())
    await sandbox.start_root()
    assert (await sandbox.wait()).code == 3
    await sandbox.delete()
    files.unlink()
    files.mkdir()
    again = await service.client.create_sandbox("again", sh("sleep 600"), donor.donation())
    await again.start_root()
    with anyio.fail_after(PATIENCE_S):
        while not [*files.iterdir()]:
            await anyio.sleep(0.05)
    await service.end()


@pytest.mark.parametrize(
    ("mode", "owner", "problem"),
    [
        (0o777, 0, "can be written by others (mode 0777): chmod 700"),
        (0o770, 0, "can be written by others (mode 0770): chmod 700"),
        (0o700, NOBODY, f"belongs to user {NOBODY}: choose another, or chown"),
    ],
)
def test_a_state_directory_of_others_is_refused(
    tmp_path: Path, mode: int, owner: int, problem: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(mode)
    os.chown(state, owner, owner)
    command = [sys.executable, "-m", "manager.cli", "serve", "--root", str(state)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode == 1
    assert problem in ended.stderr
    assert list(state.iterdir()) == []
