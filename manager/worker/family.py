"""A container's processes, where there are no control groups that could be asked.

An ordinary user may write no control group unless somebody handed one over. Then a container is
known by its PID namespace, which no process can leave; and before it has one, by descent from the
program that sets it up.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Final

from manager.kernel import pidfd

_STAT_PARENT: Final = 1
_STAT_START: Final = 19


class Family:
    """The processes of one container.

    A founder is a process that was put there by name: what it forks belongs there, and, if its PID
    namespace is not the worker's, everybody in it.
    """

    def __init__(self) -> None:
        self._founders: dict[int, int] = {}
        self._namespaces: set[str] = set()

    def admit(self, pid: int) -> None:
        """Count a process among the founders."""
        self._founders[pid] = pidfd.start_ticks(pid)
        namespace = _pid_namespace(str(pid))
        if namespace not in (None, _pid_namespace("self")):
            assert namespace is not None
            self._namespaces.add(namespace)

    def dismiss(self, pid: int) -> None:
        """Count it no longer, nor what it forks outside of the container's PID namespace."""
        self._founders.pop(pid, None)

    def pids(self) -> tuple[int, ...]:
        """Everyone, as numbered in the worker's PID namespace."""
        children: dict[int, list[int]] = {}
        found: list[int] = []
        for pid, parent, start in _processes():
            children.setdefault(parent, []).append(pid)
            if self._founders.get(pid) == start or self._is_inside(pid):
                found.append(pid)
        for pid in found:  # grows on the way: descendants of descendants
            found.extend(child for child in children.get(pid, ()) if child not in found)
        return tuple(sorted(found))

    def hold_still(self) -> None:
        """Stop the founders, so that none forks on while the others are looked for."""
        for pid, start in self._founders.items():
            with contextlib.suppress(ProcessLookupError), pidfd.open_pidfd(pid) as handle:
                if pidfd.start_ticks(pid) == start:
                    signal.pidfd_send_signal(handle.number, signal.SIGSTOP)

    def _is_inside(self, pid: int) -> bool:
        return bool(self._namespaces) and _pid_namespace(str(pid)) in self._namespaces


def _processes() -> Iterator[tuple[int, int, int]]:
    """Pid, parent's pid and start time of every process that is not a zombie."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := pidfd.stat_fields(int(entry))) and fields[0] != "Z":
            yield int(entry), int(fields[_STAT_PARENT]), int(fields[_STAT_START])


def _pid_namespace(pid: str) -> str | None:
    """Name of a process's PID namespace; `None` if the process is gone or somebody else's."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None
