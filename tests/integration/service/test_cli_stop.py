"""``sandtrail stop``: asked first, ended if need be."""

import json
import os
import signal
import time
from functools import partial
from typing import Any

import anyio.to_thread
import pytest
from click.testing import CliRunner, Result
from typing_extensions import override

from manager.adapters.client import SandboxClient
from manager.adapters.transport import SocketTransport
from manager.application.errors import CallRefused
from manager.cli import cli as sandtrail
from manager.cli import stop
from tests.integration.service.conftest import Donor, Service, pipe, sh
from tests.integration.service.test_cli import cli

pytestmark = pytest.mark.runtime

POLITE = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"
DEAF = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


async def running(service: Service, donor: Donor, script: str) -> None:
    """A sandbox `web` whose program has set its traps."""
    with pipe() as (read_end, write_end):
        sandbox = await service.client.create_sandbox(
            "web", sh(script), donor.donation(out=write_end)
        )
        await sandbox.start_root()
        assert await anyio.to_thread.run_sync(os.read, read_end, 100) == b"ready\n"


async def test_who_obeys_ends_by_itself_and_is_left_in_peace_then(
    service: Service, donor: Donor
) -> None:
    await running(service, donor, POLITE)
    told = json.loads(cli(service, "stop", "web", "-t", "50s", "--json").stdout)
    assert (told["killed"], told["exit"]) == (False, {"type": "exited", "code": 5})
    before = len(cli(service, "log", "--json").stdout.splitlines())
    again = cli(service, "stop", "web")
    assert (again.returncode, again.stdout) == (0, "web\n"), again.stderr
    assert len(cli(service, "log", "--json").stdout.splitlines()) == before


async def test_who_does_not_is_ended(service: Service, donor: Donor) -> None:
    await running(service, donor, DEAF)
    began = time.monotonic()
    told = json.loads(cli(service, "stop", "web", "--timeout", "200ms", "--json").stdout)
    assert (told["killed"], told["exit"]["signal"]) == (True, 9)
    assert time.monotonic() - began >= 0.2
    signals = cli(service, "log", "-t", "container.signal_requested", "--fields", "data.signo")
    assert signals.stdout.split() == ["data.signo", "15", "9"]


async def test_what_cannot_be_stopped(service: Service, donor: Donor) -> None:
    await service.client.create_sandbox("made", sh("true"), donor.donation())
    for target, says in (("made", "made"), ("nobody", "nobody"), ("made/x", "x")):
        done = cli(service, "stop", target)
        assert (done.returncode, done.stdout) == (1, "")
        assert says in done.stderr


class Gone(SandboxClient):
    """What a signal meets when the process is gone, and nobody has been told so yet."""

    ends = True

    @override
    async def state(self) -> dict[str, Any]:
        return {"containers": {"web": {"status": "running", "exit": None}}}

    @override
    async def signal(self, *_: Any, **__: Any) -> None:
        if self.ends:
            await super().signal(signal.SIGKILL)
        raise CallRefused("no such process")


async def stopped(service: Service, monkeypatch: pytest.MonkeyPatch) -> Result:
    gone = Gone(SocketTransport(service.root / "control.sock"), "web")
    monkeypatch.setattr(stop, "sandbox_of", lambda *_: (gone, "web"))
    return await anyio.to_thread.run_sync(
        partial(CliRunner().invoke, sandtrail, ["stop", "web", "--json"])
    )


async def test_an_end_that_is_told_after_a_signal_found_nobody(
    service: Service, donor: Donor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await running(service, donor, DEAF)
    done = await stopped(service, monkeypatch)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["killed"], told["exit"]["signal"]) == (False, 9)


async def test_a_refusal_without_an_end_stays_one(
    service: Service, donor: Donor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await running(service, donor, DEAF)
    monkeypatch.setattr(stop, "ENDING_S", 0.1, raising=False)
    monkeypatch.setattr(Gone, "ends", False)
    done = await stopped(service, monkeypatch)
    assert (done.exit_code, "no such process" in done.output) == (1, True)
