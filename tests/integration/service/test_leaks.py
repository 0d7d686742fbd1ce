"""A thousand starts in a row leave a thousand records and nothing else."""

import os
from pathlib import Path

import msgspec
import pytest

from tests.integration.service.conftest import Donor, Service, cgroups, sh

pytestmark = pytest.mark.runtime

STARTS = 1000


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def footprint(manager: int, worker: int, state: Path) -> dict[str, object]:
    """Everything that a start could leave behind, but for descriptors."""
    return {
        "mounts of the worker": Path(f"/proc/{worker}/mountinfo").read_text().count("\n"),
        "mounts of the manager": Path(f"/proc/{manager}/mountinfo").read_text().count("\n"),
        "children of the worker": len(children(worker)),
        "bundles and engine state": sorted(
            str(path.relative_to(state))
            for path in state.rglob("*")
            if path.is_dir() and "sandboxes" not in path.parts
        ),
        "sockets": sorted(str(each.relative_to(state)) for each in state.rglob("*.sock")),
        "stage": stage_entries(worker),
    }


def stage_entries(worker: int) -> int:
    """Directories on the worker's private stage, seen through its own root."""
    mounts = Path(f"/proc/{worker}/mountinfo").read_text().splitlines()
    points = {line.split()[4] for line in mounts if " - tmpfs " in line and "sandtrail" in line}
    return sum(len(os.listdir(f"/proc/{worker}/root{point}")) for point in points)


async def test_a_thousand_starts_leave_nothing_but_their_records(
    service: Service, donor: Donor
) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    worker = await service.worker_pid()

    async def life(number: int) -> None:
        cid = f"c{number}"
        await sandbox.create_subcontainer(cid)
        await sandbox.start_subcontainer(cid, sh(f"exit {number % 256}"), donor.donation())
        assert await sandbox.wait_status(cid) == (number % 256) << 8
        await sandbox.destroy(cid)

    for number in range(3):
        await life(number)
    before = await service.fd_counts(), footprint(service.pid, worker, service.root)
    for number in range(3, STARTS):
        await life(number)
    after = await service.fd_counts(), footprint(service.pid, worker, service.root)
    assert after == before
    events = [msgspec.json.decode(each.data) for each in await service.records("sandbox-sb")]
    ids = {each["intent"]["engine_id"] for each in events if "intent" in each}
    root = events[0]["intent"]["engine_id"]
    assert len(ids) == 1 + STARTS
    assert {path.name for path in cgroups(ids)} == {root}
    types = [record.type for record in await service.records("sandbox-sb")]
    for tag in ("created", "start_accepted", "started", "exited", "destroyed"):
        assert types.count(f"container.{tag}") == STARTS
