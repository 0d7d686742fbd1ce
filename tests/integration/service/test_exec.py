"""Processes executed in containers that run, over every engine."""

import os
import signal
from functools import partial
from typing import Any

import anyio
import pytest

from manager.adapters.client import SandboxClient
from manager.application.errors import CallRefused
from manager.domain.exit_status import Exited, Signaled
from tests.integration.service.conftest import ENGINES, Donor, Service, pipe, read_all, sh
from tests.integration.service.test_semantics import (
    CODES,
    DUMPING,
    DUMPS,
    ENDING,
    EVERYTHING,
    FEW_ENDING,
)

pytestmark = [pytest.mark.runtime, pytest.mark.parametrize("service", ENGINES, indirect=True)]

SLEEP = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"


@pytest.fixture
async def sandbox(service: Service, donor: Donor) -> SandboxClient:
    made = await service.client.create_sandbox("sb", sh(SLEEP), donor.donation())
    await made.start_root()
    return made


async def run(sandbox: SandboxClient, script: str, **options: Any) -> tuple[Any, str]:
    """Run a shell script in the root container; its end and what it wrote."""
    with pipe() as (read_end, write_end), open(os.devnull, "rb") as nothing:
        files = {0: nothing, 1: write_end, 2: write_end}
        argv = options.pop("argv", ["/bin/sh", "-c", script])
        pid = await sandbox.execute("sb", argv, files, **options)
        ended = await sandbox.wait_process("sb", pid)
        return ended, read_all(read_end, write_end).decode()


async def test_exit_codes_are_exact(sandbox: SandboxClient) -> None:
    limiter = anyio.CapacityLimiter(8)

    async def life(code: int) -> None:
        async with limiter:
            pid = await sandbox.execute("sb", ["/bin/sh", "-c", f"exit {code}"], {})
            assert await sandbox.wait_process("sb", pid) == Exited(code=code)

    async with anyio.create_task_group() as tasks:
        for code in range(256) if EVERYTHING else CODES:
            tasks.start_soon(life, code)


async def test_signals_are_exact(sandbox: SandboxClient, service: Service, donor: Donor) -> None:
    limiter = anyio.CapacityLimiter(8)
    # All dump to one file of one directory: of two at once the kernel refuses one.
    dumping = anyio.Lock()

    async def life(signo: int, cid: str, *, may_dump: bool) -> None:
        async with dumping if may_dump else limiter:
            pid = await sandbox.execute(cid, ["/bin/sleep", "1000"], {})
            await sandbox.signal(signo, cid, pid=pid)
            dumped = may_dump and signo in DUMPING and DUMPS and service.engine != "runsc"
            ended = Signaled(signal=signo, core=dumped)
            assert await sandbox.wait_process(cid, pid) == ended, (signo, cid)

    async with anyio.create_task_group() as tasks:
        for cid, limit in (("small", 0), ("big", 1 << 26)):
            spec = sh("sleep 1000")
            spec["process"]["rlimits"] = [{"type": "RLIMIT_CORE", "hard": limit, "soft": limit}]
            await sandbox.create_subcontainer(cid)
            await sandbox.start_subcontainer(cid, spec, donor.donation())
            for signo in ENDING if EVERYTHING else FEW_ENDING:
                if signo in DUMPING or not limit:
                    tasks.start_soon(partial(life, signo, cid, may_dump=limit > 0))


async def test_a_signal_that_it_sends_itself(sandbox: SandboxClient) -> None:
    for signo in (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1):
        ended, _ = await run(sandbox, f"kill -{int(signo)} $$")
        assert ended == Signaled(signal=signo)


async def test_environment_directory_and_user(sandbox: SandboxClient) -> None:
    env = ["PATH=/bin", "A=1", "B=2", "A=3"]
    ended, text = await run(sandbox, "echo $A $B $HOME; id -u; pwd", env=env, cwd="/tmp")
    assert (ended, text) == (Exited(code=0), "3 2 /\n0\n/tmp\n")


async def test_wait_is_repeatable_and_a_probe_leaves_nothing(
    sandbox: SandboxClient, service: Service
) -> None:
    pid = await sandbox.execute("sb", ["/bin/sleep", "1000"], {})
    before = len(await service.records())
    await sandbox.signal(0, "sb", pid=pid)
    assert len(await service.records()) == before
    await sandbox.signal(signal.SIGKILL, "sb", pid=pid)
    for _ in range(3):
        assert await sandbox.wait_process("sb", pid) == Signaled(signal=9)
    with pytest.raises(CallRefused, match=f"PID {pid}: no such process"):
        await sandbox.signal(signal.SIGTERM, "sb", pid=pid)


async def test_refusals(sandbox: SandboxClient) -> None:
    with pytest.raises(CallRefused, match=r'^container "nix" not found$'):
        await sandbox.execute("nix", ["/bin/true"], {})
    with pytest.raises(
        CallRefused,
        match='error finding executable "/nix" in PATH \\[/bin\\]: no such file or directory',
    ):
        await sandbox.execute("sb", ["/nix"], {}, env=["PATH=/bin"])
    with pytest.raises(CallRefused, match=r"^resolving env: invalid variable: A$"):
        await sandbox.execute("sb", ["/bin/true"], {}, env=["A"])
