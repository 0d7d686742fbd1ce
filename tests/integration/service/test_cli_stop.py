"""``sandtrail stop``: asked first, ended if need be."""

import json
import os
import time

import anyio.to_thread
import pytest

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
