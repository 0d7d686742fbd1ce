"""Group commit: whoever waits while a transaction is being synced goes into the next one together.

There is no timer. An append to an idle log is committed at once; the sync of that commit, a few
hundred microseconds, is the window in which the next batch gathers.

asyncio on purpose, like the SQLite driver under it: the queue is drained by a task of its own,
which no caller's cancellation can reach.
"""

import asyncio
import math
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
        self._queue: deque[_Waiting] = deque()
        self._drain: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, submission: Submission) -> Records:
        """Have one append committed with whatever else is waiting.

        Raises:
            StoreClosed: Closed before the append was queued.
            EventStoreError: What became of it.

        Cancellation: as :meth:`EventLog.append`.
        """
        if not self._budget.take(submission.size_bytes):
            await self._budget.reserve(submission.size_bytes)
        if self._closed:
            self._budget.release(submission.size_bytes)
            raise StoreClosed
        waiting = _Waiting(submission, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._drain is None:
            self._drain = asyncio.create_task(self._drain_queue(), name="eventstore-group-commit")
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            # A scope of anyio asks again at the next wait; to shield each append from the start
            # would cost as much as all of its way to the writer.
            if anyio.current_effective_deadline() != -math.inf:
                raise
            with anyio.CancelScope(shield=True):
                return await waiting.ask_again()
            raise AssertionError("nobody cancels this scope: its body returns or raises") from None

    async def close(self) -> None:
        """Take no more appends; returns when those that are queued are answered."""
        self._closed = True
        if self._drain is not None:
            await asyncio.wait([self._drain])

    async def _drain_queue(self) -> None:
        try:
            while self._queue:
                await self._commit_batch(self._next_batch())
        finally:
            self._drain = None
            for waiting in self._queue:
                waiting.answer.cancel()
            self._queue.clear()

    def _next_batch(self) -> list["_Waiting"]:
        batch = [self._queue.popleft()]
        events = len(batch[0].submission.events)
        size_bytes = batch[0].submission.size_bytes
        while self._queue:
            submission = self._queue[0].submission
            events += len(submission.events)
            size_bytes += submission.size_bytes
            if events > BATCH_EVENTS_MAX or size_bytes > BATCH_BYTES_MAX:
                break
            batch.append(self._queue.popleft())
        return batch

    async def _commit_batch(self, batch: Sequence["_Waiting"]) -> None:
        submissions = [waiting.submission for waiting in batch]
        outcomes: Sequence[Records | Exception]
        try:
            outcomes = await self._commit(submissions)
        except Exception as error:
            outcomes = [error] * len(batch)
        except BaseException:
            for waiting in batch:
                waiting.answer.cancel()
            raise
        finally:
            self._budget.release(sum([submission.size_bytes for submission in submissions]))
        for waiting, outcome in zip(batch, outcomes, strict=True):
            waiting.settle(outcome)


class _Waiting:
    """An append in the queue, and the future that its caller waits for."""

    __slots__ = ("_outcome", "answer", "submission")

    def __init__(self, submission: Submission, answer: asyncio.Future[Records]) -> None:
        self.submission = submission
        self.answer = answer
        self._outcome: Records | Exception | None = None

    def settle(self, outcome: Records | Exception) -> None:
        """Answer; it is remembered for a caller that was interrupted and asks again."""
        self._outcome = outcome
        if self.answer.done():
            return
        if isinstance(outcome, Exception):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)

    def ask_again(self) -> asyncio.Future[Records]:
        """Make another future, as the first was cancelled with its caller's wait."""
        self.answer = self.answer.get_loop().create_future()
        if self._outcome is not None:
            self.settle(self._outcome)
        return self.answer
