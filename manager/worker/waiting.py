"""Waiting for the end of a process, as its parent or as a stranger."""

import time
from typing import Final

from manager.kernel import pidfd
from manager.worker.engine import Running
from manager.worker.exit_report import ExitReport, nobody_knows
from manager.worker.loop import Pause, Steps
from manager.worker.processes import Processes

REAPED_POLL_SECONDS: Final = 0.02
REAPED_ROUNDS_MAX: Final = 250
"""How often, and how many times, to ask whether init's new parent has reaped it."""

ZOMBIE_ROUNDS_MAX: Final = 5
"""The same for one whose status stands in /proc already: its parent may never reap it."""

RELAY_SECONDS: Final = 1.0
"""Longest wait for a terminal's last bytes, where somebody else still has it open."""


def wait_as_a_stranger(running: Running, *, by_pidfd: bool) -> Steps[ExitReport]:
    """Wait for an init that somebody else reaps: its parent is not this process.

    Args:
        running: Has a pidfd that was opened while init lived.
        by_pidfd: Whether the kernel tells the status of what somebody else has reaped.
    """
    assert running.pidfd is not None
    yield Pause(fd=running.pidfd.number)
    at_ns = time.time_ns()
    as_zombie = pidfd.zombie_status(running.pid, running.start_ticks)
    rounds = REAPED_ROUNDS_MAX if as_zombie is None else ZOMBIE_ROUNDS_MAX
    for _ in range(rounds if by_pidfd else 0):
        status = pidfd.exit_status(running.pidfd.number)
        if status is not None:
            return ExitReport(status=status, source="pidfd-info", at_ns=at_ns)
        yield Pause(seconds=REAPED_POLL_SECONDS)
    if as_zombie is not None:
        return ExitReport(status=as_zombie, source="proc-stat", at_ns=at_ns)
    return nobody_knows("its parent kept its exit status, and this kernel does not tell it", at_ns)


def wait_as_a_parent(running: Running, processes: Processes) -> Steps[ExitReport]:
    """Wait for a child of this process, and for the last bytes of its terminal."""
    assert running.init is not None
    yield Pause(child=running.init)
    if running.relay is not None:
        # So that the last words are there when the end is told.
        yield Pause(child=running.relay, seconds=RELAY_SECONDS)
        processes.forget(running.relay)
    return ExitReport(status=running.init.status, source="waitid", at_ns=running.init.reaped_at_ns)
