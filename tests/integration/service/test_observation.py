"""Pausing, and looking at what runs, on every engine."""

import os
import signal
from typing import Any

import anyio
import msgspec
import pytest

from manager.adapters.client import SandboxClient
from manager.application.errors import CallRefused
from manager.domain.exit_status import Signaled
from tests.integration.service.conftest import ENGINES, Donor, Service, pipe, sh, wait_for_end
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime
every_engine = pytest.mark.parametrize("service", ENGINES, indirect=True)
TICKING = "while true; do echo tick; sleep 0.02; done"


async def next_tick(read_end: int) -> None:
    """Empty the pipe, then wait for something new in it."""
    os.set_blocking(read_end, False)
    try:
        while os.read(read_end, 65536):
            pass
    except BlockingIOError:
        await anyio.wait_readable(read_end)


@every_engine
async def test_a_paused_sandbox_stands_still_and_goes_on(service: Service, donor: Donor) -> None:
    with pipe() as (read_end, write_end):
        sandbox = await service.client.create_sandbox("sb", sh(TICKING), donor.donation(write_end))
        await sandbox.start_root()
        await sandbox.create_subcontainer("c1")
        await sandbox.start_subcontainer("c1", sh("sleep 600"), donor.donation())
        with anyio.fail_after(PATIENCE_S):
            await next_tick(read_end)
        await sandbox.pause()
        with anyio.move_on_after(0.3) as silence:
            await next_tick(read_end)
            await next_tick(read_end)
        assert silence.cancelled_caught
        state = await sandbox.state()
        assert {each["status"] for each in state["containers"].values()} == {"paused"}
        await sandbox.pause()  # it is; nothing to do
        await sandbox.create_subcontainer("c2")
        with pytest.raises(CallRefused, match="sandbox is paused, cannot start subcontainer"):
            await sandbox.start_subcontainer("c2", sh("true"), donor.donation())
        await sandbox.resume()
        with anyio.fail_after(PATIENCE_S):
            await next_tick(read_end)
        with pytest.raises(CallRefused, match='sandbox "sb" is not paused'):
            await sandbox.resume()
    tags = [record.type for record in await service.records("sandbox-sb")]
    assert [tags.count(f"container.{what}") for what in ("paused", "resumed")] == [2, 2]


@every_engine
async def test_what_is_paused_can_be_killed_and_destroyed(service: Service, donor: Donor) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    for cid in ("killed", "destroyed"):
        await sandbox.create_subcontainer(cid)
        await sandbox.start_subcontainer(cid, sh("sleep 600"), donor.donation())
    await sandbox.pause()
    with anyio.fail_after(PATIENCE_S):
        await sandbox.signal(signal.SIGKILL, cid="killed")
        assert await sandbox.wait("killed") == Signaled(signal=9)
        await sandbox.destroy("destroyed")
        await sandbox.delete(force=True)


async def test_a_sandbox_stays_paused_when_worker_and_service_are_killed(
    service: Service, donor: Donor
) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    await sandbox.pause()
    worker = await service.worker_pid()
    service.kill()
    os.kill(worker, signal.SIGKILL)
    await wait_for_end(worker)
    service.start()
    await sandbox.signal(signal.SIGTERM)
    assert (await sandbox.state())["paused"]
    assert await sandbox.runtime_state() == 2
    await sandbox.resume()
    await sandbox.signal(signal.SIGKILL)
    assert await sandbox.wait() == Signaled(signal=9)


