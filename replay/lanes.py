"""What each container was when: stretches of one status, from the fold that the service uses.

A lane is a container's; a stretch of it lasts from the event that brought its status to the one
that ended it, or to the end of what was looked at.
"""

from msgspec import Struct

from eventstore import EventLog, RecordedEvent
from manager.domain.state import Container, Sandbox
from manager.schema.node_fold import STREAM_PREFIX, NodeFold
from manager.schema.node_snapshot import advance


class Stretch(Struct, frozen=True, kw_only=True):
    """One status of one container.

    Attributes:
        sandbox: Id of its sandbox.
        container: Its id; the sandbox's own for the root container.
        status: As of :data:`manager.domain.state.ContainerStatus`.
        first: Position of the event that brought it; before what was looked at if the window began
            while it lasted.
        began_ns: When that was.
        last: Position of the event that ended it; None while it lasts.
        ended_ns: When that was.
    """

    sandbox: str
    container: str
    status: str
    first: int
    began_ns: int
    last: int | None = None
    ended_ns: int | None = None


class LaneTracker:
    """Follows a fold, event by event.

    Args:
        log: The log, for sandboxes that left the fold before it began.
        fold: The state before the first event.
        began_ns: When that was.
        sandbox: The one whose lanes are wanted; empty for all.

    Attributes:
        running: How many containers are running now.
    """

    def __init__(self, log: EventLog, fold: NodeFold, began_ns: int, sandbox: str = "") -> None:
        self.running = 0
        self._sandbox = sandbox
        self._log = log
        self._fold = fold
        self._open: dict[tuple[str, str], Stretch] = {}
        self._seen: dict[str, Sandbox] = {}
        for sandbox_id, folded in fold.live.items():
            if sandbox not in {"", sandbox_id}:
                continue
            self._seen[sandbox_id] = folded.state
            for found in folded.state.containers.values():
                if found.exists:
                    self._begin(sandbox_id, found, fold.position, began_ns)

    async def take(self, record: RecordedEvent) -> list[Stretch]:
        """Fold the next event of the log, of whatever stream.

        Returns:
            The stretches that it ended.

        Raises:
            EventFormatError: The event is of a newer program, or damaged; the text names it.
            EventStoreError: The log cannot be read.
        """
        if self._fold.lacks(record):
            await advance(self._fold, self._log, until=record.position)
        else:
            self._fold.apply(record)
        sandbox_id = record.stream.removeprefix(STREAM_PREFIX)
        if sandbox_id == record.stream or self._sandbox not in {"", sandbox_id}:
            return []
        folded = self._fold.live.get(sandbox_id)
        after = None if folded is None else folded.state
        before = self._seen.pop(sandbox_id, None)
        if after is not None:
            self._seen[sandbox_id] = after
        return self._change(sandbox_id, before, after, record)

    def _change(
        self, sandbox_id: str, before: Sandbox | None, after: Sandbox | None, record: RecordedEvent
    ) -> list[Stretch]:
        old = {} if before is None else before.containers
        new = {} if after is None else after.containers
        ended: list[Stretch] = []
        if old is new:
            return ended
        for cid in old.keys() | new.keys():
            was, now = old.get(cid), new.get(cid)
            if was is now or (was and now and was.status == now.status):
                continue
            if found := self._open.pop((sandbox_id, cid), None):
                self.running -= found.status == "running"
                ended.append(_ended(found, record))
            if now is not None and now.exists:
                self._begin(sandbox_id, now, record.position, record.recorded_at_ns)
        return sorted(ended, key=lambda each: each.container)

    def _begin(self, sandbox_id: str, found: Container, position: int, began_ns: int) -> None:
        self.running += found.status == "running"
        self._open[sandbox_id, found.cid] = Stretch(
            sandbox=sandbox_id,
            container=found.cid,
            status=found.status,
            first=position,
            began_ns=began_ns,
        )

    def rest(self) -> list[Stretch]:
        """The stretches that still last."""
        return list(self._open.values())


def _ended(found: Stretch, record: RecordedEvent) -> Stretch:
    return Stretch(
        sandbox=found.sandbox,
        container=found.container,
        status=found.status,
        first=found.first,
        began_ns=found.began_ns,
        last=record.position,
        ended_ns=record.recorded_at_ns,
    )
