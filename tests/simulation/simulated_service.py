"""The real application between a simulated machine and a log that fails."""

import errno
import os
import random
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio

from eventstore import (
    Document,
    EventLog,
    NewEvent,
    RecordedEvent,
    StoreBusy,
    StoreFull,
    StorePoisoned,
    memory_log,
)
from eventstore.sequencer import Sequencer
from eventstore.subscription import CommittedHead
from manager.application.calls import Calls
from manager.application.errors import NotRecorded, WorkerGone
from manager.application.node import Node, open_node
from manager.application.ports import Described, NodePorts
from manager.domain.evolve import evolve
from manager.domain.payload import LaunchPlan
from manager.domain.react import AS_RECORDED
from manager.domain.state import Sandbox
from manager.kernel.donated import describe
from manager.schema import worker as w
from manager.schema.events import decode_event
from manager.schema.image import Image
from manager.schema.node_events import ManagerStarted
from manager.schema.node_fold import STREAM_PREFIX, intent_key
from manager.urpc.fds import FdBundle, OwnedFd
from tests.simulation.simulated_machine import Connection, Machine, subjects
from tests.simulation.simulated_time import SimulatedLoop

STARTED = ManagerStarted(version="0", pid=1, boot_id="boot", kernel="6.18")
ENV_KEY = b"k" * 32
STORE_TROUBLE_S = 3.0
STOPPED = "sandbox-stopped-"


class Severed(BaseException):
    """This process is dead: nothing that it still does reaches anybody."""


class World:
    """What outlives managers, and what is known of it without asking them."""

    def __init__(self, loop: SimulatedLoop, seed: int) -> None:
        self.loop = loop
        self.dice = random.Random(f"world {seed}")
        self.machine = Machine(loop, random.Random(f"machine {seed}"), self._check_intent)
        self.clock_offset_ns = 0
        self.log = memory_log(clock=self._wall_clock)
        self._add, self.log._history.add = self.log._history.add, self._commit
        self.committed: dict[str, Sandbox] = {}
        self.heads: list[int] = [0]
        """Positions that the log came to, commit by commit: a copy has whole commits."""
        self.trace: list[str] = []
        self.store_trouble: str = ""
        self.few_files = False
        self.calm = False
        self.life: Life | None = None
        self.born = anyio.Event()
        self.before_copies: set[str] = set()
        """What was to be started before the log was replaced by an older copy of it."""
        self.copied: list[Callable[[], None]] = []
        """Called when that happens: what was remembered of the log has not happened."""
        self._wanted: set[str] = set()
        self._ids = 0

    def new_id(self) -> str:
        self._ids += 1
        return str(uuid.UUID(int=self._ids))

    def _wall_clock(self) -> int:
        return 10**18 + self.machine.now_ns() + self.clock_offset_ns

    def _commit(self, records: Sequence[RecordedEvent]) -> None:
        """Events become durable, whoever gets to know it."""
        self._add(records)
        self.heads.append(len(self.log._history.records))
        for record in records:
            self._saw(record)

    def _saw(self, record: RecordedEvent) -> None:
        self.trace.append(f"{record.stream} {record.type} {bytes(record.data)!r}")
        self._fold(record)

    def _fold(self, record: RecordedEvent) -> None:
        if record.stream.startswith(STREAM_PREFIX):
            before = self.committed.get(record.stream, Sandbox())
            event = decode_event(record.type, record.data)
            self.committed[record.stream] = evolve(before, event)
            self._wanted.add(intent_key(event))

    def restore_copy(self, position: int) -> None:
        """Replace the log, while nobody serves, by a copy made when it had come to ``position``."""
        history = self.log._history
        kept = history.records[:position]
        history.records.clear()
        history.streams.clear()
        self.committed.clear()
        self.heads = [each for each in self.heads if each < position]
        self.log._sequencer = Sequencer(history, head=position)
        self.log._head = CommittedHead(position)
        self.trace.append(f"a copy of {position} records")
        self._add(kept)
        for record in kept:
            self._fold(record)
        self.heads.append(position)
        self.before_copies |= self._wanted
        for each in self.copied:
            each()

    def _check_intent(self, message: w.ToWorker) -> None:
        """No effect without its intent on record."""
        states = self.committed.values()
        subject = subjects(message)[0].removeprefix(STOPPED)
        if subject in self.before_copies:
            return  # on its way when the log that has its intent was replaced
        match message:
            case w.Launch(launch_id=launch_id):
                found = [state.by_launch(launch_id) for state in states]
                assert any(each and each.status == "starting" for each in found), message
            case w.Kill(kill_id=kill_id, launch_id=launch_id) if kill_id.startswith(STOPPED):
                owners = [state for state in states if state.by_launch(launch_id)]
                ended = {"stopped", "restoreFailed", "deleted"}
                assert all(state.phase in ended for state in owners), message
            case w.Execute(exec_id=exec_id):
                assert any(state.by_execution(exec_id) for state in states), message
            case w.Freeze(pause_id=pause_id) if pause_id.startswith(AS_RECORDED):
                pass
            case _:
                # What was asked for may be settled by now, by the end of its sandbox.
                assert subject in self._wanted, message


