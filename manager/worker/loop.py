"""A selectors loop that drives launches written as generators.

A launch reads from top to bottom and yields where it has to wait::

    child = spawn(...)
    if not (yield Pause(child=child, seconds=5)):
        ...it took too long...

What is awaited: a descriptor to become readable, a child process to be reaped, time to pass. The
value of the yield says whether it happened (True) or the time ran out (False).
"""

import heapq
import itertools
import logging
import selectors
import time
from collections.abc import Callable, Generator
from typing import Final, TypeAlias, TypeVar

from msgspec import Struct

logger = logging.getLogger(__name__)

T = TypeVar("T")

READ: Final = selectors.EVENT_READ
WRITE: Final = selectors.EVENT_WRITE


class Child:
    """A process that this one reaps. `status` is its raw wait status once it has been reaped.

    `numbers` are those of an inherited one, in each level of PID namespaces from ours down.
    """

    __slots__ = ("numbers", "pid", "reaped_at_ns", "status", "waiter")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None
        self.reaped_at_ns = 0
        self.numbers: tuple[int, ...] = ()
        self.waiter: Callable[[], None] | None = None

    def settle(self, status: int, at_ns: int) -> None:
        """Note the wait status and wake whoever waits for it."""
        self.status, self.reaped_at_ns = status, at_ns
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            waiter()


class Pause(Struct, frozen=True, kw_only=True):
    """What a task waits for: at most one of a descriptor and a child, and never for ever.

    Attributes:
        fd: A descriptor to become readable; lent.
        child: A process to be reaped.
        seconds: Longest wait; `None` only where waiting long is the point (a container's exit).
    """

    fd: int | None = None
    child: Child | None = None
    seconds: float | None = None


Steps: TypeAlias = Generator[Pause, bool, T]


class Timer:
    """A call to come; `cancel()` makes it not come."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forget the call; harmless when it was made already."""
        self.callback = None


class Loop:
    """One selector, timers, tasks. Not reentrant; everything runs on one thread."""

    def __init__(self) -> None:
        self._selector = selectors.EpollSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._stopping = False

    def watch(self, fd: int, callback: Callable[[], None], events: int = READ) -> None:
        """Call back whenever `fd` is ready; one callback per descriptor."""
        self._selector.register(fd, events, callback)

    def rewatch(self, fd: int, callback: Callable[[], None], events: int) -> None:
        """Change what `fd` is watched for."""
        self._selector.modify(fd, events, callback)

    def unwatch(self, fd: int) -> None:
        """Stop watching; before the descriptor is closed."""
        self._selector.unregister(fd)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call once, after at least `seconds`."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def start(self, steps: Steps[None]) -> "Task":
        """Run a task up to its first wait."""
        task = Task(self, steps)
        task.begin()
        return task

    def stop(self) -> None:
        """Let `run` return after the callbacks that are due."""
        self._stopping = True

    def run(self) -> None:
        """Serve until `stop`."""
        while not self._stopping:
            for key, _ in self._selector.select(self._seconds_to_next()):
                # An earlier callback of this round may have ended this watch.
                if self._selector.get_map().get(key.fd) == key:
                    key.data()
            self._run_timers()

    def close(self) -> None:
        """Close the selector."""
        self._selector.close()

    def _seconds_to_next(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0.0, self._timers[0][0] - time.monotonic())

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()


class Task:
    """A generator under way. Ends by returning; an exception that leaves it is a bug and logged."""

    def __init__(self, loop: Loop, steps: Steps[None]) -> None:
        self._loop = loop
        self._steps = steps
        self._pause: Pause | None = None
        self._timer: Timer | None = None
        self._running = False
        self.done = False

    def begin(self) -> None:
        """Run up to the first wait."""
        self._advance(lambda: next(self._steps))

    def throw(self, error: Exception) -> None:
        """Raise `error` where the task waits. The task may clean up, which may take more waits.

        Raises:
            RuntimeError: The task is not waiting; a programming error.
        """
        if self._running or self.done:
            raise RuntimeError("only a task that waits can be interrupted")
        self._disarm()
        self._advance(lambda: self._steps.throw(error))

    def _advance(self, step: Callable[[], Pause]) -> None:
        self._running = True
        try:
            pause = step()
        except StopIteration:
            self.done = True
        except Exception:
            self.done = True
            logger.exception("worker.task_crashed")
        else:
            self._arm(pause)
        finally:
            self._running = False

    def _arm(self, pause: Pause) -> None:
        self._pause = pause
        if pause.child is not None:
            if pause.child.status is not None:
                self._timer = self._loop.call_later(0, self._happened)
                return
            pause.child.waiter = self._happened
        if pause.fd is not None:
            self._loop.watch(pause.fd, self._happened)
        if pause.seconds is not None:
            self._timer = self._loop.call_later(pause.seconds, self._timed_out)

    def _disarm(self) -> None:
        pause, self._pause = self._pause, None
        if pause is not None and pause.child is not None:
            pause.child.waiter = None
        if pause is not None and pause.fd is not None:
            self._loop.unwatch(pause.fd)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _happened(self) -> None:
        self._disarm()
        self._advance(lambda: self._steps.send(True))

    def _timed_out(self) -> None:
        self._disarm()
        self._advance(lambda: self._steps.send(False))
