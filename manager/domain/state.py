"""The state of one sandbox: what replaying its stream gives.

Sandbox::

    absent -> created -> started ----------------------------------> stopped -> deleted
                 |                                                      ^
                 +-> restoringUnstarted -> restoringStarted -> restored +
                                  +-> restoreFailed

Container::

    creating -> starting -> running <-> paused -> stopped -> destroyed
                    +-> failed

``absent``, ``stopped``, ``deleted`` and ``destroyed`` are ours; the other sandbox names are
gVisor's and stand in error texts.
"""

from typing import Final, Literal, TypeAlias

from msgspec import Struct

from manager.domain.checkpoint import CheckpointIntent, RestoreProgress
from manager.domain.execution import Execution
from manager.domain.exit_status import ExitStatus
from manager.domain.payload import LaunchPlan
from manager.domain.request import StartRequest

Phase: TypeAlias = Literal[
    "absent",
    "created",
    "started",
    "restoringUnstarted",
    "restoringStarted",
    "restoreFailed",
    "restored",
    "stopped",
    "deleted",
]
ContainerStatus: TypeAlias = Literal[
    "creating", "starting", "running", "paused", "stopped", "failed", "lost", "destroyed"
]

ALIVE: Final[frozenset[str]] = frozenset({"starting", "running", "paused"})
"""Statuses in which processes of the container exist, or may come to exist at any moment."""


class Failure(Struct, frozen=True, kw_only=True):
    """Why a start came to nothing. ``error`` is the text that the caller got."""

    error: str
    stage: str
    reason: str
    errno: int | None = None


class Launched(Struct, frozen=True, kw_only=True):
    """The init process of a container that runs or ran.

    ``cpu_ns`` is the processor time that bringing it back from an image has taken.
    """

    pid: int
    start_ticks: int
    pidfd_inode: int
    boot_id: str
    engine: str
    engine_version: str
    started_at_ns: int
    cpu_ns: int = 0


class LaunchIntent(Struct, frozen=True, kw_only=True):
    """A start that was accepted: everything a worker needs but the descriptors and the env values.

    ``launch_id`` names the start for ever; ``engine_id`` is what the engine calls the container.
    ``joins_pid_namespace`` is the cid whose PID namespace is joined, ``None`` for a new one.
    ``pid_namespace_path`` is the path that the spec gave, by which later containers find this one.
    ``namespace_paths`` are the host's namespaces that it joins, by their names under /proc/PID/ns.
    ``executable`` and ``search_path`` serve error texts.
    """

    launch_id: str
    engine_id: str
    engine: str
    engine_version: str
    request: StartRequest
    plan: LaunchPlan
    name: str
    joins_pid_namespace: str | None = None
    pid_namespace_path: str = ""
    namespace_paths: dict[str, str] = {}
    executable: str = ""
    search_path: tuple[str, ...] = ()


class Container(Struct, frozen=True, kw_only=True):
    """One container, from its creation until long after its destruction.

    ``tty_hold`` and ``fds_hold`` name descriptors that wait in the worker for the start.
    ``executions`` maps exec ids to the processes that were executed in it, oldest first.
    ``checkpoint_id`` names the image for which it was ended; ``loss`` is why nobody can tell what
    became of it.
    """

    cid: str
    status: ContainerStatus
    tty_hold: str | None = None
    fds_hold: str | None = None
    intent: LaunchIntent | None = None
    launched: Launched | None = None
    exit: ExitStatus | None = None
    exited_at_ns: int | None = None
    exit_source: str = ""
    oom: bool = False
    failure: Failure | None = None
    loss: str = ""
    destroying: bool = False
    start_request_id: str = ""
    checkpoint_id: str = ""
    executions: dict[str, Execution] = {}

    @property
    def exists(self) -> bool:
        """Whether the container can still be named by a client."""
        return self.status != "destroyed"


class RequestOutcome(Struct, frozen=True, kw_only=True):
    """What became of a call that carried a request id.

    ``done`` is false while the outcome is still to come; ``error`` is the text of a refusal or
    failure, empty for success.
    """

    method: str
    cid: str
    done: bool = False
    error: str = ""


class SignalIntent(Struct, frozen=True, kw_only=True):
    """A signal whose delivery has not been reported yet."""

    cid: str
    signo: int
    pid: int
    mode: int
    request_id: str = ""


class PauseIntent(Struct, frozen=True, kw_only=True):
    """A pause, or a resume, whose outcome has not been reported yet."""

    pause_id: str
    paused: bool
    request_id: str = ""


class Sandbox(Struct, frozen=True, kw_only=True):
    """Everything that is known about one sandbox.

    ``containers`` maps cid to container, the root (whose cid is the sandbox's id) among them;
    ``names`` maps a container's name to its cid; ``requests`` maps request ids to outcomes;
    ``signals`` maps kill ids to the signals that are under way; ``pausing`` is the pause or resume
    that is under way, ``checkpointing`` the checkpoint. ``checkpoint_id`` names the image that the
    containers were ended for, ``checkpoint_attempts`` counts those that came to an end and
    ``checkpoint_error`` is why the latest failed. ``restore`` is the restore that the sandbox
    comes from, ``restore_error`` why it failed and ``restore_failed_in`` in which call;
    ``savings_ns`` are the processor and wall time that it saved.
    """

    id: str = ""
    phase: Phase = "absent"
    deleting: bool = False
    containers: dict[str, Container] = {}
    names: dict[str, str] = {}
    requests: dict[str, RequestOutcome] = {}
    signals: dict[str, SignalIntent] = {}
    paused: bool = False
    pausing: PauseIntent | None = None
    checkpointing: CheckpointIntent | None = None
    checkpoint_id: str = ""
    checkpoint_attempts: int = 0
    checkpoint_error: str = ""
    restore: RestoreProgress | None = None
    restore_error: str = ""
    restore_failed_in: str = ""
    savings_ns: tuple[int, int] = (0, 0)

    def container(self, cid: str) -> Container | None:
        """The container of that id, unless it is unknown or destroyed."""
        found = self.containers.get(cid)
        return found if found is not None and found.exists else None

    def by_launch(self, launch_id: str) -> Container | None:
        """The container whose latest start has that id."""
        # The newest first: a sandbox remembers many, and is told of those that were started lately.
        for found in reversed(self.containers.values()):
            if found.intent is not None and found.intent.launch_id == launch_id:
                return found
        return None

    def by_execution(self, exec_id: str) -> Container | None:
        """The container that a process was executed in, while its state remembers it."""
        for found in reversed(self.containers.values()):
            if exec_id in found.executions:
                return found
        return None


ABSENT: Final = Sandbox()
"""The state before the first event."""
