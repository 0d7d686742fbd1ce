"""A service that is asked to stop, and a service manager that hears of it."""

import configparser
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from eventstore import KeyUnusable
from manager import CallRefused
from manager.adapters.worker_client import WorkerProcess
from manager.adapters.worker_start import start_worker_if_none
from manager.application.settings import Service as Settings
from manager.cli.serve import command as serve_command
from manager.daemon import _node
from manager.domain.exit_status import Exited, Signaled
from manager.schema import worker as w
from manager.urpc.unix_address import UnixListener
from tests.integration.service.conftest import Donor, Service, pipe, sh, wait_for_end
from tests.patience import PATIENCE_S

UNIT = Path(__file__).parents[3] / "docs" / "sandtrail.service"


@pytest.mark.runtime
async def test_containers_end_with_a_service_that_is_told_so(
    tmp_path: Path, rootfs: Path, donor: Donor, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(tmp_path / "state")
    service.options = ("--stop-containers", "--stop-grace", "3")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard,
        pipe() as (read_end, write_end),
    ):
        heard.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        service.start()
        assert heard.recv(4096).startswith(b"READY=1\n")
        sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
        await sandbox.start_root()
        await service.client.create_sandbox("created", sh("true"), donor.donation())
        await sandbox.create_subcontainer("polite")
        polite = sh("trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done")
        await sandbox.start_subcontainer("polite", polite, donor.donation(out=write_end))
        assert await anyio.to_thread.run_sync(os.read, read_end, 100) == b"ready\n"
        worker = await service.worker_pid()
        assert await anyio.to_thread.run_sync(service.stop) == 0
        assert heard.recv(4096) == b"STOPPING=1"
        await wait_for_end(worker)
    service.options = ()
    monkeypatch.delenv("NOTIFY_SOCKET")
    service.start()
    again = service.client.sandbox("sb")
    assert await again.wait("polite") == Exited(code=5)
    assert await again.wait() == Signaled(signal=signal.SIGKILL)
    with pytest.raises(CallRefused, match='donated for root container "created" are lost'):
        await service.client.sandbox("created").start_root()
    await service.end()


@pytest.mark.runtime
async def test_what_was_created_can_be_started_after_the_service_was_stopped(
    service: Service, donor: Donor
) -> None:
    """Nothing runs: what keeps the worker there is what it was given for a start to come."""
    with pipe() as (read_end, write_end):
        donation = donor.donation(out=write_end)
        sandbox = await service.client.create_sandbox("sb", sh("echo here"), donation)
        worker = await service.worker_pid()
        assert await anyio.to_thread.run_sync(service.stop) == 0
        service.start()
        assert await service.worker_pid() == worker
        await sandbox.start_root()
        assert await sandbox.wait() == Exited(code=0)
        assert await anyio.to_thread.run_sync(os.read, read_end, 100) == b"here\n"


@pytest.mark.runtime
def test_a_service_that_waits_for_a_worker_can_be_stopped(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    command = [sys.executable, "-m", "manager.cli", "serve", "--root", str(state)]
    with UnixListener.bind(state / "worker.sock") as hung:
        hung.sock.setblocking(True)
        hung.sock.settimeout(PATIENCE_S)
        service = subprocess.Popen(command)
        hung.sock.accept()[0].close()  # it has looked whether anybody listens
        connection, _ = hung.sock.accept()
        with connection:
            service.send_signal(signal.SIGTERM)
            assert service.wait(PATIENCE_S) == 0


STOPPED_EARLY = """
import os
from manager.adapters import worker_start
from manager.cli import cli
start_worker = worker_start.start_worker
def then_stop(*arguments):
    worker = start_worker(*arguments)
    print(worker, flush=True)
    os.kill(os.getpid(), {signal})
    return worker
worker_start.start_worker = then_stop
cli()
"""


@pytest.mark.runtime
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_service_that_is_stopped_as_soon_as_it_begins_leaves_no_worker(
    tmp_path: Path, number: signal.Signals
) -> None:
    program = STOPPED_EARLY.replace("{signal}", str(int(number)))
    command = [sys.executable, "-c", program, "serve", "--root", str(tmp_path / "state")]
    service = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S, check=False
    )
    worker, *rest = service.stdout.splitlines()
    await Service(tmp_path / "state").is_left_by(int(worker))
    assert (service.returncode, rest) == (0, [])


