"""Where this machine has its control groups mounted. Source: cgroups(7)."""

from pathlib import Path
from typing import Final

from msgspec import Struct

CONTROLLERS: Final = ("pids", "memory", "freezer", "cpu", "cpuacct", "devices")
"""Used where they exist; of the first, membership alone is what matters most."""


class Hierarchies(Struct, frozen=True, kw_only=True):
    """Where control groups are mounted. `unified` is empty on a v1 or hybrid machine."""

    v1: dict[str, str] = {}
    unified: str = ""
    hybrid: str = ""
    """A cgroup2 mount beside v1 hierarchies, not used."""


def parse_hierarchies(mountinfo: str) -> Hierarchies:
    """Find the mounted hierarchies in the text of `/proc/self/mountinfo`.

    Source: proc_pid_mountinfo(5).
    """
    v1: dict[str, str] = {}
    unified = ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        place, kind = before.split()[4], after.split()[0]
        if kind == "cgroup2":
            unified = place
        elif kind == "cgroup":
            options = after.split()[2].split(",")
            v1.update({name: place for name in CONTROLLERS if name in options})
    if v1:
        return Hierarchies(v1=v1, hybrid=unified)
    return Hierarchies(unified=unified)


def parse_homes(own: str, hierarchies: Hierarchies) -> tuple[Path, ...]:
    """Find a process's cgroups in the text of its `/proc/PID/cgroup`. Source: cgroups(7)."""
    places = {
        controller: path.lstrip("/")
        for _, controllers, path in (line.split(":", 2) for line in own.splitlines())
        for controller in controllers.split(",")
    }
    if hierarchies.unified:
        return (Path(hierarchies.unified, places.get("", "")),)
    homes = (Path(root, places.get(name, "")) for name, root in hierarchies.v1.items())
    return tuple(dict.fromkeys(homes))
