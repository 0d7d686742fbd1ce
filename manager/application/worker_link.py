"""The manager's side of the worker: one connection at a time, made anew when it breaks.

Outcomes are handed on in the order in which the worker sent them, and acknowledged only after
whoever takes them has returned, that is, once they are durable. While there is no connection,
sends do nothing: what an intent asked for is settled when the next worker has said what it knows.
"""

import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal, Protocol

import anyio

from manager.application.errors import WorkerGone
from manager.application.ports import WorkerConnection, Workers
from manager.kernel.fail_points import reached
from manager.schema import worker as w
from manager.urpc.fds import FdBundle

HOLD_TIMEOUT_S: Final = 10.0
"""How long the worker may take to say that it has descriptors; it does nothing but keep them."""

PROBE_PREFIX: Final = "probe-"
"""Begins the kill ids of signals that only ask, and leave nothing."""
ANSWER_TIMEOUT_S: Final = 30.0
"""How long the worker may take to answer a question: gVisor's own tools are not quick."""

RECONNECT_PAUSES_S: Final = (0.0, 0.1, 0.5, 1.0, 2.0)
"""Pauses before attempts to get a worker; the last one repeats."""

logger = logging.getLogger(__name__)


class WorkerEvents(Protocol):
    """Who is told what the worker says."""

    async def worker_found(self, welcome: w.Welcome, sent: "SentLaunches") -> None:
        """Settle what was under way, knowing what the worker knows."""
        ...

    async def worker_lost(self, reason: str) -> None:
        """Note that the connection has ended."""
        ...

    def log_mark(self, boot_id: str) -> w.LogMark:
        """The newest durable record, for the worker to note under this boot of the machine."""
        ...

    def living(self) -> frozenset[int]:
        """Pids of the containers whose end is not on record."""
        ...

    async def take(self, outcomes: Sequence[w.Outcome], give_up: Callable[[], bool]) -> bool:
        """Make outcomes durable, however long it takes; returns whether they are.

        Args:
            outcomes: As the worker sent them.
            give_up: Asked between attempts: once it says so, there are no more.
        """
        ...


class SentLaunches:
    """What was launched and executed over this connection: the worker knows it, too."""

    def __init__(self) -> None:
        self.ids: set[str] = set()


class _Question:
    """One that was put to the worker."""

    def __init__(self) -> None:
        self.settled = anyio.Event()
        self.answer: w.Answer | None = None

    def settle(self, answer: w.Answer) -> None:
        self.answer = answer
        self.settled.set()