@pytest.mark.runtime
async def test_the_worker_of_a_service_that_was_stopped_stays_with_the_next(
    service: Service, donor: Donor
) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    worker = await service.worker_pid()
    assert await anyio.to_thread.run_sync(service.stop) == 0
    service.start()
    await sandbox.delete(force=True)
    again = await service.client.create_sandbox("again", sh("exit 7"), donor.donation())
    await again.start_root()
    assert await again.wait() == Exited(code=7)
    assert await service.worker_pid() == worker
    assert "worker.lost" not in [each.type for each in await service.records("node")]


async def test_a_worker_whose_manager_gives_up_while_it_starts_leaves(tmp_path: Path) -> None:
    workers = WorkerProcess(tmp_path)
    with anyio.move_on_after(0.001):  # it is started at once, and cannot be ready by then
        await workers.connect()
    child = workers._child
    assert child is not None
    await wait_for_end(child)


async def test_a_worker_that_was_started_for_a_service_that_cannot_begin_leaves(
    tmp_path: Path,
) -> None:
    worker = start_worker_if_none(tmp_path, {})
    assert worker is not None
    with pytest.raises(LookupError):
        async with WorkerProcess(tmp_path, started=worker).dismissed_unless_met():
            raise LookupError
    await wait_for_end(worker)


@pytest.mark.parametrize(
    ("refused", "how"),
    [(KeyUnusable, {"key": Path("key")}), (ValueError, {"seal_seconds": float("nan")})],
    ids=["key", "seconds"],
)
async def test_a_worker_leaves_when_the_log_cannot_be_sealed_as_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: type[Exception], how: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("key").write_text("bad")
    worker = start_worker_if_none(tmp_path, {})
    with pytest.raises(refused):
        async with _node(Settings(root=tmp_path, **how), worker):
            pass
    assert worker is not None
    await wait_for_end(worker)


TELLS_OF_A_TRIAL = r"""#!/bin/sh
case " $* " in
*" --bundle "*)
    echo begun > {told}
    {then}
    ;;
esac
exec {real} "$@"
"""


@pytest.mark.runtime
@pytest.mark.parametrize("then", ["", "exec sleep 600"], ids=["works", "hangs"])
async def test_a_worker_that_is_to_go_while_it_tries_an_engine_leaves_nothing(
    tmp_path: Path, then: str
) -> None:
    real = shutil.which("crun")
    if real is None:
        pytest.skip("crun is not installed")
    script, told, state = tmp_path / "crun", tmp_path / "told", tmp_path / "state"
    text = TELLS_OF_A_TRIAL.replace("{real}", real).replace("{told}", str(told))
    script.write_text(text.replace("{then}", then))
    script.chmod(0o755)
    os.mkfifo(told)
    worker = start_worker_if_none(state, {"crun": script})
    assert worker is not None
    with anyio.fail_after(PATIENCE_S):
        assert await anyio.Path(told).read_text() == "begun\n"
    os.kill(worker, signal.SIGTERM)
    await Service(state).is_left_by(worker)
    assert os.waitpid(worker, 0)[1] == 0
    assert list((state / "worker" / "launches").iterdir()) == []
    assert "Traceback" not in (state / "worker.log").read_text()


async def test_a_worker_that_was_started_beforehand_is_the_one(tmp_path: Path) -> None:
    worker = start_worker_if_none(tmp_path, {})
    assert worker is not None
    workers = WorkerProcess(tmp_path, started=worker)
    async with workers.dismissed_unless_met():
        connection = await workers.connect()
        assert connection.welcome.worker.pid == worker
        assert start_worker_if_none(tmp_path, {}) is None
        await connection.send(w.Stop())
    await wait_for_end(worker)
    await connection.aclose()


def test_the_unit_starts_a_service_that_this_program_can_be() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[method-assign, assignment]
    unit.read(UNIT)
    service = unit["Service"]
    program, verb, *arguments = shlex.split(service["ExecStart"])
    assert (Path(program).name, verb) == ("sandtrail", "serve")
    given = serve_command.make_context("serve", arguments).params
    assert Path(given["root"]) == Path("/var/lib") / service["StateDirectory"]
    assert given["stop_grace"] < float(service["TimeoutStopSec"])
    assert (service["Type"], service["KillMode"]) == ("notify", "process")
    private = {"PrivateTmp", "PrivateMounts", "ProtectSystem", "ProtectHome", "PrivateDevices"}
    assert private.isdisjoint(service), "clients' directories could not be cloned"
