"""The manager of one node, without its doors: the log, the live sandboxes, the worker."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import Final

import anyio

from eventstore import (
    ANY,
    Document,
    EventStoreError,
    ExpectedVersion,
    NewEvent,
    RecordedEvent,
)
from manager.application.continuity import doubt_about
from manager.application.effects import EffectRunner, Luggage
from manager.application.engines import Engines
from manager.application.errors import NotRecorded
from manager.application.live_sandbox import LiveSandbox
from manager.application.ports import NodePorts
from manager.application.recording import Recording
from manager.application.registry import Registry
from manager.application.reports import to_report
from manager.application.settings import AUTO, SNAPSHOT_EVENTS
from manager.application.snapshot_keeper import SnapshotKeeper
from manager.application.worker_link import SentLaunches, WorkerLink
from manager.domain import commands as c
from manager.domain.events import Event
from manager.domain.react import Resumption, holds, resume
from manager.domain.state import Sandbox
from manager.kernel.fail_points import reached
from manager.schema import node_events as n
from manager.schema import worker as w
from manager.schema.node_fold import Origin
from manager.urpc.fds import FdBundle

logger = logging.getLogger(__name__)

OUTCOME_KEYS: Final = ("launch_id", "kill_id", "pause_id", "checkpoint_id")
"""What an outcome may be about; each belongs to one sandbox."""

SandboxListener = Callable[[str, bool], Awaitable[None]]
"""Told a sandbox's id and whether it lives (true) or is gone (false)."""