class WorkerLink:
    """Keeps a connection to the worker while :meth:`run` runs."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._connection: WorkerConnection | None = None
        self._sent = SentLaunches()
        self._leaving = False
        self._settled = False
        self._holds: dict[str, anyio.Event] = {}
        self._probes: dict[str, _Probe] = {}
        self._questions: dict[str, _Question] = {}
        self._broken = anyio.Event()

    async def run(
        self, events: WorkerEvents, *, task_status: anyio.abc.TaskStatus[w.Welcome]
    ) -> None:
        """Connect, hand outcomes on, connect again; until cancelled.

        When it is cancelled the worker is told to leave once nothing runs in it any more.

        Raises:
            WorkerGone: The very first connection could not be made.
        """
        connection = await self._workers.connect()
        started = False
        async with anyio.create_task_group() as tasks:
            try:
                while True:
                    self._begin(connection)
                    try:
                        await events.worker_found(connection.welcome, self._sent)
                        self._settled = True
                        if not started:
                            task_status.started(connection.welcome)
                            started = True
                        await self._serve(connection, events)
                    except WorkerGone as error:
                        await self._end()
                        await events.worker_lost(str(error))
                        tasks.start_soon(self._workers.reap_strays, events.living)
                    connection = await self._reconnect()
            finally:
                with anyio.CancelScope(shield=True):
                    await self.send(w.Stop())
                    await self._end()

    def leave(self) -> None:
        """Be told that :meth:`run` is about to be cancelled."""
        self._leaving = True

    def _begin(self, connection: WorkerConnection) -> None:
        self._sent = SentLaunches()
        self._broken = anyio.Event()
        self._settled = False
        self._connection = connection

    async def _end(self) -> None:
        connection, self._connection = self._connection, None
        self._broken.set()
        if connection is not None:
            await connection.aclose()

    async def _serve(self, connection: WorkerConnection, events: WorkerEvents) -> None:
        while True:
            messages = await connection.receive()
            outcomes = [each for each in messages if not isinstance(each, w.Answer)]
            for each in messages:
                if isinstance(each, w.Answer) and each.ask_id in self._questions:
                    self._questions[each.ask_id].settle(each)
            if not outcomes:
                continue
            for outcome in outcomes:
                if isinstance(outcome, w.Held) and outcome.hold_id in self._holds:
                    self._holds[outcome.hold_id].set()
                elif isinstance(outcome, w.Killed) and outcome.kill_id in self._probes:
                    self._probes[outcome.kill_id].answer = outcome
                    self._probes[outcome.kill_id].arrived.set()
            # What is recorded is acknowledged, also by a service that is about to stop: a worker
            # that nobody acknowledges to does not leave.
            with anyio.CancelScope(shield=True):
                public = [each for each in outcomes if not self._is_private(each)]
                reached("outcome.received")
                taken = await events.take(public, lambda: self._leaving)
                if taken:
                    reached("outcome.appended")
                    # One that was asked for again comes out of order; all before it are durable.
                    last = max(outcome.seq for outcome in outcomes)
                    mark = events.log_mark(connection.welcome.worker.boot_id)
                    await connection.send(w.Ack(seq=last, mark=mark))
                    reached("outcome.acknowledged")
            if not taken:
                # This service ends. To acknowledge a later one would have the worker forget these.
                await anyio.sleep_forever()

    async def _reconnect(self) -> WorkerConnection:
        attempt = 0
        while True:
            await anyio.sleep(RECONNECT_PAUSES_S[min(attempt, len(RECONNECT_PAUSES_S) - 1)])
            attempt += 1
            try:
                return await self._workers.connect()
            except WorkerGone as error:
                logger.warning("worker.start_failed attempt=%d reason=%s", attempt, error)

    async def send(self, message: w.ToWorker, files: FdBundle | None = None) -> bool:
        """Send a command; ownership of ``files`` moves in.

        Returns:
            Whether it went out. If not, the worker's next welcome settles the matter.
        """
        if self._connection is None:
            if files is not None:
                files.close()
            return False
        if isinstance(message, w.Launch):
            self._sent.ids.add(message.launch_id)
        elif isinstance(message, w.Execute):
            self._sent.ids.add(message.exec_id)
        elif isinstance(message, w.Save):
            self._sent.ids.add(message.checkpoint_id)
        try:
            await self._connection.send(message, files)
        except WorkerGone:
            return False
        reached("effect.sent")
        return True

    def _is_private(self, outcome: w.Outcome) -> bool:
        """Whether an outcome answers a question of this process, and belongs in no log."""
        if isinstance(outcome, w.Killed):
            return outcome.kill_id.startswith(PROBE_PREFIX)
        return isinstance(outcome, w.Held)

    async def probe(self, message: w.Kill) -> w.Killed | None:
        """Ask whether a signal could be delivered; ``None`` if the worker does not answer.

        Args:
            message: Of signal 0, its kill id begins with :data:`PROBE_PREFIX`.
        """
        probe = self._probes[message.kill_id] = _Probe()
        try:
            await self._ask(message, probe.arrived)
        finally:
            del self._probes[message.kill_id]
        return probe.answer

    async def _ask(
        self, message: w.ToWorker, arrived: anyio.Event, files: FdBundle | None = None
    ) -> None:
        """Send, and wait until it is answered, the connection ends, or it takes too long."""
        broken = self._broken
        if not await self.send(message, files):
            return
        with anyio.move_on_after(HOLD_TIMEOUT_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_then_cancel, arrived.wait, tasks.cancel_scope)
                tasks.start_soon(_then_cancel, broken.wait, tasks.cancel_scope)

    async def ask(
        self, launch_ids: tuple[str, ...], what: Literal["processes", "details", "usage"]
    ) -> w.Answer:
        """Ask the worker about launches.

        Raises:
            WorkerGone: It did not answer.
        """
        ask_id = uuid.uuid4().hex
        question = self._questions[ask_id] = _Question()
        broken = self._broken
        try:
            if not await self.send(w.Ask(ask_id=ask_id, launch_ids=launch_ids, what=what)):
                raise WorkerGone("there is none to ask")
            with anyio.move_on_after(ANSWER_TIMEOUT_S):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_then_cancel, question.settled.wait, tasks.cancel_scope)
                    tasks.start_soon(_then_cancel, broken.wait, tasks.cancel_scope)
        finally:
            del self._questions[ask_id]
        if question.answer is None:
            raise WorkerGone("it did not answer")
        return question.answer

    async def hold(self, message: w.Hold, files: FdBundle) -> bool:
        """Have the worker keep descriptors; returns whether it has them.

        It does not while a new worker is being made known to every sandbox: each waits for that
        in turn, the one that asks among them. Ownership of ``files`` moves in.
        """
        if not self._settled:
            files.close()
            return False
        arrived = self._holds[message.hold_id] = anyio.Event()
        try:
            await self._ask(message, arrived, files)
        finally:
            del self._holds[message.hold_id]
        reached("hold.kept")
        return arrived.is_set()


class _Probe:
    """A signal that is no signal: its answer is for one caller, and for no log."""

    def __init__(self) -> None:
        self.arrived = anyio.Event()
        self.answer: w.Killed | None = None


async def _then_cancel(wait: Callable[[], Awaitable[None]], scope: anyio.CancelScope) -> None:
    await wait()
    scope.cancel()
