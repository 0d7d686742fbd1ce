"""What is saved to a file and goes on from it: counters, and a service whose engine can save."""

import contextlib
import os
import select
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import msgspec

from manager import Donation
from manager.adapters.client import SandboxClient
from manager.schema.layout import LOG_FILE
from tests.integration.service.conftest import (
    Donor,
    Service,
    every_decision_is_taken_again,
    know_engines,
    sh,
)
from tests.patience import PATIENCE_S

COUNTER = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done"
NAME = "io.kubernetes.cri.container-name"


@contextlib.asynccontextmanager
async def serving(
    root: Path, probed: Path, engine: str, criu: str | None = None
) -> AsyncIterator[Service]:
    """A service with that engine, and with that CRIU."""
    know_engines(root, probed)
    service = Service(root, engine)
    service.options = ("--engine-path", f"criu={criu}") if criu else ()
    service.start()
    try:
        yield service
    finally:
        await service.end()
    await every_decision_is_taken_again(root / LOG_FILE)


def counter(name: str, **members: Any) -> dict[str, Any]:
    return {**sh(COUNTER, **members), "annotations": {NAME: name}}


class Counted:
    """The numbers that one container writes: each is one more than the one before."""

    def __init__(self) -> None:
        self._read, self.write = os.pipe()
        self._seen = b""
        self._last: int | None = None

    async def numbers(self, count: int) -> list[int]:
        """The next ``count`` numbers."""
        with anyio.fail_after(PATIENCE_S):
            while self._seen.count(b"\n") < count:
                await anyio.wait_readable(self._read)
                self._seen += os.read(self._read, 4096)
        lines = self._seen.split(b"\n")
        self._seen = b"\n".join(lines[count:])
        return self._checked(lines[:count])

    def _checked(self, lines: list[bytes]) -> list[int]:
        found = [int(line) for line in lines]
        for number in found:
            assert self._last is None or number == self._last + 1
            self._last = number
        return found

    async def rest(self) -> int:
        """The last number; closes our end for writing, and waits for that of all others."""
        os.close(self.write)
        with anyio.fail_after(PATIENCE_S):
            while True:
                await anyio.wait_readable(self._read)
                piece = os.read(self._read, 65536)
                if not piece:
                    break
                self._seen += piece
        os.close(self._read)
        self._checked(self._seen.split())
        assert self._last is not None
        return self._last

    def goes_on(self) -> bool:
        """Whether there are numbers that were not read yet."""
        ready, _, _ = select.select([self._read], [], [], 0)
        return bool(ready and os.read(self._read, 65536))

    def close(self) -> None:
        """Close both ends, whatever is written yet."""
        for fd in (self._read, self.write):
            with contextlib.suppress(OSError):
                os.close(fd)


async def started(
    service: Service, donor: Donor, names: list[str], sandbox_id: str = "old"
) -> tuple[SandboxClient, list[Counted]]:
    """A sandbox with a counter in each of its containers."""
    counts = [Counted() for _ in names]
    donation = donor.donation(counts[0].write)
    sandbox = await service.client.create_sandbox(sandbox_id, counter(names[0]), donation)
    await sandbox.start_root()
    for name, each in zip(names[1:], counts[1:], strict=True):
        await sandbox.create_subcontainer(f"{sandbox_id}-{name}")
        donation = donor.donation(each.write)
        await sandbox.start_subcontainer(f"{sandbox_id}-{name}", counter(name), donation)
    for each in counts:
        await each.numbers(3)
    return sandbox, counts


async def save(sandbox: SandboxClient, image: Path, **how: Any) -> None:
    with image.open("wb") as file:
        await sandbox.checkpoint(file, **how)


async def restored(
    service: Service, image: Path, sandbox_id: str, spec: dict[str, Any], donation: Donation
) -> SandboxClient:
    """A sandbox of one container, from its image."""
    sandbox = await service.client.create_sandbox(sandbox_id, spec, donation)
    with image.open("rb") as file:
        await sandbox.restore(file)
    return sandbox


async def can_save(service: Service) -> bool:
    """Whether the worker has found that its engine can save containers."""
    found = [each for each in await service.records("node") if each.type == "worker.started"]
    engines = msgspec.json.decode(found[-1].data)["engines"]
    return all("checkpoint" not in e["lacks"] for e in engines if e["name"] == service.engine)


async def tags(service: Service, sandbox_id: str) -> list[str]:
    return [each.type for each in await service.records(f"sandbox-{sandbox_id}")]


async def events(service: Service, sandbox_id: str, tag: str) -> list[dict[str, Any]]:
    records = await service.records(f"sandbox-{sandbox_id}")
    return [dict(msgspec.json.decode(each.data)) for each in records if each.type == tag]


async def event(service: Service, sandbox_id: str, tag: str) -> dict[str, Any]:
    return (await events(service, sandbox_id, tag))[-1]


class OpenFile:
    """A descriptor of a file, for the length of a block."""

    def __init__(self, path: str | Path, flags: int) -> None:
        self._fd = os.open(path, flags)

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


async def contains(read_end: int, wanted: bytes) -> None:
    """Read until that has come."""
    seen = b""
    with anyio.fail_after(PATIENCE_S):
        while wanted not in seen:
            await anyio.wait_readable(read_end)
            seen += os.read(read_end, 4096)
