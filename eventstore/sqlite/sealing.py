"""When the log is sealed: in a task of its own, which no append waits for.

As a checkpoint of the tree needs nothing but what is stored, sealing keeps no queue: it looks at
how far the log has come, takes in what is new and signs. A log that is far ahead of its seal (one
that was never sealed before) is taken in by pieces, with room for appends between them.
"""

import asyncio
from collections.abc import Awaitable, Callable

from eventstore.seal_policy import SealPolicy


class Sealing:
    """Seals a log as its policy says.

    Args:
        policy: When.
        head: The last stored position.
        sealed: The last position that is covered.
        seal: Does it, told whether to wait for the disk; returns the last covered position. Must
            not raise.
    """

    def __init__(
        self,
        policy: SealPolicy,
        head: Callable[[], int],
        sealed: int,
        seal: Callable[[bool], Awaitable[int]],
    ) -> None:
        self._policy = policy
        self._head = head
        self._sealed = sealed
        self._seal = seal
        self._timer: asyncio.TimerHandle | None = None
        self._running: asyncio.Task[None] | None = None
        self._closed = False

    def note_head(self) -> None:
        """Look at how far the log has come: at open, and after each commit."""
        waiting = self._head() - self._sealed
        if self._closed or waiting <= 0 or self._running is not None:
            return
        if waiting >= self._policy.events:
            self._begin()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._policy.seconds, self._begin)

    async def close(self) -> None:
        """Seal what is left, and wait for the disk."""
        self._closed = True
        self._stop_timer()
        if self._running is not None:
            await asyncio.wait([self._running])
        if self._head() > self._sealed:
            await self._seal(True)

    def _begin(self) -> None:
        self._stop_timer()
        self._running = asyncio.create_task(self._run(), name="eventstore-seal")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _run(self) -> None:
        before = self._sealed
        self._sealed = await self._seal(False)
        self._running = None
        if self._sealed > before:  # else it failed: the next commit or the close tries again
            self.note_head()
