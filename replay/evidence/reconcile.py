"""The state that a log gives against the machine: ghosts, orphans, drift.

A *ghost* is recorded and not there, an *orphan* is there and not recorded, *drift* is what is there
in another way than recorded. A service that runs changes both while they are looked at: what counts
is what is found twice.
"""

from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct

from eventstore import EventLog, RecordedEvent
from manager.domain.state import Container
from manager.schema.node_events import WorkerStarted, decode_node_event
from manager.schema.node_fold import NodeFold
from manager.schema.node_snapshot import advance, node_snapshots, open_fold
from replay.evidence.machine_view import CgroupView, MachineView
from replay.trail import Trail

Kind: TypeAlias = Literal["ghost", "orphan", "drift"]
Layer: TypeAlias = Literal["process", "cgroup", "mount", "socket", "engine", "record"]

LOOK_AGAIN_S: Final = 0.5
"""What was found is looked for again after so long: by then what was under way has settled."""
PAUSES_INSIDE: Final = frozenset({"runsc"})
"""Engines with a kernel of their own, which stops a container's processes; ours sees them run."""
RUNNING: Final = frozenset({"running", "paused"})


class Discrepancy(Struct, frozen=True, kw_only=True):
    """One difference.

    Attributes:
        kind: ghost, orphan or drift.
        layer: Where it was found.
        subject: ``SANDBOX`` or ``SANDBOX/CONTAINER``, or what carries no name of ours.
        text: One line for people.
    """

    kind: Kind
    layer: Layer
    subject: str
    text: str


class Reconciliation(Struct, frozen=True, kw_only=True):
    """What was compared.

    Attributes:
        position: Of the last event that is in the state.
        containers: Containers of the state that were looked for.
        service_runs: Whether the log has a writer.
        found: The differences.
        skipped: What could not be looked at, one sentence each.
    """

    position: int
    containers: int
    service_runs: bool
    found: tuple[Discrepancy, ...]
    skipped: tuple[str, ...]


async def reconcile(trail: Trail, view: MachineView) -> Reconciliation:
    """Compare the log's last state with the machine.

    Raises:
        EventStoreError: The log cannot be read.
        EventFormatError: An event is of a newer program, or damaged; the text names it.
        OSError: /proc cannot be read.

    Cancellation: safe.
    """
    fold = await open_fold(trail.log, node_snapshots(trail.path.parent))
    first = await _look(trail.log, view, fold)
    if not first.found:
        return first
    await anyio.sleep(LOOK_AGAIN_S)
    await advance(fold, trail.log)
    second = await _look(trail.log, view, fold)
    before = set(first.found)
    lasting = tuple(each for each in second.found if each in before)
    return msgspec.structs.replace(second, found=lasting)


async def _look(log: EventLog, view: MachineView, fold: NodeFold) -> Reconciliation:
    worker = await _worker(log)
    comparison = _Comparison(view, fold)
    await anyio.to_thread.run_sync(comparison.run, worker)
    await comparison.judge_cgroups(log)
    return Reconciliation(
        position=fold.position,
        containers=len(comparison.existing),
        service_runs=comparison.service_runs,
        found=tuple(comparison.found),
        skipped=tuple(comparison.skipped),
    )


async def _worker(log: EventLog) -> WorkerStarted | None:
    """The worker that was started, or found again, last."""
    record: RecordedEvent
    async for record in log.read("node", types=["worker.started"], backwards=True, limit=1):
        event = decode_node_event(record.type, record.data)
        if isinstance(event, WorkerStarted):
            return event
    return None


