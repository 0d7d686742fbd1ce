"""An event loop without time and without chance: a seed decides who runs next.

One callback runs per round, drawn from all that could run; when none can, the clock jumps to the
next timer. So a minute passes in a millisecond, and a seed gives the same history every time.
"""

import asyncio
import gc
import random
import selectors
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import anyio


class StuckError(AssertionError):
    """Nothing can ever happen again, and somebody still waits."""


class NoTimeSelector(selectors.SelectSelector):
    """Waits for nothing: whoever would wait for a timer finds that it is due."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise StuckError("everybody waits, and nothing is due")
        self.now += max(timeout, 0.0)
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Virtual time and a seeded scheduler. Descriptors cannot be waited for, nor can threads."""

    def __init__(self, seed: int) -> None:
        self._clock = NoTimeSelector()
        super().__init__(self._clock)
        self.dice = random.Random(f"scheduler {seed}")
        self.steps = 0
        self._alarms: list[tuple[int, Callable[[], None]]] = []
        self._numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._tasks = 0
        self.set_task_factory(self._numbered)

    def time(self) -> float:
        return self._clock.now

    def jump(self, seconds: float) -> None:
        """The machine slept, and all timers are late."""
        self._clock.now += seconds

    def after_steps(self, steps: int, do: Callable[[], None]) -> None:
        """Do something between two steps of whoever runs."""
        self._alarms.append((self.steps + steps, do))

    def _numbered(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **how: Any
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=loop, **how)
        self._tasks += 1
        self._numbers[task] = self._tasks
        return task

    def _run_once(self) -> None:
        self.steps += 1
        for alarm in [each for each in self._alarms if each[0] <= self.steps]:
            self._alarms.remove(alarm)
            alarm[1]()
        ready = self._ready
        if len(ready) < 2:
            super()._run_once()
            return
        chosen = self._choose()
        rest = [handle for handle in ready if handle is not chosen]
        ready.clear()
        ready.append(chosen)
        super()._run_once()
        ready.extendleft(reversed(rest))

    def _choose(self) -> asyncio.Handle:
        """Any task may be next; callbacks that belong to none stay in their order."""
        tasks, others = [], []
        for handle in self._ready:
            task = getattr(handle._callback, "__self__", None)
            if isinstance(task, asyncio.Task):
                # Sets of tasks have an order that depends on addresses: numbers do not.
                tasks.append((self._numbers[task], handle))
            else:
                others.append(handle)
        index = self.dice.randrange(len(self._ready))
        if index >= len(tasks):
            return others[0]
        tasks.sort(key=_number)
        return tasks[index][1]


def _number(numbered: tuple[int, asyncio.Handle]) -> int:
    return numbered[0]


async def _inline(do: Callable[..., Any], *args: Any, **_how: Any) -> Any:
    await anyio.lowlevel.checkpoint()
    result = do(*args)
    await anyio.lowlevel.checkpoint()
    return result


def run_simulated(main: Callable[[SimulatedLoop], Coroutine[Any, Any, Any]], seed: int) -> Any:
    """Run to the end, with no thread but this one."""
    loops: list[SimulatedLoop] = []

    def make() -> SimulatedLoop:
        loops.append(SimulatedLoop(seed))
        loops[0].set_exception_handler(note)
        return loops[0]

    async def whole() -> Any:
        return await main(loops[0])

    failures: list[BaseException] = []

    def note(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What fails in a callback fails in nobody's task."""
        if "handle" in context:
            failures.append(context["exception"])

    in_thread = anyio.to_thread.run_sync
    anyio.to_thread.run_sync = _inline
    # A collection may close an asynchronous generator, which is one more task.
    gc.disable()
    try:
        result = anyio.run(whole, backend_options={"loop_factory": make})
    finally:
        gc.enable()
        anyio.to_thread.run_sync = in_thread
    for failure in failures:
        raise failure
    return result
