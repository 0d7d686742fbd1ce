"""What messages between the manager and the worker are made of."""

from typing import Literal, TypeAlias

from msgspec import Struct

FailedStage: TypeAlias = Literal[
    "hold",
    "namespaces",
    "mounts",
    "tar",
    "cgroup",
    "create",
    "exec",
    "restore",
    "aborted",
    "interrupted",
]
"""Which part of a launch has failed."""


class PidIdentity(Struct, frozen=True, kw_only=True):
    """A process beyond doubt: a bare pid may be anybody's by tomorrow.

    ``pid`` is numbered in the worker's PID namespace; ``start_ticks`` is field 22 of
    ``/proc/PID/stat`` (clock ticks since boot); ``pidfd_inode`` is unique for the life of the
    system where pidfds have inodes of their own (Linux 6.9), else 0.
    Source: proc_pid_stat(5), pidfd_open(2).
    """

    pid: int
    start_ticks: int
    pidfd_inode: int
    boot_id: str


class LogMark(Struct, frozen=True, kw_only=True):
    """A record of the log, and under which boot of the machine it was noted.

    It is not synced: one of an earlier boot may be older than the last that was given.
    """

    position: int
    leaf_hash: bytes
    boot_id: str


class Revived(Struct, frozen=True, kw_only=True):
    """A container that runs on after an image was made of it: its engine made a new process."""

    launch_id: str
    identity: PidIdentity
    engine: str
    engine_version: str
    started_at_ns: int


class EngineReport(Struct, frozen=True, kw_only=True):
    """What one engine can do on this machine, found by trying it.

    ``works`` is false when it is missing or cannot start a container here; ``problem`` then says
    why, in words for a person. ``lacks`` names the features of a spec that this engine cannot give
    (see ``manager.domain.features``); a start that needs one is refused before anything happens.
    ``why_not`` has the reason for some of them, in words for a person.
    """

    name: str
    works: bool
    path: str = ""
    version: str = ""
    problem: str = ""
    lacks: tuple[str, ...] = ()
    why_not: dict[str, str] = {}


class ExecProcess(Struct, frozen=True, kw_only=True):
    """What a process that is executed in a container is made of; has env values.

    ``capabilities`` maps the names of the five sets, as in the OCI spec, to names of capabilities;
    ``None``: those of the container's init. ``executable`` is what ``args`` runs as, if it is not
    ``args[0]``. ``guest_fds`` are the numbers that the frame's descriptors have in it.
    """

    args: tuple[str, ...]
    executable: str = ""
    env: tuple[str, ...] = ()
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    extra_gids: tuple[int, ...] = ()
    no_new_privileges: bool = False
    capabilities: dict[str, tuple[str, ...]] | None = None
    terminal: bool = False
    guest_fds: tuple[int, ...] = ()


class LaunchFact(Struct, frozen=True, kw_only=True):
    """A launch that the worker knows, at the moment of the ``Welcome``."""

    launch_id: str
    phase: Literal["launching", "running", "exited", "failed"]
    identity: PidIdentity | None = None
