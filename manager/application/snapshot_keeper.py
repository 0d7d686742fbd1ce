"""Writes snapshots of the live sandboxes beside the appends, never in their way.

The live states are immutable, so a snapshot is a matter of holding on to them at a moment when they
are exactly what the log says up to one position; the rest happens in a thread.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio
import anyio.to_thread

from eventstore import RecordedEvent, Snapshot, SnapshotFiles, SnapshotUnusable
from manager.schema.node_fold import FoldedSandbox
from manager.schema.node_snapshot import encode_sandboxes

SNAPSHOT_STOP_EVENTS: Final = 1_000
"""Fewer events than that since the last snapshot are not worth one at stop."""

logger = logging.getLogger(__name__)

Live = Callable[[], list[tuple[str, FoldedSandbox]]]


class Frontier:
    """Up to where the log is in the live states.

    Appends come back side by side, so that a later record may be folded before an earlier one: the
    states then belong to no position at all. As every record is counted once, and positions have no
    gaps, that is over when as many were counted as the highest position says.
    """

    def __init__(self, position: int) -> None:
        self.position = position
        self.leaf_hash = b""
        self._counted = position
        self._awaited = 0
        self._arrived = anyio.Event()

    @property
    def whole(self) -> bool:
        """Whether the live states hold every record up to :attr:`position`, and no other."""
        return self._counted == self.position

    def note(self, record: RecordedEvent) -> None:
        """Count a record that is folded by now, or that bears on no sandbox."""
        self._counted += 1
        if record.position > self.position:
            self.position, self.leaf_hash = record.position, record.leaf_hash
        if self.position >= self._awaited and self.whole:
            self._arrived.set()

    async def whole_from(self, position: int) -> None:
        """Wait until the live states are whole at a position or behind it; for one who waits."""
        self._awaited = position
        while self.position < position or not self.whole:
            self._arrived = anyio.Event()
            await self._arrived.wait()


class SnapshotKeeper:
    """Writes a snapshot now and then, and one at stop.

    Args:
        files: Where to.
        events: After so many events.
        frontier: Up to where the states are folded.
        live: What to keep, at this very moment.
        saved: The position of the newest snapshot that there is, 0 if there is none.
    """

    def __init__(
        self, files: SnapshotFiles, events: int, frontier: Frontier, live: Live, saved: int
    ) -> None:
        self._files = files
        self._events = events
        self._frontier = frontier
        self._live = live
        self._saved = saved

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write snapshots while this lasts, and the last one when nothing is appended any more."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.run)
            yield
            tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await self.stop()

    async def run(self) -> None:
        """Write snapshots until cancelled; one that is under way is brought to its end."""
        while True:
            await self._frontier.whole_from(self._saved + self._events)
            await self._save()

    async def stop(self) -> None:
        """Write the last one, if that is worth it and the states are whole."""
        due = min(self._events, SNAPSHOT_STOP_EVENTS)
        if self._frontier.position - self._saved >= due and self._frontier.whole:
            await self._save()

    async def _save(self) -> None:
        position, leaf_hash, live = self._frontier.position, self._frontier.leaf_hash, self._live()
        self._saved = position

        def write() -> None:
            body = encode_sandboxes(live)
            self._files.save(Snapshot(position=position, leaf_hash=leaf_hash, body=body))

        try:
            with anyio.CancelScope(shield=True):  # else it would count as written and not be
                await anyio.to_thread.run_sync(write)
        except SnapshotUnusable as error:
            logger.warning("snapshot.not_written path=%s reason=%s", error.path, error.problem)
