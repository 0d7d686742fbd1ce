"""What gVisor's own tests ask of a containerManager, asked of every engine."""

import os
import signal
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from manager.adapters.client import SandboxClient
from manager.application.errors import CallRefused
from manager.domain.exit_status import Exited, Signaled
from tests.integration.service.conftest import ENGINES, Donor, Service, pipe, read_all, sh
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime
every_engine = pytest.mark.parametrize("service", ENGINES, indirect=True)
SIGNALS = (1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 31)
"""Those whose default is to end a process, but for SIGQUIT, which busybox's shell ignores."""

DUMPING = frozenset((3, 4, 5, 6, 7, 8, 11, 24, 25, 31))
"""Those that have the kernel write a core file, if it may. Source: signal(7)."""

DUMPS = not Path("/proc/sys/kernel/core_pattern").read_text().startswith("|")
"""Whether core files are written where the process is; else it is for the host's program to say."""

ENDING = tuple(
    n for n in (*range(1, 32), *range(34, 65)) if n not in (17, 18, 19, 20, 21, 22, 23, 28)
)
"""All whose default is to end a process."""

FEW_ENDING = (1, 3, 9, 11, 15, 64)
CODES = (0, 1, 126, 127, 128, 128 + 9, 128 + 11, 255)
EVERYTHING = bool(os.environ.get("SANDTRAIL_EVERY_STATUS"))
"""All codes, all signals and as many short lives with the slow engines, too: some minutes."""

FEW = {} if EVERYTHING else {"runsc": 8, "runc": 40}
"""Short lives for engines that take long over each."""


async def running_sandbox(service: Service, donor: Donor) -> SandboxClient:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    return sandbox


async def run(sandbox: SandboxClient, donor: Donor, cid: str, script: str) -> None:
    await sandbox.create_subcontainer(cid)
    await sandbox.start_subcontainer(cid, sh(script), donor.donation())


@every_engine
async def test_exit_codes_are_exact(service: Service, donor: Donor) -> None:
    sandbox = await running_sandbox(service, donor)
    codes = range(256) if EVERYTHING or service.engine == "bwrap" else CODES
    limit = anyio.CapacityLimiter(8)

    async def life(code: int) -> None:
        async with limit:
            await run(sandbox, donor, f"c{code}", f"exit {code}")
            assert await sandbox.wait(f"c{code}") == Exited(code=code)
            assert await sandbox.wait_status(f"c{code}") == code << 8  # again, and after the exit
            await sandbox.destroy(f"c{code}")

    async with anyio.create_task_group() as tasks:
        for code in codes:
            tasks.start_soon(life, code)


@every_engine
async def test_signals_are_exact(service: Service, donor: Donor) -> None:
    sandbox = await running_sandbox(service, donor)
    for signo in SIGNALS:
        cid = f"s{signo}"
        # Not init of its PID namespace: that one ignores what it has no handler for.
        await run(sandbox, donor, cid, f"sh -c 'kill -{signo} $$'; test $? = {128 + signo}")
        assert await sandbox.wait(cid) == Exited(code=0), signo
        await sandbox.destroy(cid)
    await sandbox.signal(signal.SIGKILL)
    assert await sandbox.wait_status() == signal.SIGKILL


@every_engine
async def test_an_init_that_is_ended_by_a_signal(service: Service, donor: Donor) -> None:
    """From outside, and not first in its PID namespace: there is no signal that it is spared."""
    sandbox = await running_sandbox(service, donor)
    limiter = anyio.CapacityLimiter(8)
    # All dump to one file of one directory: of two at once the kernel refuses one.
    dumping = anyio.Lock()

    async def life(signo: int, limit: int) -> None:
        cid = f"s{signo}-{limit}"
        spec = sh("")
        spec["process"]["args"] = ["/bin/sleep", "600"]
        spec["process"]["rlimits"] = [{"type": "RLIMIT_CORE", "hard": limit, "soft": limit}]
        if service.engine != "runsc":
            spec["linux"]["namespaces"] = [
                each for each in spec["linux"]["namespaces"] if each["type"] != "pid"
            ]
        async with dumping if limit else limiter:
            await sandbox.create_subcontainer(cid)
            await sandbox.start_subcontainer(cid, spec, donor.donation())
            await sandbox.signal(signo, cid)
            dumped = limit > 0 and signo in DUMPING and DUMPS and service.engine != "runsc"
            assert await sandbox.wait(cid) == Signaled(signal=signo, core=dumped), cid
            assert await sandbox.wait_status(cid) == signo | (0x80 if dumped else 0)
            await sandbox.destroy(cid)

    async with anyio.create_task_group() as tasks:
        for signo in ENDING if EVERYTHING else FEW_ENDING:
            tasks.start_soon(life, signo, 0)
            if signo in DUMPING:
                tasks.start_soon(life, signo, 1 << 26)


