"""The end of a control group: the kernel takes a moment for each of its steps."""

from collections.abc import Callable
from typing import Final

from manager.worker.cgroups import Cgroup
from manager.worker.loop import Pause, Steps

POLL_SECONDS: Final = 0.01
ROUNDS_MAX: Final = 500
"""How often, and how many times, to look whether a killed container's processes are gone."""


def until(done: Callable[[], bool]) -> Steps[None]:
    """Wait for what follows a container's end by itself, though not for ever."""
    for _ in range(ROUNDS_MAX):
        if done():
            return
        yield Pause(seconds=POLL_SECONDS)


def empty(cgroup: Cgroup) -> Steps[list[str]]:
    """Kill every process in it; returns which do not die."""
    for _ in range(ROUNDS_MAX):
        if not cgroup.kill_everyone():
            return []
        yield Pause(seconds=POLL_SECONDS)
    return [f"process {pid} does not die" for pid in cgroup.pids()]


def remove(cgroup: Cgroup) -> Steps[list[str]]:
    """Remove it; returns what cannot be. It stays busy for a moment after its last process."""
    for _ in range(ROUNDS_MAX):
        leftovers = cgroup.remove()
        if not leftovers:
            return []
        yield Pause(seconds=POLL_SECONDS)
    return cgroup.remove()
