"""A node over the in-memory log and the fake worker."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eventstore import EventLog, SnapshotFiles, memory_log
from manager.adapters.descriptors import KernelDescriptors
from manager.adapters.identity import RandomIds
from manager.application.calls import Calls
from manager.application.node import Node, open_node
from manager.application.ports import Described, NodePorts
from manager.application.settings import SNAPSHOT_EVENTS
from manager.domain.payload import LaunchPlan
from manager.kernel.donated import describe, open_namespace_at
from manager.schema.image import Image
from manager.schema.node_events import ManagerStarted
from manager.urpc.fds import FdBundle, OwnedFd
from tests.unit.application.fake_worker import FakeWorker

STARTED = ManagerStarted(version="0", pid=1, boot_id="boot", kernel="6.18")
ENV_KEY = b"k" * 32


class PlainDescriptors:
    """Real facts; trees are passed on as they are, since no mount is made."""

    async def describe(self, files: FdBundle) -> Described:
        return Described(facts=tuple(describe(number) for number in files.numbers()))

    def read_image(self, files: FdBundle) -> Image:
        return KernelDescriptors().read_image(files)

    def open_namespace(self, name: str, path: str) -> OwnedFd:
        return open_namespace_at(path, name)

    def prepare(self, plan: LaunchPlan, files: FdBundle) -> FdBundle:
        return files


class World:
    """The parts that outlive a manager."""

    def __init__(self, log: EventLog, worker: FakeWorker) -> None:
        self.log = log
        self.worker = worker

    @asynccontextmanager
    async def manager(
        self,
        engine: str = "auto",
        snapshots: SnapshotFiles | None = None,
        snapshot_events: int = SNAPSHOT_EVENTS,
    ) -> AsyncIterator[tuple[Node, Calls]]:
        ports = NodePorts(
            log=self.log,
            workers=self.worker,
            descriptors=PlainDescriptors(),
            ids=RandomIds(),
            env_key=ENV_KEY,
            snapshots=snapshots,
        )
        async with open_node(
            ports, engine=engine, started=STARTED, snapshot_events=snapshot_events
        ) as node:
            yield node, Calls(node)

    async def tags(self, stream: str) -> list[str]:
        return [record.type async for record in self.log.read(stream)]

    async def payload(self, stream: str, tag: str) -> dict[str, Any]:
        """That of the newest event of a type."""
        found = [record.data async for record in self.log.read(stream) if record.type == tag]
        return dict(msgspec.json.decode(found[-1]))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with memory_log() as log:
        worker = FakeWorker()
        yield World(log, worker)
        worker.close()


@pytest.fixture
def donate(tmp_path: Path) -> Callable[[], FdBundle]:
    """Descriptors of a start: /dev/null three times and a directory."""

    def make() -> FdBundle:
        flags = (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)
        bundle = FdBundle(OwnedFd(os.open(os.devnull, flag)) for flag in flags)
        bundle.append(OwnedFd(os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)))
        return bundle

    return make