@pytest.mark.parametrize("service", ["runsc"], indirect=True)
async def test_the_next_worker_knows_a_code_from_a_signal(service: Service, donor: Donor) -> None:
    with pipe() as (read_end, write_end):
        donation = replace(donor.donation(), stdio=(read_end, donor.null_out, donor.null_out))
        spec = sh("read line; exit 137")
        sandbox = await service.client.create_sandbox("sb", spec, donation)
        await sandbox.start_root()
        worker = await service.worker_pid()
        os.kill(worker, signal.SIGKILL)
        with anyio.fail_after(PATIENCE_S):
            while await service.worker_pid() == worker:
                await anyio.sleep(0.01)
        os.write(write_end, b"go on\n")
        assert await sandbox.wait() == Exited(code=137)


@every_engine
async def test_no_life_is_too_short(service: Service, donor: Donor) -> None:
    sandbox = await running_sandbox(service, donor)
    count = FEW.get(service.engine, 100)
    ended: list[object] = []

    async def life(number: int) -> None:
        await run(sandbox, donor, f"c{number}", "exec true")
        ended.append(await sandbox.wait(f"c{number}"))

    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(life, number)
    assert ended == [Exited(code=0)] * count
    exits = [each for each in await service.records() if each.type == "container.exited"]
    assert len(exits) == count


@every_engine
async def test_nine_are_started_and_destroyed_in_a_race(service: Service, donor: Donor) -> None:
    sandbox = await running_sandbox(service, donor)

    async def start(cid: str) -> None:
        try:
            await sandbox.start_subcontainer(cid, sh("sleep 600"), donor.donation())
        except CallRefused:
            return  # it came too late; the destroy may not fail

    async with anyio.create_task_group() as tasks:
        for number in range(9):
            cid = f"c{number}"
            await sandbox.create_subcontainer(cid)
            tasks.start_soon(start, cid)
            tasks.start_soon(sandbox.destroy, cid)
    found = (await sandbox.state())["containers"]
    assert {found[f"c{number}"]["status"] for number in range(9)} == {"destroyed"}


@every_engine
async def test_three_batches_of_ten_overlap(service: Service, donor: Donor) -> None:
    sandbox = await running_sandbox(service, donor)

    async def life(cid: str) -> None:
        await run(sandbox, donor, cid, "while echo x >/tmp/x; do read x </tmp/x; sleep 0.05; done")
        await sandbox.signal(signal.SIGKILL, cid)
        assert await sandbox.wait(cid) == Signaled(signal=9)
        await sandbox.destroy(cid)

    async def batch(name: str) -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(life, f"{name}{number}")

    async with anyio.create_task_group() as tasks:
        for name in "abc":
            tasks.start_soon(batch, name)


@every_engine
async def test_created_and_never_started_is_destroyed(service: Service, donor: Donor) -> None:
    sandbox = await running_sandbox(service, donor)
    await sandbox.create_subcontainer("c1")
    await sandbox.destroy("c1")
    await sandbox.destroy("c1")  # once more
    with pytest.raises(CallRefused, match='trying to start a deleted container "c1"'):
        await sandbox.start_subcontainer("c1", sh("true"), donor.donation())
    await run(sandbox, donor, "c1", "exit 4")  # the id is free
    assert await sandbox.wait("c1") == Exited(code=4)


@every_engine
async def test_of_a_variable_given_twice_the_last_value_counts(
    service: Service, donor: Donor
) -> None:
    sandbox = await running_sandbox(service, donor)
    spec = sh("env | grep ^[AB]=")
    spec["process"]["env"] += ["A=first", "B=kept", "A=last"]
    spec["process"]["args"][2] = "echo $A $B"
    with pipe() as (read_end, write_end):
        await sandbox.create_subcontainer("c1")
        await sandbox.start_subcontainer("c1", spec, donor.donation(write_end))
        assert await sandbox.wait("c1") == Exited(code=0)
        assert read_all(read_end, write_end) == b"last kept\n"


@every_engine
async def test_who_runs_out_of_memory_is_said_to_have(service: Service, donor: Donor) -> None:
    sandbox = await running_sandbox(service, donor)
    spec = sh("x=a; while true; do x=$x$x; done")
    spec["linux"]["resources"] = {"memory": {"limit": 64 << 20, "swap": 64 << 20}}
    await sandbox.create_subcontainer("c1")
    await sandbox.start_subcontainer("c1", spec, donor.donation())
    assert await sandbox.wait("c1") == Signaled(signal=9)
    assert (await sandbox.state())["containers"]["c1"]["oom"]


@every_engine
async def test_a_fork_bomb_is_destroyed(service: Service, donor: Donor) -> None:
    sandbox = await running_sandbox(service, donor)
    spec = sh("f() { f | f & }; f; sleep 600")
    spec["linux"]["resources"] = {"pids": {"limit": 200}}
    await sandbox.create_subcontainer("c1")
    await sandbox.start_subcontainer("c1", spec, donor.donation())
    init = (await sandbox.state())["containers"]["c1"]["launched"]["pid"]
    await sandbox.destroy("c1")
    assert not Path(f"/proc/{init}").exists() or service.engine == "runsc"
