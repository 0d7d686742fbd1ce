"""gVisor's own command against a service that keeps a root directory for it."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest

from manager.domain.exit_status import Signaled
from tests.integration.service.conftest import ENGINES, Donor, Service, know_engines, sh
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime
COMMAND_SECONDS = 60
SANDBOX = f"sandbox-of-{os.getpid()}"
"""Its address in the abstract namespace is one for the whole machine: tests run side by side."""

Runsc = Callable[..., Any]


@pytest.fixture(params=["crun"])
async def service(
    request: pytest.FixtureRequest, tmp_path: Path, probed: Path, donor: Donor
) -> AsyncIterator[Service]:
    """A service with a sandbox that runs; `probed` skips where containers cannot."""
    know_engines(tmp_path / "state", probed)
    running = Service(tmp_path / "state", request.param)
    running.options = ("--runsc-root", str(tmp_path / "runsc"))
    if shutil.which("runsc") is None or not running.start().told:
        pytest.skip(f"apt-get install runsc {request.param}")
    sandbox = await running.client.create_sandbox(SANDBOX, sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    await state_file(tmp_path, SANDBOX)
    yield running
    await running.end()
    assert [path for path in (tmp_path / "runsc").iterdir() if path.suffix == ".state"] == []


@pytest.fixture
def runsc(tmp_path: Path) -> Runsc:
    """Runs the command; its output, after the code was what was expected."""
    out, err = tmp_path / "out", tmp_path / "err"

    async def run(*arguments: str, code: int = 0) -> str:
        command = ["runsc", "--root", str(tmp_path / "runsc"), "--network=none"]
        command += ["--platform=ptrace", "--ignore-cgroups", *arguments]

        def wait() -> int:
            # Not pipes: what the command starts has them for as long as it lives. For appending:
            # gVisor keeps an offset of its own.
            out.unlink(missing_ok=True)
            err.unlink(missing_ok=True)
            with out.open("ab") as stdout, err.open("ab") as stderr:
                return subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    check=False,
                    timeout=COMMAND_SECONDS,
                ).returncode

        returned = await anyio.to_thread.run_sync(wait)
        assert returned == code, err.read_text()
        return out.read_text()

    return run


@pytest.fixture
def bundle(tmp_path: Path, rootfs: Path) -> Path:
    directory = tmp_path / "bundle"
    shutil.copytree(rootfs, directory / "rootfs", symlinks=True)
    (tmp_path / "data").mkdir()
    # On a kernel of its own an init is not spared a signal that it has no handler for.
    script = "trap '' TERM; cat /data/lent > /data/seen; echo ready > /data/ready; sleep 600"
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "args": ["/bin/sh", "-c", script],
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0},
        },
        "root": {"path": "rootfs", "readonly": False},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/data",
                "type": "bind",
                "source": str(tmp_path / "data"),
                "options": ["rbind", "rw"],
            },
        ],
        "linux": {"namespaces": [{"type": "pid"}]},
        "annotations": {
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-id": SANDBOX,
        },
    }
    (directory / "config.json").write_text(json.dumps(config))
    (tmp_path / "data/lent").write_text("lent by path\n")
    return directory


@pytest.mark.parametrize("service", ENGINES, indirect=True)
async def test_a_containers_life(
    service: Service, runsc: Runsc, bundle: Path, tmp_path: Path
) -> None:
    await runsc("create", "--bundle", str(bundle), "c1")
    assert json.loads(await runsc("state", "c1"))["status"] == "created"
    await runsc("start", "c1")
    assert json.loads(await runsc("state", "c1"))["status"] == "running"
    with anyio.fail_after(PATIENCE_S):
        while not (tmp_path / "data/ready").exists():
            await anyio.sleep(0.01)
    assert (tmp_path / "data/seen").read_text() == "lent by path\n"
    told = "echo $A; pwd; exit 5"
    command = ("--cwd", "/tmp", "--env", "A=b", "c1", "/bin/sh", "-c", told)
    assert await runsc("exec", *command, code=5) == "b\n/tmp\n"
    await runsc("exec", "c1", "/bin/sh", "-c", "kill -9 $$", code=128 + 9)
    pid_file = tmp_path / "internal-pid"
    # Without a pid file of its own it gives the program one more argument.
    options = ("--pid-file", str(tmp_path / "pid"), "--internal-pid-file", str(pid_file))
    await runsc("exec", "--detach", *options, "c1", "/bin/sleep", "600")
    pid = pid_file.read_text()
    assert "sleep" in await runsc("ps", "c1")
    await runsc("kill", "--pid", pid, "c1", "KILL")
    told = json.loads(await runsc("wait", "--pid", pid, "c1"))
    assert (told["id"], told["exitStatus"]) == ("c1", 128 + 9)
    await runsc("pause", "c1")
    await runsc("resume", "c1")
    stats = json.loads(await runsc("events", "--stats", "c1"))
    assert stats["data"]["pids"]["current"] >= 1
    await runsc("kill", "c1", "TERM")
    await runsc("kill", "--all", "c1", "KILL")
    assert json.loads(await runsc("wait", "c1")) == {"id": "c1", "exitStatus": 137}
    assert json.loads(await runsc("state", "c1"))["status"] == "stopped"
    await runsc("delete", "c1")
    assert "c1" not in await runsc("list")
    records = await service.records(f"sandbox-{SANDBOX}")
    accepted = [each for each in records if each.type == "container.start_accepted"]
    request = msgspec.json.decode(accepted[-1].data)["intent"]["request"]
    assert request["host_paths"] == [str(bundle / "rootfs"), str(tmp_path / "data")]
    assert [fact["kind"] for fact in request["files"][-2:]] == ["directory", "directory"]


async def test_what_another_client_started_is_there_and_gone_with_it(
    service: Service, runsc: Runsc, donor: Donor, tmp_path: Path
) -> None:
    sandbox = service.client.sandbox(SANDBOX)
    await sandbox.create_subcontainer("c2")
    await sandbox.start_subcontainer("c2", sh("sleep 600"), donor.donation())
    path = await state_file(tmp_path, "c2")
    await runsc("kill", "c2", "KILL")
    assert await sandbox.wait("c2") == Signaled(signal=signal.SIGKILL)
    await sandbox.destroy("c2")
    with anyio.fail_after(PATIENCE_S):
        while path.exists():
            await anyio.sleep(0.01)


async def test_a_service_that_is_killed_leaves_nothing_wrong_behind(
    service: Service, runsc: Runsc, tmp_path: Path
) -> None:
    service.kill()
    gone = tmp_path / "runsc" / "old_sandbox:gone.state"
    gone.write_text("{}")
    service.start()
    assert not gone.exists()
    assert json.loads(await runsc("state", SANDBOX))["status"] == "running"


async def test_on_an_ordinary_socket_a_gofer_connection_is_refused(
    service: Service, donor: Donor
) -> None:

    ours, theirs = socket.socketpair()
    with ours, theirs:
        donation = donor.donation()
        donation = msgspec.structs.replace(
            donation, rootfs=msgspec.structs.replace(donation.rootfs, source=ours, upper="none")
        )
        sandbox = service.client.sandbox(SANDBOX)
        await sandbox.create_subcontainer("c3")
        with pytest.raises(Exception, match="socket"):
            await sandbox.start_subcontainer("c3", sh("true"), donation)


async def state_file(tmp_path: Path, cid: str) -> Path:
    path = tmp_path / "runsc" / f"{cid}_sandbox:{SANDBOX}.state"
    with anyio.fail_after(PATIENCE_S):
        while not path.exists():
            await anyio.sleep(0.01)
    return path
