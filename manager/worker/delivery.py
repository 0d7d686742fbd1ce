"""Whom a signal is for, and delivering it to processes that are the kernel's own."""

import contextlib
import errno
import signal
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from manager.kernel.pidfd import open_pidfd
from manager.schema.worker import SignalProblem
from manager.urpc.fds import OwnedFd
from manager.worker.cgroups import Cgroup
from manager.worker.process_numbers import foreground_group, group, numbers

ONE_PROCESS: Final = 0
EVERYONE: Final = 1
FOREGROUND: Final = 2
GROUP: Final = 3


class Target(Struct, frozen=True, kw_only=True):
    """Whom a signal is for: `pid` and `mode` as in :class:`manager.schema.worker.Kill`."""

    pid: int = 0
    mode: int = ONE_PROCESS


INIT: Final = Target()
ALL: Final = Target(mode=EVERYONE)


class Delivery(Struct, frozen=True, kw_only=True):
    """How it went: `errno` is `None` for well; `why` and `owner` as in `worker.Killed`."""

    errno: int | None = None
    why: SignalProblem = ""
    owner: str = ""


DELIVERED: Final = Delivery()
NOBODY: Final = Delivery(errno=errno.ESRCH)


def to_the_dead(target: Target) -> Delivery:
    """How a signal for a container goes in which nobody is left: everyone of nobody has got it."""
    return DELIVERED if target.mode == EVERYONE else NOBODY


class Inhabitants:
    """The processes of one container.

    Args:
        init: The container's init, alive.
        cgroup: Finds the others.
    """

    def __init__(self, init: int, cgroup: Cgroup) -> None:
        self._init = init
        self._cgroup = cgroup
        self._level = len(numbers(init)) - 1

    def by_number(self, pid: int) -> int | None:
        """The host's number of the process that the container calls `pid`, 0 being its init."""
        if pid == 0:
            return self._init
        return next((each for each in self._cgroup.pids() if self._own_number(each) == pid), None)

    def number_of(self, pid: int) -> int:
        """What the container calls a process of the host's; 0 if it is gone."""
        return self._own_number(pid)

    def in_group(self, pgid: int) -> list[int]:
        """The members of the process group that the container calls `pgid`."""
        return [each for each in self._cgroup.pids() if self._own_number(each, "NSpgid") == pgid]

    def in_host_group(self, pgid: int) -> list[int]:
        """The members of a process group, as the host numbers it."""
        return [each for each in self._cgroup.pids() if group(each) == pgid]

    def _own_number(self, pid: int, field: str = "NSpid") -> int:
        found = numbers(pid, field)
        return found[self._level] if 0 <= self._level < len(found) else 0


def deliver(inside: Inhabitants, signo: int, target: Target) -> Delivery:
    """Signal one process or a process group of a container."""
    if target.mode == GROUP:
        members = inside.in_group(target.pid)
        return _send_all(members, signo) if members else Delivery(errno=errno.ESRCH, why="no-group")
    pid = inside.by_number(target.pid)
    if pid is None:
        return Delivery(errno=errno.ESRCH, why="no-process")
    if target.mode == FOREGROUND:
        leader = foreground_group(pid)
        if leader is None:
            return Delivery(errno=errno.ENOTTY, why="no-terminal")
        if leader > 0:
            return _send_all(inside.in_host_group(leader), signo)
    return _send_one(inside, pid, signo, target.pid)


def _send_one(inside: Inhabitants, pid: int, signo: int, number: int) -> Delivery:
    try:
        with open_pidfd(pid) as handle:
            # The number may have become another process's since it was looked up.
            if number and inside.number_of(pid) != number:
                return NOBODY
            return send(handle, signo)
    except ProcessLookupError:
        return NOBODY


def send(handle: OwnedFd, signo: int) -> Delivery:
    """Signal one process beyond doubt."""
    try:
        signal.pidfd_send_signal(handle.number, signo)
    except OSError as error:
        return Delivery(errno=error.errno)
    return DELIVERED


def _send_all(pids: Iterable[int], signo: int) -> Delivery:
    result = NOBODY
    for pid in pids:
        with contextlib.suppress(ProcessLookupError), open_pidfd(pid) as handle:
            sent = send(handle, signo)
            result = sent if result is not DELIVERED else result
    return result