class Life:
    """One manager process; after :meth:`kill` nothing of it has any effect."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dead = False
        self.poisoned = False
        self.node: Node | None = None
        self.calls: Calls | None = None
        self.ready_or_gone = anyio.Event()
        self.gone = anyio.Event()
        self.stop = anyio.Event()
        self._scopes: dict[anyio.CancelScope, None] = {}

    @property
    def log(self) -> EventLog:
        return LifeLog(self)

    def check(self) -> None:
        if self.dead:
            raise Severed

    def kill(self) -> None:
        """SIGKILL, at whatever await each of its tasks is."""
        self.dead = True
        for scope in list(self._scopes):
            scope.cancel()

    def dies_alone(self) -> None:
        """It ends by itself, and with it the connections of its clients."""
        for scope in list(self._scopes):
            scope.cancel()

    @asynccontextmanager
    async def within(self) -> AsyncIterator[None]:
        """Belong to this process while it lives."""
        with anyio.CancelScope() as scope:
            self._scopes[scope] = None
            try:
                self.check()
                yield
            finally:
                del self._scopes[scope]
                self._leave()

    async def run(self) -> None:
        """Be a manager until killed, or asked to stop."""
        world = self.world
        ports = NodePorts(
            log=self.log,
            workers=LifeWorkers(self),
            descriptors=LifeDescriptors(self),
            ids=world,
            env_key=ENV_KEY,
        )
        try:
            async with self.within(), open_node(ports, started=STARTED) as node:
                self.node, self.calls = node, Calls(node)
                self.ready_or_gone.set()
                await self.stop.wait()
        except BaseException as error:
            if not self.dead and self.calls is None and _is_refusal(error):
                return  # it could not begin, and said so
            if not self.dead and not (self.poisoned and _is_refusal(error)):
                raise
        finally:
            self.dead = True
            self.dies_alone()
            self._leave()

    def _leave(self) -> None:
        """The next one may begin when nothing of this one is left."""
        if self.dead and not self._scopes:
            self.ready_or_gone.set()
            self.gone.set()


def _is_refusal(error: BaseException) -> bool:
    """Whether the log or the worker refused: what a service may end with while it opens."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_refusal(each) for each in error.exceptions)
    return isinstance(error, NotRecorded | WorkerGone | StorePoisoned)


class LifeLog:
    """The log as one process sees it: late, refusing, or gone in the middle of an append."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._log = life.world.log

    async def append(
        self, stream: str, events: Sequence[NewEvent], **how: Any
    ) -> tuple[RecordedEvent, ...]:
        life, world = self._life, self._life.world
        await self._pause()
        if life.poisoned:
            raise StorePoisoned("events.db", "disk I/O error")
        trouble = "" if world.calm else world.store_trouble
        if trouble == "full":
            raise StoreFull("events.db")
        if trouble == "busy":
            raise StoreBusy("events.db")
        records = await self._commit(stream, events, **how)
        if trouble == "commits and raises" and world.dice.random() < 0.3:
            life.poisoned = True
            raise StorePoisoned("events.db", "disk I/O error")
        await self._pause()
        return records

    async def _commit(self, stream: str, events: Sequence[NewEvent], **how: Any) -> Any:
        """Nobody's cancellation, nor death, makes half of a commit."""
        with anyio.CancelScope(shield=True):
            records = await self._log.append(stream, events, **how)
        self._life.check()
        return records

    async def _pause(self) -> None:
        self._life.check()
        await anyio.sleep(self._life.world.machine.latency())
        self._life.check()

    async def read(self, stream: str | None = None, **how: Any) -> AsyncIterator[RecordedEvent]:
        self._life.check()
        async for record in self._log.read(stream, **how):
            self._life.check()
            yield record
        self._life.check()

    def subscribe(self, **how: Any) -> AbstractAsyncContextManager[AsyncIterator[RecordedEvent]]:
        return self._log.subscribe(**how)

    async def head(self) -> int:
        self._life.check()
        return await self._log.head()

    async def document(self, digest: str) -> Document:
        self._life.check()
        return await self._log.document(digest)


class LifeWorkers:
    """The way to the worker, for one process."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._machine = life.world.machine

    def reap(self, pid: int) -> None:
        self._machine.reap(pid)

    async def reap_strays(self, living: Callable[[], frozenset[int]]) -> None:
        await self._machine.reap_strays(living)

    async def connect(self) -> "LifeConnection":
        self._life.check()
        connection = await self._machine.connect()
        if self._life.dead:
            await connection.aclose()
        self._life.check()
        return LifeConnection(self._life, connection)


class LifeConnection:
    """A connection that a dead process has no use of."""

    def __init__(self, life: Life, connection: Connection) -> None:
        self._life = life
        self._connection = connection
        self.welcome = connection.welcome

    async def send(self, message: w.ToWorker, files: FdBundle | None = None) -> None:
        if self._life.dead and files is not None:
            files.close()
        self._life.check()
        await self._connection.send(message, files)

    async def receive(self) -> Sequence[w.Outcome | w.Answer]:
        outcomes = await self._connection.receive()
        self._life.check()
        return outcomes

    async def aclose(self) -> None:
        await self._connection.aclose()


class LifeDescriptors:
    """Real facts; trees are passed on as they are, since no mount is made."""

    def __init__(self, life: Life) -> None:
        self._world = life.world

    async def describe(self, files: FdBundle) -> Described:
        return Described(facts=tuple(describe(number) for number in files.numbers()))

    def read_image(self, files: FdBundle) -> Image:
        raise AssertionError("no image is read here")

    def open_namespace(self, name: str, path: str) -> OwnedFd:
        raise AssertionError("no namespace is named here")

    def prepare(self, plan: LaunchPlan, files: FdBundle) -> FdBundle:
        if self._world.few_files and not self._world.calm and self._world.dice.random() < 0.5:
            files.close()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return files