@every_engine
async def test_processes_and_statistics(service: Service, donor: Donor) -> None:
    script = "sleep 600 & i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; wait"
    sandbox = await service.client.create_sandbox("sb", sh(script), donor.donation())
    await sandbox.start_root()
    await sandbox.create_subcontainer("c1")
    await sandbox.start_subcontainer("c1", sh("exec sleep 600"), donor.donation())
    with anyio.fail_after(PATIENCE_S):
        while len(found := await sandbox.processes("sb")) < 2:
            await anyio.sleep(0.02)
    assert {(row["pid"], row["ppid"]) for row in found} >= {(1, 0)}
    assert {row["cmd"] for row in found} >= {"sh"}
    assert {row["tty"] for row in found} == {"?"}
    with anyio.fail_after(PATIENCE_S):
        while [row["cmd"] for row in await sandbox.processes("c1")] != ["sleep"]:
            await anyio.sleep(0.02)  # the shell has yet to become it
    assert len(await sandbox.processes()) == len(found) + 1
    assert await sandbox.processes("nobody") == []
    stats = await sandbox.stats("sb")
    assert stats["event"]["data"]["cpu"]["usage"]["total"] > 0
    assert stats["event"]["data"]["memory"]["usage"]["usage"] > 0
    assert stats["event"]["data"]["pids"]["current"] >= 2
    assert set(stats["containerUsage"]) == {"sb", "c1"}
    with pytest.raises(CallRefused, match='container "nobody" not found'):
        await sandbox.stats("nobody")
    before = len(await service.records())
    await sandbox.processes()
    await sandbox.stats()
    assert len(await service.records()) == before  # to look leaves nothing
    os.kill(await service.worker_pid(), signal.SIGKILL)
    with anyio.fail_after(PATIENCE_S):
        while [row["cmd"] for row in await _processes_by_then(sandbox, "c1")] != ["sleep"]:
            await anyio.sleep(0.02)
    if service.engine != "runsc":  # whose kernel has processes of its own
        assert (await sandbox.stats("c1"))["event"]["data"]["pids"]["current"] == 1


async def _processes_by_then(sandbox: SandboxClient, cid: str) -> list[dict[str, Any]]:
    """None as long as there is no worker to ask."""
    try:
        return await sandbox.processes(cid)
    except CallRefused:
        return []


@every_engine
async def test_who_is_busy_uses_more_than_who_is_idle(service: Service, donor: Donor) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    for cid, script in (("busy", "while true; do :; done"), ("idle", "sleep 600")):
        await sandbox.create_subcontainer(cid)
        await sandbox.start_subcontainer(cid, sh(script), donor.donation())
    first = await sandbox.stats("busy")
    assert (first["event"]["type"], first["event"]["id"]) == ("stats", "busy")

    async def used(cid: str) -> int:
        return int((await sandbox.stats("sb"))["containerUsage"][cid])

    before = await used("busy")
    with anyio.fail_after(PATIENCE_S):
        while await used("busy") <= max(before, await used("idle")) + 50_000_000:
            await anyio.sleep(0.02)
    await sandbox.signal(signal.SIGKILL, "idle")
    await sandbox.wait("idle")
    await sandbox.destroy("idle")
    with pytest.raises(CallRefused, match='container "idle" not found'):
        await sandbox.stats("idle")
    assert "idle" not in (await sandbox.stats("sb"))["containerUsage"]


async def test_the_other_objects_of_gvisors_socket(service: Service, donor: Donor) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("exec sleep 600"), donor.donation())
    await sandbox.start_root()
    transport = service.client._transport

    async def call(method: str, arg: object = None) -> object:
        return await transport.call("sb", method, arg, again=False)

    await call("Lifecycle.Pause")
    await call("Lifecycle.Resume", {})
    assert "sleep" in str(await call("Proc.Ps", {"JSON": False}))
    rows = msgspec.json.decode(str(await call("Proc.Ps", {"JSON": True})))
    assert [row["cmd"] for row in rows] == ["sleep"]
    usage = msgspec.convert(await call("Usage.Collect", {"Full": True}), dict[str, int])
    assert usage["Total"] > 0
    dump = msgspec.convert(await call("containerManager.ProcfsDump"), list[dict[str, object]])
    assert [entry["args"] for entry in dump] == [["sleep", "600"]]
    assert await call("containerManager.GetSavings") == {"CPUTimeSaved": 0, "WallTimeSaved": 0}
    with pytest.raises(CallRefused, match="cannot wait for restore: state=started"):
        await call("containerManager.WaitRestore")
    refusal = "Fs.Cat is not supported by sandtrail: file trees are donated"
    with pytest.raises(CallRefused, match=refusal):
        await call("Fs.Cat", {"files": ["/etc/passwd"]})
