"""Ending what was executed in a container, for an image that is to be without it."""

import signal
from collections.abc import Iterable
from typing import Final

from manager.schema.observation import ProcessFacts
from manager.worker.delivery import Target
from manager.worker.launch import Launch
from manager.worker.loop import Pause, Steps

ENDED_POLL_SECONDS: Final = 0.01
ENDED_ROUNDS_MAX: Final = 500
"""How often, and how many times, to look whether what was killed has ended."""


def end_executed(launch: Launch, numbers: frozenset[int]) -> Steps[bool]:
    """Kill what was executed in a container, with its children; init and its children go on.

    A child whose parent had left it before is nobody's but init's, and goes on.

    Args:
        launch: The container.
        numbers: Of its PID namespace: those of what was executed.

    Returns:
        Whether their end was seen.
    """
    stopped: set[int] = set()
    # They are stopped before any is killed, so that none forks while the others are looked for.
    while more := descendants(numbers, (yield from launch.processes(details=False))) - stopped:
        for number in more:
            yield from launch.signal(signal.SIGSTOP, Target(pid=number))
        stopped |= more
    for number in stopped:
        yield from launch.signal(signal.SIGKILL, Target(pid=number))
    for _ in range(ENDED_ROUNDS_MAX):
        if not launch.executing:
            return True
        yield Pause(seconds=ENDED_POLL_SECONDS)
    return False


def descendants(numbers: frozenset[int], processes: Iterable[ProcessFacts]) -> set[int]:
    """Those processes, as far as they are there, and everybody who descends from them."""
    children: dict[int, list[int]] = {}
    found = []
    for process in processes:
        children.setdefault(process.ppid, []).append(process.pid)
        if process.pid in numbers:
            found.append(process.pid)
    for number in found:  # grows on the way: children of children
        found.extend(child for child in children.get(number, ()) if child not in found)
    return set(found)