class Node:
    """Live sandboxes over one log and one worker. Made by :func:`open_node`."""

    def __init__(self, ports: NodePorts, engine: str = AUTO) -> None:
        self.ports = ports
        self.engines = Engines(engine)
        self.registry = Registry(ports.log, ports.ids, ports.snapshots)
        self.link = WorkerLink(ports.workers)
        self._runner = EffectRunner(self.link, ports.descriptors)
        self.recording = Recording()
        self._listeners: list[SandboxListener] = []

    # --- what calls are made of ------------------------------------------------------------------

    def listen(self, listener: SandboxListener) -> None:
        """Have ``listener`` told of sandboxes that come and go."""
        self._listeners.append(listener)

    async def handle(
        self,
        sandbox: LiveSandbox,
        command: c.Command,
        origin: Origin,
        *,
        luggage: Luggage | None = None,
        documents: Sequence[Document] = (),
        prepare: Callable[[Sequence[Event]], Awaitable[c.Command]] | None = None,
    ) -> tuple[Event, ...]:
        """Decide, record, fold and act on one command; see :meth:`LiveSandbox.handle`.

        Raises:
            NotRecorded: The log refused. Nothing was changed and nothing was done.
        """
        lived = sandbox.lives
        with self.recording.watched():
            events = await sandbox.handle(
                command,
                origin,
                lambda effect: self._runner.perform(effect, luggage),
                documents=documents,
                prepare=prepare,
            )
            for report in sandbox.take_owed():
                self.recording.owe(partial(self.handle, sandbox, report, origin))
        await self._tell(sandbox, lived)
        return events

    async def _tell(self, sandbox: LiveSandbox, lived: bool) -> None:
        """Tell whoever listens if a sandbox has come or gone."""
        if lived != sandbox.lives:
            for listener in self._listeners:
                await listener(sandbox.state.id, sandbox.lives)
            self.registry.drop_if_gone(sandbox.state.id)

    async def record(
        self,
        tag: str,
        data: bytes,
        origin: Origin,
        documents: Sequence[Document] = (),
        expected: ExpectedVersion = ANY,
    ) -> RecordedEvent:
        """Append one event to the node's own stream.

        Raises:
            NotRecorded: The log refused.
        """
        new = NewEvent(
            type=tag,
            data=data,
            event_id=self.ports.ids.new_id(),
            correlation_id=origin.correlation_id,
            actor=origin.actor,
            documents=tuple(documents),
        )
        try:
            with anyio.CancelScope(shield=True):
                (record,) = await self.ports.log.append(n.NODE_STREAM, [new], expected=expected)
        except EventStoreError as error:
            raise NotRecorded(str(error)) from error
        self.registry.frontier.note(record)
        return record

    async def note(self, event: n.NodeEvent) -> None:
        """Record a fact about the node itself.

        Raises:
            NotRecorded: The log refused.
        """
        tag, data = n.encode_node_event(event)
        with self.recording.watched():
            await self.record(tag, data, self.own_origin())

    async def note_surely(self, event: n.NodeEvent) -> None:
        """Record a fact about the node itself, as soon as the log can."""
        await self.recording.until_recorded(partial(self.note, event))

    def own_origin(self) -> Origin:
        """The origin of what nobody asked for."""
        return Origin(correlation_id=self.ports.ids.new_id())

    async def hold(self, hold_id: str, spec: bytes, files: FdBundle) -> str:
        """Have the worker keep descriptors; returns why it could not, or an empty string.

        Ownership of ``files`` moves in.
        """
        if await self.link.hold(w.Hold(hold_id=hold_id, spec=spec), files):
            return ""
        return "the donated files cannot be kept: the worker does not answer, try again"

    async def probe(self, message: w.Kill) -> w.Killed | None:
        """Ask the worker whether a signal could be delivered; see :meth:`WorkerLink.probe`."""
        return await self.link.probe(message)

    async def release(self, hold_id: str) -> None:
        """Have the worker close what it keeps under that name, if anything."""
        with anyio.CancelScope(shield=True):
            await self.link.send(w.Release(hold_id=hold_id))

    async def release_unless_kept(self, sandbox: LiveSandbox, *hold_ids: str) -> None:
        """Have the worker close what it was given for a call that then did not come to be."""
        for hold_id in filter(None, hold_ids):
            if hold_id not in holds(sandbox.state):
                await self.release(hold_id)

    async def run_link(
        self, *, task_status: anyio.abc.TaskStatus[w.Welcome] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep the connection to the worker, until cancelled."""
        await self.link.run(self, task_status=task_status)

    # --- what the worker says --------------------------------------------------------------------

    async def worker_found(self, welcome: w.Welcome, sent: SentLaunches) -> None:
        """Settle every sandbox with what this worker knows, all of them side by side."""
        reached("worker.found")
        self.engines.learn(welcome.engines)
        await self.note_surely(
            n.WorkerStarted(
                identity=welcome.worker,
                engines=welcome.engines,
                capabilities=welcome.capabilities,
            )
        )
        doubt = ""
        if self.registry.all():
            doubt = await doubt_about(self.ports.log, welcome)
        known = frozenset(fact.launch_id for fact in welcome.launches)
        told = known.union(welcome.executions, welcome.saves)
        held = frozenset(welcome.held)
        settled: dict[str, list[str]] = {"interrupted": [], "lost": []}

        def plan(state: Sandbox) -> Resumption:
            known = told | sent.ids
            return resume(
                state,
                launches=known,
                held=held,
                boot_id=welcome.worker.boot_id,
                executions=known,
                saves=known,
                doubt=doubt,
            )

        async with anyio.create_task_group() as tasks:
            for sandbox in self.registry.all().values():
                tasks.start_soon(self._settle, sandbox, plan, settled)
        needed = frozenset[str]().union(
            *(holds(sandbox.state) for sandbox in self.registry.all().values())
        )
        for hold_id in sorted(held - needed):
            await self.link.send(w.Release(hold_id=hold_id))
        reached("recovery.settled")
        if doubt:
            await self.link.send(w.Retell())
        unknown = await self._end_unknown(welcome)
        await self.note_surely(
            n.RecoveryCompleted(
                adopted=tuple(sorted(known - set(unknown))),
                interrupted=tuple(sorted(settled["interrupted"])),
                lost=tuple(sorted(settled["lost"])),
                unknown=unknown,
                removed=(*welcome.leftovers, *self.ports.sweep(self.registry.all().keys())),
                doubt=doubt,
            )
        )
        # Not before: whoever settles this anew, should it end here, must find the same doubt.
        await self.link.send(w.Ack(seq=0, mark=self.log_mark(welcome.worker.boot_id)))

    def log_mark(self, boot_id: str) -> w.LogMark:
        """The newest record; what the worker forgets from now on has its outcome up to there."""
        newest = self.registry.frontier
        return w.LogMark(position=newest.position, leaf_hash=newest.leaf_hash, boot_id=boot_id)

    async def _end_unknown(self, welcome: w.Welcome) -> tuple[str, ...]:
        """End what runs and that this log does not say was started; returns the ids, sorted."""
        unknown = sorted(
            fact.launch_id
            for fact in welcome.launches
            if fact.phase in {"launching", "running"}
            and not self.registry.asked_for(fact.launch_id)
        )
        for launch_id in unknown:
            logger.warning("container.unknown launch_id=%s", launch_id)
            await self.link.send(w.Destroy(launch_id=launch_id))
        return tuple(unknown)

    async def _settle(
        self,
        sandbox: LiveSandbox,
        plan: Callable[[Sandbox], Resumption],
        settled: dict[str, list[str]],
    ) -> None:
        async def settle() -> None:
            lived = sandbox.lives
            with self.recording.watched():
                for report in await sandbox.settle(plan, self.own_origin(), self._runner.perform):
                    match report:
                        case c.ReportStartFailed(launch_id=launch_id):
                            settled["interrupted"].append(launch_id)
                        case c.ReportLost(launch_id=launch_id):
                            settled["lost"].append(launch_id)
                        case _:
                            pass
            await self._tell(sandbox, lived)

        await self.recording.until_recorded(settle)

    async def note_stop(self) -> None:
        """Record that the manager stops, if the log takes it: nobody is kept waiting for room."""
        try:
            await self.note(n.ManagerStopped(reason="asked to stop"))
        except NotRecorded as error:
            logger.warning("manager.stop_not_recorded reason=%s", error)

    async def worker_lost(self, reason: str) -> None:
        """Note it; the next worker's welcome settles the rest."""
        logger.warning("worker.lost reason=%s", reason)
        await self.note_surely(n.WorkerLost(reason=reason))

    async def take(self, outcomes: Sequence[w.Outcome], give_up: Callable[[], bool]) -> bool:
        """Record outcomes: in order within a sandbox, side by side across sandboxes."""
        queues: dict[int, tuple[LiveSandbox, list[c.Report]]] = {}
        for outcome in outcomes:
            report = to_report(outcome)
            key = next(
                (getattr(outcome, name) for name in OUTCOME_KEYS if hasattr(outcome, name)), ""
            )
            sandbox = self.registry.owner(key)
            if report is None or sandbox is None:
                logger.info("worker.outcome_unknown key=%s kind=%s", key, type(outcome).__name__)
                continue
            queues.setdefault(id(sandbox), (sandbox, []))[1].append(report)
        recorded: list[bool] = []

        async def take_in_order(sandbox: LiveSandbox, reports: Sequence[c.Report]) -> None:
            recorded.append(await self._take_in_order(sandbox, reports, give_up))

        if len(queues) == 1:  # nearly always, and a task costs more than what it would do
            (only,) = queues.values()
            return await self._take_in_order(*only, give_up)
        async with anyio.create_task_group() as tasks:
            for sandbox, reports in queues.values():
                tasks.start_soon(take_in_order, sandbox, reports)
        return all(recorded)

    def living(self) -> frozenset[int]:
        """Pids of the containers and executed processes whose end is not on record."""
        return self.registry.living()

    def _reap(self, sandbox: LiveSandbox, report: c.Report) -> None:
        if isinstance(report, c.ReportExited):
            found = sandbox.state.by_launch(report.launch_id)
            if found is not None and found.launched is not None:
                self.ports.workers.reap(found.launched.pid)
        elif isinstance(report, c.ReportProcessExited):
            found = sandbox.state.by_execution(report.exec_id)
            if found is not None and (pid := found.executions[report.exec_id].host_pid):
                self.ports.workers.reap(pid)

    async def _take_in_order(
        self, sandbox: LiveSandbox, reports: Sequence[c.Report], give_up: Callable[[], bool]
    ) -> bool:
        for report in reports:
            origin = sandbox.origin_of(report, self.own_origin())
            record = partial(self.handle, sandbox, report, origin)
            if not await self.recording.until_recorded(record, give_up):
                return False
            self._reap(sandbox, report)
        return True


@asynccontextmanager
async def open_node(
    ports: NodePorts,
    *,
    engine: str = AUTO,
    started: n.ManagerStarted,
    snapshot_events: int = SNAPSHOT_EVENTS,
) -> AsyncIterator[Node]:
    """Replay the log, find or start the worker, settle what was under way, and serve.

    A snapshot is written every ``snapshot_events`` events and on leaving, if there is a place for
    snapshots.

    Raises:
        EventStoreError: The log cannot be read or written.
        WorkerGone: No worker can be started.
        NoEngine: The wanted engine does not work here.
    """
    node = Node(ports, engine)
    await node.registry.load()
    await node.note(started)
    async with _snapshots_kept(node, snapshot_events), anyio.create_task_group() as tasks:
        tasks.start_soon(node.recording.until_failed)
        tasks.start_soon(node.recording.pay)
        await tasks.start(node.run_link)
        node.engines.chosen()
        try:
            yield node
        finally:
            with anyio.CancelScope(shield=True):
                await node.note_stop()
            node.link.leave()
            tasks.cancel_scope.cancel()


def _snapshots_kept(node: Node, events: int) -> AbstractAsyncContextManager[None]:
    """Write snapshots while this lasts, if there is a place for them."""
    if node.ports.snapshots is None:
        return nullcontext()
    registry = node.registry
    return SnapshotKeeper(
        node.ports.snapshots,
        events,
        registry.frontier,
        registry.folded,
        registry.snapshot_position,
    ).running()
