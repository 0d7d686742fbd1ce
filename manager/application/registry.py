"""Every sandbox that lives, and which of them a launch or a signal belongs to."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from eventstore import EventLog, RecordedEvent, SnapshotFiles
from manager.application.live_sandbox import LiveSandbox
from manager.application.ports import Ids
from manager.application.snapshot_keeper import Frontier
from manager.domain.state import ALIVE
from manager.schema.node_fold import STREAM_PREFIX, UNKNOWN, FoldedSandbox
from manager.schema.node_snapshot import open_fold


class Registry:
    """Sandboxes by id. Deleted ones are forgotten here and found again in the log."""

    def __init__(self, log: EventLog, ids: Ids, snapshots: SnapshotFiles | None = None) -> None:
        self._log = log
        self._ids = ids
        self._snapshots = snapshots
        self._live: dict[str, LiveSandbox] = {}
        self._borrowers: Counter[str] = Counter()
        self._owners: dict[str, str] = {}
        self._keys: dict[str, set[str]] = {}
        self.frontier = Frontier(0)
        self.snapshot_position = 0

    async def load(self) -> None:
        """Replay the log, from its newest snapshot on.

        Raises:
            EventStoreError: The log cannot be read.
            EventFormatError: An event is of a newer program, or damaged; the text names it.
        """
        fold = await open_fold(self._log, self._snapshots, discard=True)
        self.frontier = Frontier(fold.position)
        self.snapshot_position = fold.began_at
        for sandbox_id, folded in fold.live.items():
            self._live[sandbox_id] = self._new(sandbox_id, folded)

    def folded(self) -> list[tuple[str, FoldedSandbox]]:
        """What is folded of every live sandbox at this moment."""
        return [(key, sandbox.folded) for key, sandbox in self.all().items()]

    def get(self, sandbox_id: str) -> LiveSandbox | None:
        """The sandbox, if it lives."""
        sandbox = self._live.get(sandbox_id)
        return sandbox if sandbox is not None and sandbox.lives else None

    def all(self) -> dict[str, LiveSandbox]:
        """Every live sandbox by id, in order of creation."""
        return {key: sandbox for key, sandbox in self._live.items() if sandbox.lives}

    @asynccontextmanager
    async def borrow(self, sandbox_id: str) -> AsyncIterator[LiveSandbox]:
        """The sandbox, read from its stream if it is not live (never created, or deleted).

        While anybody has borrowed it there is only this one object for it; afterwards it stays if
        it lives.
        """
        sandbox = self._live.get(sandbox_id)
        if sandbox is None:
            found = self._new(sandbox_id)
            async for record in self._log.read(STREAM_PREFIX + sandbox_id):
                found.replay(record)
            sandbox = self._live.setdefault(sandbox_id, found)
        self._borrowers[sandbox_id] += 1
        try:
            yield sandbox
        finally:
            self._borrowers[sandbox_id] -= 1
            self.drop_if_gone(sandbox_id)

    def drop_if_gone(self, sandbox_id: str) -> None:
        """Drop a sandbox that is deleted or never came to be, unless somebody has borrowed it."""
        sandbox = self._live.get(sandbox_id)
        if sandbox is None or self._borrowers[sandbox_id] or sandbox.lives:
            return
        del self._live[sandbox_id]
        del self._borrowers[sandbox_id]
        for key in self._keys.pop(sandbox_id, ()):
            del self._owners[key]

    def owner(self, key: str) -> LiveSandbox | None:
        """The sandbox that a launch id or kill id belongs to."""
        return self._live.get(self._owners.get(key, ""))

    def asked_for(self, launch_id: str) -> bool:
        """Whether a launch is of a sandbox that lives, and was to begin, as far as the log goes."""
        sandbox = self.owner(launch_id)
        found = sandbox.state.by_launch(launch_id) if sandbox is not None else None
        return found is not None and found.status != "creating"

    def living(self) -> frozenset[int]:
        """Pids of the containers and executed processes whose end is not on record."""
        containers = [
            container
            for sandbox in self.all().values()
            for container in sandbox.state.containers.values()
        ]
        inits = (
            container.launched.pid
            for container in containers
            if container.launched is not None and container.status in ALIVE
        )
        executed = (
            execution.host_pid
            for container in containers
            for execution in container.executions.values()
            if execution.status == "running"
        )
        return frozenset((*inits, *executed))

    def _new(self, sandbox_id: str, folded: FoldedSandbox = UNKNOWN) -> LiveSandbox:
        def note(record: RecordedEvent, key: str) -> None:
            self.frontier.note(record)
            if key:
                self._own(sandbox_id, key)

        for key in folded.effect_keys():
            self._own(sandbox_id, key)
        return LiveSandbox(sandbox_id, self._log, self._ids, note, folded)

    def _own(self, sandbox_id: str, key: str) -> None:
        self._owners[key] = sandbox_id
        self._keys.setdefault(sandbox_id, set()).add(key)
