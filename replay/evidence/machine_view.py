"""What there is on a machine of a service's containers: seen through /proc and directories, only.

Nothing is opened but files that anybody may read, nothing is locked, connected to, or changed.

Source: proc_pid_stat(5), proc_pid_mountinfo(5), proc_locks(5), cgroups(7).
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from manager.schema.layout import LOG_FILE

CGROUP_PARENT: Final = "sandtrail"
ENGINE_ID: Final = re.compile(r"[0-9a-f]{32}")
LOCK_SUFFIX: Final = ".lock"
GONE_STATES: Final = frozenset("ZXx")
"""A zombie runs no more. Source: proc_pid_stat(5), state."""
FROZEN: Final = "FROZEN"
CONTROLLERS: Final = ("pids", "freezer", "memory", "cpu")


class CgroupView(Struct, frozen=True, kw_only=True):
    """The control groups of one container.

    Attributes:
        pids: The processes in them.
        frozen: Whether they are stopped; None if there is no freezer.
    """

    pids: frozenset[int]
    frozen: bool | None


class MachineView:
    """The machine, as of each call.

    Args:
        root: State directory of the service.
        proc: Where procfs is mounted.
    """

    def __init__(self, root: Path, proc: Path = Path("/proc")) -> None:
        self.root = root
        self._proc = proc

    def boot_id(self) -> str:
        """This boot of the machine."""
        return (self._proc / "sys/kernel/random/boot_id").read_text("ascii").strip()

    def start_ticks(self, pid: int) -> int | None:
        """When a process began, in clock ticks since boot; None if there is none that runs."""
        try:
            text = (self._proc / str(pid) / "stat").read_text("latin-1")
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in GONE_STATES else int(fields[19])

    def service_runs(self) -> bool:
        """Whether somebody holds the lock of the log's writer."""
        try:
            inode = (self.root / (LOG_FILE + LOCK_SUFFIX)).stat().st_ino
        except OSError:
            return False
        locks = (self._proc / "locks").read_text("ascii").splitlines()
        return any(
            "FLOCK" in line and any(part.endswith(f":{inode}") for part in line.split())
            for line in locks
        )

    def cgroups(self) -> dict[str, CgroupView] | None:
        """Control groups by engine id, also of other services; None if there are no hierarchies."""
        parents = [place / CGROUP_PARENT for place in self._hierarchies()]
        if not parents:
            return None
        names = {path.name for parent in parents for path in _children(parent)}
        return {
            name: _cgroup([parent / name for parent in parents])
            for name in sorted(names)
            if ENGINE_ID.fullmatch(name)
        }

    def _hierarchies(self) -> list[Path]:
        text = (self._proc / "self/mountinfo").read_text("utf-8", "surrogateescape")
        unified, v1 = [], []
        for line in text.splitlines():
            before, _, after = line.partition(" - ")
            kind, place = after.split()[0], Path(before.split()[4])
            if kind == "cgroup2":
                unified.append(place)
            elif kind == "cgroup" and set(after.split()[2].split(",")) & set(CONTROLLERS):
                v1.append(place)
        return v1 or unified

    def staged(self, worker_pid: int) -> frozenset[str] | None:
        """Engine ids with a file tree on the worker's stage; None if its mounts cannot be seen."""
        stage = f"{os.path.realpath(self.root)}/worker/stage/"
        try:
            text = (self._proc / str(worker_pid) / "mountinfo").read_text("utf-8", "replace")
        except OSError:
            return None
        places = (line.split()[4] for line in text.splitlines())
        return frozenset(
            place.removeprefix(stage).partition("/")[0]
            for place in places
            if place.startswith(stage)
        )

    def sockets(self) -> dict[str, bool]:
        """Sandbox ids with a directory for a socket, and whether there is one in it."""
        return {
            path.name: _is_socket(path / "control.sock")
            for path in _children(self.root / "sandboxes")
        }

    def engine_states(self) -> dict[str, str]:
        """Engine ids of which an engine keeps a state, and what that is called."""
        return {
            found[0]: f"{directory.name} state {path.name}"
            for directory in _children(self.root / "worker/engines")
            for path in _children(directory)
            if (found := ENGINE_ID.search(path.name))
        }

    def records(self) -> frozenset[str]:
        """Engine ids of the launches that the worker has on record."""
        found = (ENGINE_ID.match(path.name) for path in _children(self.root / "worker/launches"))
        return frozenset(each[0] for each in found if each)


def _cgroup(places: Iterable[Path]) -> CgroupView:
    pids: set[int] = set()
    frozen: bool | None = None
    for place in places:
        pids.update(_members(place))
        with suppress(OSError):
            frozen = (place / "freezer.state").read_text("ascii").strip() == FROZEN
        with suppress(OSError):
            frozen = "frozen 1" in (place / "cgroup.events").read_text("ascii").splitlines()
    return CgroupView(pids=frozenset(pids), frozen=frozen)


def _members(place: Path) -> Iterator[int]:
    for directory, _, names in os.walk(place):
        if "cgroup.procs" in names:
            with suppress(OSError):
                yield from map(int, Path(directory, "cgroup.procs").read_text("ascii").split())


def _children(directory: Path) -> list[Path]:
    """What is in a directory; nothing if it cannot be read."""
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False
