"""A manager in the caller's process: which errors come out of it, and what its end is."""

from pathlib import Path

import anyio
import pytest

from manager import CallRefused, Manager, ServiceUnavailable
from manager.application.errors import NoEngine
from tests.integration.service.conftest import Donor, sh
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime


async def test_its_errors_come_alone(tmp_path: Path) -> None:
    with pytest.raises(NoEngine, match="no-engine"):
        async with Manager.open(tmp_path / "state", engine="no-engine"):
            pass
    with pytest.raises(CallRefused, match="not found"):
        async with Manager.open(tmp_path / "state") as manager:
            await manager.sandbox("nobody").state()


async def test_a_callers_own_group_of_errors_stays_one(tmp_path: Path) -> None:
    theirs = ExceptionGroup("theirs", [KeyError("a")])
    with pytest.raises(ExceptionGroup) as caught:
        async with Manager.open(tmp_path / "state"):
            raise theirs
    assert caught.value is theirs


async def test_nobody_waits_for_one_that_is_closed(tmp_path: Path, donor: Donor) -> None:
    refused = []

    async def wait(waiting: anyio.Event) -> None:
        waiting.set()
        try:
            await sandbox.wait()
        except ServiceUnavailable as error:
            refused.append(str(error))

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks, Manager.open(tmp_path / "state") as manager:
            sandbox = await manager.create_sandbox("sb", sh("sleep 600"), donor.donation())
            await sandbox.start_root()
            waiting = anyio.Event()
            tasks.start_soon(wait, waiting)
            await waiting.wait()
            await anyio.wait_all_tasks_blocked()
    assert refused == ["the manager of this process is closed"]
    with pytest.raises(ServiceUnavailable, match="is closed"):
        await sandbox.state()
    async with Manager.open(tmp_path / "state") as manager:
        await manager.sandbox("sb").delete(force=True)
