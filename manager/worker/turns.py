"""Whose turn it is to be started: a few at a time, since more of them only make each slower.

What waits for a client's archive, or reads an image, takes as long as these do. It has a lane of
its own, so that none of it holds up those that are started in milliseconds.
"""

import os
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from msgspec import Struct, field

from manager.schema import worker as w
from manager.urpc.fds import FdBundle
from manager.worker.launch import Launch
from manager.worker.loop import Loop

LAUNCHES_IN_FLIGHT_MAX: Final = 2 * (os.cpu_count() or 1)
"""Starts under way at a time."""

SLOW_LAUNCHES_IN_FLIGHT_MAX: Final = 8 * (os.cpu_count() or 1)
"""Starts with an archive or from an image under way at a time, beside the others."""


class _Lane(Struct, kw_only=True):
    limit: int
    in_flight: int = 0
    queue: deque[tuple[Launch, FdBundle]] = field(default_factory=deque)


class Turns:
    """Launches that wait for their turn, and how many have theirs.

    Args:
        loop: Gives the next turn.
        begin: Called with a launch whose turn it is; ownership of its descriptors moves out.
    """

    def __init__(self, loop: Loop, begin: Callable[[Launch, FdBundle], None]) -> None:
        self._loop = loop
        self._begin = begin
        self._quick = _Lane(limit=LAUNCHES_IN_FLIGHT_MAX)
        self._slow = _Lane(limit=SLOW_LAUNCHES_IN_FLIGHT_MAX)

    def wait(self, launch: Launch, fds: FdBundle) -> None:
        """Begin it when its turn comes, which may be now; ownership of `fds` moves in."""
        lane = self._lane(launch.command)
        lane.queue.append((launch, fds))
        self._next(lane)

    def withdraw(self, launch: Launch) -> FdBundle | None:
        """Take a launch out that still waits; it has its turn with that, to say that it failed.

        Returns:
            Its descriptors, owned by the caller; `None` if it does not wait.
        """
        lane = self._lane(launch.command)
        for entry in lane.queue:
            if entry[0] is launch:
                lane.queue.remove(entry)
                lane.in_flight += 1
                return entry[1]
        return None

    def settled(self, command: w.Launch) -> None:
        """Give the next one its turn: this one has started or failed."""
        lane = self._lane(command)
        lane.in_flight -= 1
        # Not from here: a row of failures would become a stack of calls.
        self._loop.call_later(0, partial(self._next, lane))

    def _next(self, lane: _Lane) -> None:
        while lane.queue and lane.in_flight < lane.limit:
            launch, fds = lane.queue.popleft()
            lane.in_flight += 1
            self._begin(launch, fds)

    def _lane(self, command: w.Launch) -> _Lane:
        slow = command.plan.upper_tar_fd is not None or command.held_image
        return self._slow if slow else self._quick
