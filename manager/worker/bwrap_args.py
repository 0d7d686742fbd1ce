"""The command line of bubblewrap for one container. Pure.

Source: bwrap(1), 0.8 to 0.11.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from manager.domain.spec import Mount, Process
from manager.worker.engine import Job
from manager.worker.errors import LaunchFailed
from manager.worker.mount_options import attributes_of, value_of
from manager.worker.root_plan import DEV_DESTINATION, EngineMount, RootPlan, TreeMount

LATER_FILESYSTEMS: Final = frozenset({"sysfs", "mqueue", "devpts"})
"""Not in bubblewrap's power: mounted by the worker once the sandbox stands and waits."""

UNSHARE_OPTIONS: Final = {
    "pid": "--unshare-pid",
    "net": "--unshare-net",
    "ipc": "--unshare-ipc",
    "uts": "--unshare-uts",
}

_SIZE: Final = re.compile(r"(\d+)([kmg]?)")
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def sandbox_arguments(job: Job, *, pid_namespace_fd: int | None) -> list[str]:
    """Everything before the `--`, after `--cap-drop ALL`. Handed over in a file: it has secrets.

    Args:
        job: The container.
        pid_namespace_fd: Number under which bubblewrap will find the PID namespace to join.

    Raises:
        LaunchFailed: Stage `create`: an option that bubblewrap cannot express.
    """
    return [
        *_namespaces(job, pid_namespace_fd),
        *_mounts(job.root_plan, job.stage.root, job.stage.parts),
        *_process(job.process, terminal=job.terminal),
    ]


def later_mounts(plan: RootPlan) -> tuple[Mount, ...]:
    """What the worker mounts once the sandbox stands, in the spec's order."""
    return tuple(
        entry.mount
        for entry in plan.engine_entries
        if isinstance(entry, EngineMount) and _is_later(entry.mount, plan)
    )


def _namespaces(job: Job, pid_namespace_fd: int | None) -> Iterator[str]:
    for name, option in UNSHARE_OPTIONS.items():
        if name not in job.namespaces:
            yield option
    if pid_namespace_fd is None:
        yield "--as-pid-1"
    else:
        yield from ("--pidns", str(pid_namespace_fd))
    linux = job.spec.linux
    if linux is not None and linux.namespace("cgroup"):
        yield "--unshare-cgroup"
    if job.spec.hostname and "uts" not in job.namespaces:
        yield from ("--hostname", job.spec.hostname)


def _mounts(plan: RootPlan, root: Path, parts: Path) -> Iterator[str]:
    # Whether the root is read-only is a matter of the mount itself; --ro-bind would make every
    # tree that is attached inside read-only as well.
    yield from ("--bind", str(root), "/")
    for entry in plan.engine_entries:
        if isinstance(entry, TreeMount):
            option = "--dev-bind" if entry.devices else "--bind"
            yield from (option, str(parts / entry.place), entry.destination)
        elif not _is_later(entry.mount, plan):
            yield from _engine_mount(entry.mount)


def _is_later(mount: Mount, plan: RootPlan) -> bool:
    # bubblewrap's own /dev has pts and shm of its own.
    return mount.type in LATER_FILESYSTEMS and not (
        mount.type == "devpts" and not _has_donated_dev(plan)
    )


def _has_donated_dev(plan: RootPlan) -> bool:
    return any(isinstance(entry, TreeMount) and entry.devices for entry in plan.entries)


def _engine_mount(mount: Mount) -> Iterator[str]:
    options = mount.options or ()
    if mount.type == "proc":
        yield from ("--proc", mount.destination)
    elif mount.destination == DEV_DESTINATION:
        yield from ("--dev", DEV_DESTINATION)
    elif mount.type == "tmpfs":
        yield from ("--perms", f"{int(value_of(options, 'mode') or '1777', 8):04o}")
        if size := value_of(options, "size"):
            yield from ("--size", _bytes(size, mount.destination))
        yield from ("--tmpfs", mount.destination)
    if attributes_of(options).add & 1:
        yield from ("--remount-ro", mount.destination)


def _bytes(size: str, destination: str) -> str:
    match = _SIZE.fullmatch(size.lower())
    if match is None:
        reason = f"bwrap: tmpfs {destination}: size {size!r} is not a number of bytes, k, m or g"
        raise LaunchFailed("create", reason)
    return str(int(match[1]) * _UNITS[match[2]])


def _process(process: Process, *, terminal: bool) -> Iterator[str]:
    if not terminal:
        yield "--new-session"
    yield from ("--chdir", process.cwd or "/")
    for name in _capabilities(process):
        yield from ("--cap-add", name)
    yield "--clearenv"
    for variable in process.env or ():
        name, separator, value = variable.partition("=")
        if separator and name:
            yield from ("--setenv", name, value)


def _capabilities(process: Process) -> Sequence[str]:
    # A root process gets at exec what its bounding set allows: that set is the one that counts.
    capabilities = process.capabilities
    return () if capabilities is None else tuple(dict.fromkeys(capabilities.bounding or ()))
