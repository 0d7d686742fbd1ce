"""A service whose program is another than the one before, while containers run."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec
import pytest

from manager import Donation
from manager.domain.exit_status import Exited, Signaled
from tests.integration.service.conftest import (
    Donor,
    Service,
    every_decision_is_taken_again,
    know_engines,
    pipe,
    sh,
)
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime

REPOSITORY = Path(__file__).parents[3]
PACKAGES = ("eventstore", "manager", "replay")

OTHER_NUMBER = """
from manager.schema import worker
worker.PROTOCOL_VERSION += 1
"""
OTHER_WELCOME = """
import msgspec
from manager.schema import worker
class Welcome(worker.Welcome, frozen=True, kw_only=True, tag="welcome"):
    of_a_later_protocol: str
worker.PROTOCOL_VERSION += 1
worker._from_worker = msgspec.msgpack.Decoder(Welcome).decode
"""
SERVE = """
from manager.cli import cli
cli()
"""
REFUSAL = "the worker speaks another protocol: stop it first"


async def last_recovery(service: Service) -> dict[str, Any]:
    """What the newest service found, and what it made of it."""
    records = await service.records("node")
    found: dict[str, Any] = msgspec.json.decode(
        [each.data for each in records if each.type == "recovery.completed"][-1]
    )
    return found


def serve_with(change: str, root: Path) -> "subprocess.CompletedProcess[str]":
    """A service whose code was changed before it began."""
    return subprocess.run(
        [sys.executable, "-c", change + SERVE, "serve", "--root", str(root)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize("change", [OTHER_NUMBER, OTHER_WELCOME], ids=["number", "welcome"])
async def test_a_manager_of_another_protocol_refuses_and_leaves_everything_alone(
    service: Service, donor: Donor, change: str
) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    container = (await sandbox.state())["containers"]["sb"]
    worker = await service.worker_pid()
    assert await anyio.to_thread.run_sync(service.stop) == 0
    before = len(await service.records())
    worker_said = (service.root / "worker.log").read_text()

    refused = await anyio.to_thread.run_sync(serve_with, change, service.root)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert REFUSAL in refused.stderr
    assert [each.type for each in (await service.records())[before:]] == ["manager.started"]
    assert (service.root / "worker.log").read_text() == worker_said, "another one was started"

    await anyio.to_thread.run_sync(service.start)
    assert await service.worker_pid() == worker
    assert (await last_recovery(service))["adopted"] == [container["intent"]["launch_id"]]
    again = (await sandbox.state())["containers"]["sb"]
    assert (again["status"], again["launched"]) == ("running", container["launched"])
    await sandbox.signal(signal.SIGKILL)
    assert await sandbox.wait() == Signaled(signal=signal.SIGKILL)


def install(place: Path, version: str) -> tuple[str, ...]:
    """A copy of the code that says it is of this version, in place of what is there.

    Returns:
        The command of a Python that runs it, and in which it is the only one.
    """
    for package in PACKAGES:
        shutil.rmtree(place / package, ignore_errors=True)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / package, place / package, ignore=ignored)
    (place / "manager" / "version.py").write_text(f'__version__ = "{version}"\n')
    return ("env", "-C", "/", f"PYTHONPATH={place}", sys.executable)


@pytest.mark.parametrize("second", ["old", "new"], ids=["in place", "elsewhere"])
async def test_a_newer_program_takes_over_what_an_older_one_left_running(
    tmp_path: Path, probed: Path, donor: Donor, second: str
) -> None:
    know_engines(tmp_path / "state", probed)
    service = Service(tmp_path / "state", command=install(tmp_path / "old", "0.0.1"))
    await anyio.to_thread.run_sync(service.start)
    assert service.told["Version"] == "0.0.1"
    with pipe() as (heard, line), pipe() as (output, given):
        waits = Donation(
            rootfs=donor.donation().rootfs, stdio=(heard, donor.null_out, donor.null_out)
        )
        sandbox = await service.client.create_sandbox("sb", sh("read code; exit $code"), waits)
        await sandbox.start_root()
        created = await service.client.create_sandbox(
            "created", sh("echo here; exec sleep 600"), donor.donation(out=given)
        )
        container = (await sandbox.state())["containers"]["sb"]
        worker = await service.worker_pid()

        service.command = install(tmp_path / second, "0.0.2")
        assert await anyio.to_thread.run_sync(service.stop) == 0
        await anyio.to_thread.run_sync(service.start)
        assert service.told["Version"] == "0.0.2"
        assert await service.worker_pid() == worker
        assert (await last_recovery(service))["adopted"] == [container["intent"]["launch_id"]]
        again = (await sandbox.state())["containers"]["sb"]
        assert (again["status"], again["launched"]) == ("running", container["launched"])

        await created.start_root()
        assert await anyio.to_thread.run_sync(os.read, output, 100) == b"here\n"
        pid = await created.execute("created", ["/bin/sh", "-c", "exit 9"], {})
        assert await created.wait_process("created", pid) == Exited(code=9)
        os.write(line, b"42\n")
        assert await sandbox.wait() == Exited(code=42)
    await service.end()

    await anyio.to_thread.run_sync(service.start)
    assert await service.worker_pid() != worker, "the old one has left with its last container"
    types = {each.type for each in await service.records()}
    await service.end()
    assert types.isdisjoint({"container.lost", "container.start_failed", "worker.lost"})
    await every_decision_is_taken_again(service.root / "events.db")
