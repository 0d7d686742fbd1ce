"""What must be recorded is, as soon as the log can; a log that has failed ends the service.

A log without room, or held by a reader, goes on by itself one day: what a worker has said, and what
a service finds, waits for that. A log whose disk has failed takes nothing any more until it is
opened anew, by the next service.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import anyio

from eventstore import StorePoisoned
from manager.application.errors import NotRecorded

RECORD_RETRY_PAUSES_S: Final = (0.05, 0.2, 1.0, 5.0)
"""Pauses before what could not be stored is tried again; the last one repeats."""

logger = logging.getLogger(__name__)


def _never() -> bool:
    return False


class Recording:
    """Tries again, and notices a log that has failed."""

    def __init__(self) -> None:
        self._failure: StorePoisoned | None = None
        self._failed = anyio.Event()
        self._owed: deque[Callable[[], Awaitable[object]]] = deque()
        self._owes = anyio.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look at why the log refuses, if it does; what is raised within is raised on."""
        try:
            yield
        except NotRecorded as error:
            if isinstance(error.__cause__, StorePoisoned):
                self._failure = error.__cause__
                self._failed.set()
            raise

    async def until_recorded(
        self, do: Callable[[], Awaitable[object]], give_up: Callable[[], bool] = _never
    ) -> bool:
        """Do something until the log takes it; returns whether it has.

        Args:
            do: May be done again after it has raised NotRecorded.
            give_up: Asked after each attempt; once it says so, there are no more.

        Cancellation: safe between attempts.
        """
        attempt = 0
        while True:
            try:
                await do()
            except NotRecorded as error:
                logger.error("record.refused attempt=%d reason=%s", attempt, error)  # noqa: TRY400 - expected
                if give_up() or self._failure is not None:
                    return False
                pause = min(attempt, len(RECORD_RETRY_PAUSES_S) - 1)
                await anyio.sleep(RECORD_RETRY_PAUSES_S[pause])
                attempt += 1
            else:
                return True

    def owe(self, do: Callable[[], Awaitable[object]]) -> None:
        """Have something recorded later that nobody waits for: :meth:`pay` does it."""
        self._owed.append(do)
        self._owes.set()

    async def pay(self) -> NoReturn:
        """Record what is owed, in order, until cancelled; what is left then, recovery settles."""
        while True:
            while self._owed:
                await self.until_recorded(self._owed[0])
                self._owed.popleft()
            self._owes = anyio.Event()
            await self._owes.wait()

    async def until_failed(self) -> NoReturn:
        """Wait until the log has failed for good.

        Raises:
            StorePoisoned: It has: end, and have the service started again.
        """
        await self._failed.wait()
        assert self._failure is not None, "set before the event"
        raise self._failure
