"""Group commit: whoever waits while a transaction is being synced goes into the next one together.

There is no timer. An append to an idle log is committed at once; the sync of that commit, a few
hundred microseconds, is the window in which the next batch gathers.

asyncio on purpose, like the SQLite driver under it: the queue is drained by a task of its own,
which no caller's cancellation can reach.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import anyio

from eventstore.byte_budget import ByteBudget
from eventstore.envelope import RecordedEvent
from eventstore.errors import EventStoreError, StoreClosed
from eventstore.limits import BATCH_BYTES_MAX, BATCH_EVENTS_MAX, PENDING_BYTES_MAX
from eventstore.submission import Submission

Records: TypeAlias = tuple[RecordedEvent, ...]
Outcome: TypeAlias = Records | EventStoreError
"""What became of one append: its records, durable now, or why it was rejected."""

Commit: TypeAlias = Callable[[Sequence[Submission]], Awaitable[Sequence[Outcome]]]
"""Make a batch durable: one outcome for each append. An exception means that none was stored."""


class GroupCommit:
    """Appends on their way into a log.

    Args:
        commit: Called with batches, one at a time, in the order of submission.
        pending_bytes_max: Bytes of all appends that are under way; beyond, callers wait.
    """

    def __init__(self, commit: Commit, *, pending_bytes_max: int = PENDING_BYTES_MAX) -> None:
        self._commit = commit
        self._budget = ByteBudget(pending_bytes_max)
        self._queue: deque[tuple[Submission, asyncio.Future[Records]]] = deque()
        self._drain: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, submission: Submission) -> Records:
        """Have one append committed with whatever else is waiting.

        Raises:
            StoreClosed: Closed before the append was queued.
            EventStoreError: What became of it.

        Cancellation: as :meth:`EventLog.append`.
        """
        await self._budget.reserve(submission.size_bytes)
        if self._closed:
            self._budget.release(submission.size_bytes)
            raise StoreClosed
        answer: asyncio.Future[Records] = asyncio.get_running_loop().create_future()
        self._queue.append((submission, answer))
        if self._drain is None:
            self._drain = asyncio.create_task(self._drain_queue(), name="eventstore-group-commit")
        with anyio.CancelScope(shield=True):
            return await answer
        raise AssertionError("nobody cancels this scope, so its body always returns or raises")

    async def close(self) -> None:
        """Take no more appends; returns when those that are queued are answered."""
        self._closed = True
        if self._drain is not None:
            await asyncio.wait([self._drain])

    async def _drain_queue(self) -> None:
        try:
            while self._queue:
                batch = self._next_batch()
                try:
                    await self._commit_batch(batch)
                finally:
                    for submission, answer in batch:
                        answer.cancel()
                        self._budget.release(submission.size_bytes)
        finally:
            self._drain = None
            for _, answer in self._queue:
                answer.cancel()
            self._queue.clear()

    def _next_batch(self) -> list[tuple[Submission, asyncio.Future[Records]]]:
        batch = [self._queue.popleft()]
        events = len(batch[0][0].events)
        size_bytes = batch[0][0].size_bytes
        while self._queue:
            submission = self._queue[0][0]
            events += len(submission.events)
            size_bytes += submission.size_bytes
            if events > BATCH_EVENTS_MAX or size_bytes > BATCH_BYTES_MAX:
                break
            batch.append(self._queue.popleft())
        return batch

    async def _commit_batch(
        self, batch: Sequence[tuple[Submission, asyncio.Future[Records]]]
    ) -> None:
        try:
            outcomes = await self._commit([submission for submission, _ in batch])
        except Exception as error:  # whatever it was, every caller must hear of it
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), outcome in zip(batch, outcomes, strict=True):
            if answer.done():
                continue
            if isinstance(outcome, EventStoreError):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)
