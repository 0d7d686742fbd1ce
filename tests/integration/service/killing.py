"""A service that is killed at a named place, what its clients do meanwhile, and what is left."""

import contextlib
import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from manager import CallRefused, ServiceUnavailable
from manager.adapters.client import SandboxClient
from manager.domain.evolve import fold
from manager.domain.exit_status import Exited
from manager.domain.state import Sandbox
from manager.kernel.fail_points import VARIABLE
from manager.schema.events import decode_event
from tests.integration.service.conftest import (
    Donor,
    Service,
    cgroups,
    know_engines,
    sh,
)

POLL_S = 0.01
RETRY_S = 0.1
ROUNDS_MAX = 40
NOT_YET = "does not answer"
ENDS_S = 60
FINE = re.compile("interrupted|lost|gone|destroyed while|does not answer|no such process|aborted")
"""What a call may be refused with by a service that was killed amid it."""


class Killed:
    """A service with a place at which one of its processes dies, started again when it is dead.

    ``probed`` is what a worker has found out about engines: else it tries them, and dies in that.
    """

    def __init__(self, root: Path, probed: Path, engine: str, point: str, count: int = 1) -> None:
        self.marker = root.parent / f"reached-{root.name}"
        know_engines(root, probed)
        setting = f"{VARIABLE}={point}:{count}:{self.marker}"
        self.service = Service(root, engine, ("env", setting, sys.executable))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Service]:
        """Run it; at the end everything is deleted and stopped, and the worker has left."""
        service = self.service
        with anyio.fail_after(ENDS_S):
            await anyio.to_thread.run_sync(self._start)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._raise)
                yield service
                tasks.cancel_scope.cancel()
        finally:
            worker = await service.worker_pid()
            service.stop()
        with anyio.fail_after(ENDS_S):
            await service.is_left_by(worker)

    def _start(self) -> None:
        """Start it, and once more if it was to die before it was ready."""
        try:
            self.service.start()
        except msgspec.DecodeError:
            self.service._reap()
            assert self.marker.exists(), "the service does not start"
            self.service.command = (sys.executable,)
            self.service.start()

    async def _raise(self) -> None:
        process = self.service._process
        assert process is not None
        while process.poll() is None:
            await anyio.sleep(POLL_S)
        assert self.marker.exists(), "the service has ended by itself"
        self.service.command = (sys.executable,)
        self.service._reap()
        await anyio.to_thread.run_sync(self.service.start)


class Story:
    """One client's story with one sandbox after the other, until one goes well."""

    def __init__(self, service: Service, donor: Donor, notes: Path, prefix: str = "s") -> None:
        self.prefix = prefix
        self.service = service
        self.donor = donor
        self.notes = notes
        self.rounds = 0

    def noted(self, name: str) -> int:
        """How often the code of a container ran."""
        path = self.notes / name
        return path.read_text().count("ran\n") if path.exists() else 0

    async def tell(self) -> None:
        """Whatever is refused is refused for the kill; at last nothing is."""
        while not await self._round(f"{self.prefix}{self.rounds}"):
            assert self.rounds < ROUNDS_MAX, "refused again and again"

    async def _round(self, name: str) -> bool:
        self.rounds += 1
        text = NOT_YET
        try:
            await self._whole(name)
        except ServiceUnavailable:
            pass
        except CallRefused as refused:
            text = refused.text
        else:
            return True
        if not FINE.search(text):
            raise AssertionError(text)
        if NOT_YET in text:
            await anyio.sleep(RETRY_S)
        await self._give_up(name)
        return False

    async def _give_up(self, name: str) -> None:
        sandbox = self.service.client.sandbox(name)
        with contextlib.suppress(CallRefused):
            await answered(sandbox.delete, force=True)

    async def _whole(self, name: str) -> None:
        sandbox = await self._create(name)
        await sandbox.start_root()
        await self._start(sandbox, "short", "echo ran; exit 7")
        assert await sandbox.wait_status("short") == 7 << 8
        await self._start(sandbox, "long", "echo ran; sleep 600")
        pid = await sandbox.execute("long", ["/bin/sh", "-c", "exit 5"], {})
        assert pid > 0, "a process without a number"
        assert await sandbox.wait_process("long", pid) == Exited(code=5)
        await sandbox.signal(9, cid="long")
        assert await sandbox.wait_status("long") == 9
        await sandbox.destroy("short")
        await sandbox.destroy("long")
        await sandbox.delete(force=True)

    async def _create(self, name: str) -> SandboxClient:
        return await self.service.client.create_sandbox(
            name, sh("sleep 600"), self.donor.donation()
        )

    async def _start(self, sandbox: SandboxClient, cid: str, script: str) -> None:
        await sandbox.create_subcontainer(cid)
        path = self.notes / f"{sandbox.id}-{cid}"
        out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            await sandbox.start_subcontainer(cid, sh(script), self.donor.donation(out=out))
        finally:
            os.close(out)


