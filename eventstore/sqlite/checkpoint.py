"""When the WAL is moved into the database file.

Only the writer's connection does it, between two batches: SQLite before 3.51.3 can corrupt a log
if two connections write or checkpoint at the same time. It never waits for a
reader; if one keeps the WAL from beginning anew until it is over a limit, appends are refused until
that reader ends, for a disk that is full would hurt more than the service.

Source: sqlite.org/wal.html, section 11 (the WAL-reset bug).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from eventstore.errors import StoreHeld
from eventstore.sqlite.completeness import Moved
from eventstore.sqlite.wal_readers import wal_readers
from eventstore.submission import Submission

WAL_BYTES_MAX: Final = 4 * 1024 * 1024
"""Bytes written to the WAL after which a busy log stops for a checkpoint, by estimate.

About what SQLite takes by itself. To sync what overwrites the WAL is cheaper than to sync what
makes it longer, so the sooner it begins anew the better.
"""
IDLE_S: Final = 1.0
"""A log that was not appended to for so long is checkpointed."""
PAGE_BYTES: Final = 4096
COMMIT_PAGES_MIN: Final = 2
"""Pages that a commit writes beside those of payloads and of its streams' places in the index."""


class Checkpoints:
    """Decides when to checkpoint.

    Args:
        checkpoint: Does it, told how it went the last time. Must not raise.
        path: The log's file.
    """

    def __init__(self, checkpoint: Callable[[Moved], Awaitable[Moved]], path: str) -> None:
        self._checkpoint = checkpoint
        self._path = path
        self._moved = Moved(all=True)
        self._written_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._running: asyncio.Task[None] | None = None

    def note_commit(self, batch: Sequence[Submission]) -> None:
        """Count a commit; if none follows for a while, the log is checkpointed."""
        self._stop_timer()
        pages = COMMIT_PAGES_MIN + len({submission.stream for submission in batch})
        payload_bytes = sum(submission.size_bytes for submission in batch)
        self._written_bytes += pages * PAGE_BYTES + payload_bytes
        self._timer = asyncio.get_running_loop().call_later(IDLE_S, self._when_idle)

    async def run_if_due(self) -> None:
        """Checkpoint if the WAL has grown enough. Called between two batches.

        Raises:
            StoreHeld: It has grown too much, and a reader keeps it from beginning anew.
        """
        if self._written_bytes > WAL_BYTES_MAX or self._moved.held_bytes:
            await self._run()
        if self._moved.held_bytes:
            raise StoreHeld(self._path, self._moved.held_bytes, wal_readers(self._path))

    async def close(self) -> None:
        """End what is under way. SQLite checkpoints by itself when the last connection closes."""
        self._stop_timer()
        if self._running is not None:
            await asyncio.wait([self._running])

    def _when_idle(self) -> None:
        self._timer = None
        self._running = asyncio.create_task(self._run(), name="eventstore-checkpoint")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _run(self) -> None:
        # From here on, even if readers keep the WAL from beginning anew: to try again after every
        # commit would cost a sync each time and move little.
        self._written_bytes = 0
        self._moved = await self._checkpoint(self._moved)