class _Comparison:
    """One look at everything."""

    def __init__(self, view: MachineView, fold: NodeFold) -> None:
        self._view = view
        self._fold = fold
        self.found: list[Discrepancy] = []
        self.skipped: list[str] = []
        self.service_runs = False
        self.existing: dict[str, tuple[str, Container]] = {}
        """Subject and container by engine id."""
        self._running: dict[str, tuple[str, Container, int]] = {}
        """Those of them whose process runs, with its pid."""
        self._strange_cgroups: dict[str, CgroupView] = {}
        for sandbox_id, folded in fold.live.items():
            for each in folded.state.containers.values():
                if each.exists and each.intent is not None:
                    subject = sandbox_id if each.cid == sandbox_id else f"{sandbox_id}/{each.cid}"
                    self.existing[each.intent.engine_id] = (subject, each)

    def run(self, worker: WorkerStarted | None) -> None:
        """Look at everything, on the caller's thread."""
        self.service_runs = self._view.service_runs()
        boot_id = self._view.boot_id()
        for subject, each in self.existing.values():
            self.found += self._process(subject, each, boot_id)
        self._cgroups()
        self._mounts(worker, boot_id)
        self._sockets()
        for engine_id, name in self._view.engine_states().items():
            if engine_id not in self.existing:
                self._note("orphan", "engine", engine_id, f"{name} belongs to no container")
        for engine_id in sorted(self._view.records() - self.existing.keys()):
            text = f"the worker has launch {engine_id} on record, the log has not"
            self._note("orphan", "record", engine_id, text)

    def _note(self, kind: Kind, layer: Layer, subject: str, text: str) -> None:
        self.found.append(Discrepancy(kind=kind, layer=layer, subject=subject, text=text))

    def _process(self, subject: str, found: Container, boot_id: str) -> Iterator[Discrepancy]:
        launched, intent = found.launched, found.intent
        if launched is None or intent is None:
            return
        ticks = self._view.start_ticks(launched.pid) if launched.boot_id == boot_id else None
        told = f"pid {launched.pid}"
        if found.status in RUNNING and ticks == launched.start_ticks:
            self._running[intent.engine_id] = (subject, found, launched.pid)
        if found.status in RUNNING and ticks != launched.start_ticks:
            why = f"{told} is gone" if ticks is None else f"{told} is another process by now"
            if launched.boot_id != boot_id:
                why = "the machine was started anew since"
            text = f"recorded as {found.status}, but {why}"
            yield Discrepancy(kind="ghost", layer="process", subject=subject, text=text)
        elif found.status == "stopped" and ticks == launched.start_ticks:
            text = f"recorded as stopped, but {told} runs"
            yield Discrepancy(kind="orphan", layer="process", subject=subject, text=text)
        for each in found.executions.values():
            if each.status == "running" and self._view.start_ticks(each.host_pid) is None:
                text = f"executed process {each.pid} is recorded as running, but is gone"
                yield Discrepancy(kind="ghost", layer="process", subject=subject, text=text)

    def _cgroups(self) -> None:
        groups = self._view.cgroups()
        if groups is None:
            self.skipped.append("Cgroups: no hierarchy is mounted here.")
            return
        for engine_id, (subject, found, pid) in self._running.items():
            group = groups.get(engine_id)
            if group is None:
                self._note("drift", "cgroup", subject, "runs without a cgroup of its own")
                continue
            if pid not in group.pids:
                text = f"pid {pid} is not in its cgroup"
                self._note("drift", "cgroup", subject, text)
            if _is_frozen_otherwise(group, found):
                how = "frozen" if group.frozen else "not frozen"
                text = f"recorded as {found.status}, but its processes are {how}"
                self._note("drift", "cgroup", subject, text)
        self._strange_cgroups = {
            engine_id: group
            for engine_id, group in groups.items()
            if engine_id not in self.existing
        }

    async def judge_cgroups(self, log: EventLog) -> None:
        """Tell those that this log once knew from those of other services of the machine."""
        if not self._strange_cgroups:
            return
        ours: set[str] = set()
        names = {engine_id: engine_id.encode() for engine_id in self._strange_cgroups}
        async for record in log.read():
            ours.update(name for name, text in names.items() if text in record.data)
        for name in sorted(ours):
            count = len(self._strange_cgroups[name].pids)
            text = f"cgroup {name} of a container that is gone has {count} processes"
            self._note("orphan", "cgroup", name, text)
        if others := len(self._strange_cgroups) - len(ours):
            self.skipped.append(
                f"{others} cgroups that this log has never named: those of other services."
            )

    def _mounts(self, worker: WorkerStarted | None, boot_id: str) -> None:
        if worker is None:
            self.skipped.append("Mounts: no worker was ever recorded.")
            return
        identity = worker.identity
        if (identity.boot_id, identity.start_ticks) != (
            boot_id,
            self._view.start_ticks(identity.pid),
        ):
            self.skipped.append("Mounts: the worker does not run.")
            return
        staged = self._view.staged(identity.pid)
        if staged is None:
            self.skipped.append("Mounts: those of the worker cannot be read; that takes its user.")
            return
        for engine_id in sorted(staged - self.existing.keys()):
            text = f"a file tree of launch {engine_id} is mounted, which the log has not"
            self._note("orphan", "mount", engine_id, text)
        for engine_id, (subject, _, _) in self._running.items():
            if engine_id not in staged:
                self._note("drift", "mount", subject, "its file tree is not on the worker's stage")

    def _sockets(self) -> None:
        sockets = self._view.sockets()
        for sandbox_id in sorted(sockets.keys() - self._fold.live.keys()):
            text = "has a socket's directory, but no such sandbox lives"
            self._note("orphan", "socket", sandbox_id, text)
        if not self.service_runs:
            self.skipped.append("Sockets of sandboxes: the service does not run.")
            return
        for sandbox_id in self._fold.live:
            if not sockets.get(sandbox_id):
                self._note("ghost", "socket", sandbox_id, "lives, but has no socket")


def _is_frozen_otherwise(group: CgroupView, found: Container) -> bool:
    """Whether a cgroup is frozen and its container not paused, or the other way round."""
    if group.frozen is None:
        return False
    paused = found.status == "paused"
    if paused and found.intent is not None and found.intent.engine in PAUSES_INSIDE:
        return False
    return group.frozen != paused