async def answered(call: Any, **how: Any) -> Any:
    """Ask until somebody answers."""
    with anyio.fail_after(ENDS_S):
        while True:
            with contextlib.suppress(ServiceUnavailable):
                return await call(**how)
            await anyio.sleep(POLL_S)


async def reconcile(service: Service, story: Story | None = None) -> None:
    """When everything is deleted: the log is whole and true, and nothing is left of anything."""
    streams: dict[str, list[Any]] = {}
    for record in await service.records():
        streams.setdefault(record.stream, []).append(record)
    engine_ids: set[str] = set()
    for stream, records in streams.items():
        if not stream.startswith("sandbox-"):
            continue
        state = fold(decode_event(each.type, each.data) for each in records)
        _settled(state)
        events = [msgspec.json.decode(each.data) | {"type": each.type} for each in records]
        engine_ids |= {each["intent"]["engine_id"] for each in events if "intent" in each}
        _told_once(events)
        name = stream.removeprefix("sandbox-")
        if story is not None and name.startswith(story.prefix):
            _as_it_ran(name, events, story)
    assert await service.client.sandboxes() == []
    await _nothing_left(engine_ids, service)


def _settled(state: Sandbox) -> None:
    assert state.phase in {"deleted", "absent"}
    assert (state.signals, state.pausing, state.checkpointing) == ({}, None, None)
    assert [key for key, each in state.requests.items() if not each.done] == []


def _told_once(events: list[dict[str, Any]]) -> None:
    for tag in ("container.started", "container.exited", "process.executed", "process.exited"):
        told = [each for each in events if each["type"] == tag]
        counts = Counter(each.get("exec_id") or each["launch_id"] for each in told)
        assert set(counts.values()) <= {1}, f"{tag} twice"


def _as_it_ran(name: str, events: list[dict[str, Any]], story: Story) -> None:
    for cid in ("short", "long"):
        ran = story.noted(f"{name}-{cid}")
        types = {each["type"] for each in events if each.get("container") == cid}
        assert ran <= 1, f"{cid} ran {ran} times"
        if ran and "container.start_failed" in types:
            [failed] = [each for each in events if each["type"] == "container.start_failed"]
            # The worker that was killed over it could not tell any more that it had begun.
            assert failed["failure"]["stage"] == "interrupted"
        if "container.started" in types:
            assert ran == 1, f"{cid} is said to have run"
            assert types & {"container.exited", "container.lost"}


async def _nothing_left(engine_ids: set[str], service: Service) -> None:
    """No process, no cgroup, no mount; what goes a moment after its word is waited for."""
    left = ["it was not looked"]
    with anyio.move_on_after(ENDS_S):
        while left := _left(engine_ids, await service.worker_pid()):
            await anyio.sleep(POLL_S)
    assert not left, left


def _left(engine_ids: set[str], worker: int) -> list[str]:
    left = [str(path) for path in cgroups(engine_ids)]
    try:
        mounts = Path(f"/proc/{worker}/mountinfo").read_text()
    except OSError:
        return ["a worker that was killed and is not replaced yet"]
    left += [f"mount {each}" for each in engine_ids if each in mounts]
    commands = b"".join(_command_lines())
    return left + [f"process {each}" for each in engine_ids if each.encode() in commands]


def _command_lines() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield path.read_bytes()
