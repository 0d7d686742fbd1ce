"""What happened. One class an event, one explicit tag a class; tags are never reused or renamed.

A field may be added with a default. A changed meaning is a new tag. Every refusal carries in
``error`` the exact text that its caller got.
"""

from typing import TypeAlias

from msgspec import Struct

from manager.domain.execution import ExecRequest
from manager.domain.exit_status import ExitStatus
from manager.domain.request import EngineFacts, FdFact, StartRequest
from manager.domain.restore_events import RestoreEvent
from manager.domain.state import Failure, Launched, LaunchIntent


class SandboxCreated(Struct, frozen=True, kw_only=True, tag="sandbox.created"):
    """The root container is registered and its descriptors are in the worker's keeping."""

    sandbox: str
    intent: LaunchIntent
    hold_id: str
    tty: FdFact | None = None
    tty_hold_id: str = ""


class SandboxCreateRejected(Struct, frozen=True, kw_only=True, tag="sandbox.create_rejected"):
    """A create was refused; nothing was kept of it."""

    sandbox: str
    request: StartRequest
    engine: EngineFacts
    error: str
    tty: FdFact | None = None
    requested_cid: str = ""


class SandboxStartRequested(Struct, frozen=True, kw_only=True, tag="sandbox.start_requested"):
    """The root container is about to run: the intent, durable before the effect."""

    launch_id: str
    request_id: str = ""


class SandboxStarted(Struct, frozen=True, kw_only=True, tag="sandbox.started"):
    """The root container runs."""

    launch_id: str
    launched: Launched
    phases_us: dict[str, int] = {}


class SandboxStartFailed(Struct, frozen=True, kw_only=True, tag="sandbox.start_failed"):
    """The root container never ran; the sandbox is stopped."""

    launch_id: str
    failure: Failure


class SandboxStartRejected(Struct, frozen=True, kw_only=True, tag="sandbox.start_rejected"):
    """StartRoot was refused."""

    error: str
    request_id: str = ""


class SandboxStopped(Struct, frozen=True, kw_only=True, tag="sandbox.stopped"):
    """The root container is gone, and the sandbox with it: what still runs in it is ended."""

    reason: str


class SandboxDeleteRequested(Struct, frozen=True, kw_only=True, tag="sandbox.delete_requested"):
    """The sandbox and all that is left of its containers is about to be removed."""

    force: bool
    request_id: str = ""


class SandboxDeleteRejected(Struct, frozen=True, kw_only=True, tag="sandbox.delete_rejected"):
    """A delete was refused."""

    force: bool
    error: str
    request_id: str = ""


class SandboxDeleted(Struct, frozen=True, kw_only=True, tag="sandbox.deleted"):
    """Nothing of the sandbox is left but its log."""


class ContainerCreated(Struct, frozen=True, kw_only=True, tag="container.created"):
    """A subcontainer is registered; its terminal, if any, is in the worker's keeping."""

    container: str
    tty: FdFact | None = None
    hold_id: str = ""
    request_id: str = ""


class ContainerCreateRejected(Struct, frozen=True, kw_only=True, tag="container.create_rejected"):
    """A CreateSubcontainer was refused."""

    container: str
    error: str
    files: tuple[FdFact, ...] = ()
    request_id: str = ""


class ContainerStartAccepted(Struct, frozen=True, kw_only=True, tag="container.start_accepted"):
    """The container is about to run: the intent, durable before the effect."""

    container: str
    intent: LaunchIntent


class ContainerStartRejected(Struct, frozen=True, kw_only=True, tag="container.start_rejected"):
    """A StartSubcontainer was refused."""

    container: str
    request: StartRequest
    engine: EngineFacts
    error: str


class ContainerStartTranslated(Struct, frozen=True, kw_only=True, tag="container.start_translated"):
    """A start arrived while the sandbox waits to be restored, and is taken as a restore."""

    container: str
    request_id: str = ""


class ContainerStarted(Struct, frozen=True, kw_only=True, tag="container.started"):
    """The container's own code runs."""

    container: str
    launch_id: str
    launched: Launched
    phases_us: dict[str, int] = {}


class ContainerStartFailed(Struct, frozen=True, kw_only=True, tag="container.start_failed"):
    """The container's own code never ran; if ``interrupted``, it is ended whatever it had begun."""

    container: str
    launch_id: str
    failure: Failure


class ContainerExited(Struct, frozen=True, kw_only=True, tag="container.exited"):
    """The container's init is gone; with a ``checkpoint_id``, because an image was made of it."""

    container: str
    launch_id: str
    exit: ExitStatus
    source: str
    exited_at_ns: int
    started_at_ns: int | None = None
    oom: bool = False
    checkpoint_id: str = ""


class ContainerSignalRequested(Struct, frozen=True, kw_only=True, tag="container.signal_requested"):
    """A signal is about to be sent."""

    container: str
    kill_id: str
    signo: int
    pid: int
    mode: int
    request_id: str = ""


class ContainerSignalSent(Struct, frozen=True, kw_only=True, tag="container.signal_sent"):
    """The signal was delivered."""

    container: str
    kill_id: str
    signo: int
    request_id: str = ""


class ContainerSignalRejected(Struct, frozen=True, kw_only=True, tag="container.signal_rejected"):
    """A signal was refused, or could not be delivered, or nobody can tell whether it was."""

    container: str
    signo: int
    pid: int
    mode: int
    error: str
    kill_id: str = ""
    request_id: str = ""


class SandboxPauseRequested(Struct, frozen=True, kw_only=True, tag="sandbox.pause_requested"):
    """Everything that runs is about to be stopped, or with ``paused`` false to go on."""

    pause_id: str
    paused: bool
    request_id: str = ""


class SandboxPauseRejected(Struct, frozen=True, kw_only=True, tag="sandbox.pause_rejected"):
    """A pause or a resume was refused, or failed; all is as it was."""

    paused: bool
    error: str
    pause_id: str = ""
    request_id: str = ""


class SandboxPaused(Struct, frozen=True, kw_only=True, tag="sandbox.paused"):
    """Nothing of the sandbox runs until it is resumed."""

    pause_id: str
    request_id: str = ""


class SandboxResumed(Struct, frozen=True, kw_only=True, tag="sandbox.resumed"):
    """The sandbox goes on."""

    pause_id: str
    request_id: str = ""


class ContainerPaused(Struct, frozen=True, kw_only=True, tag="container.paused"):
    """The container's processes are stopped with its sandbox."""

    container: str


class ContainerResumed(Struct, frozen=True, kw_only=True, tag="container.resumed"):
    """The container's processes go on with its sandbox."""

    container: str


class ContainerDestroyRequested(
    Struct, frozen=True, kw_only=True, tag="container.destroy_requested"
):
    """Every process of the container is about to be ended and its remains removed."""

    container: str
    launch_id: str
    request_id: str = ""


class ContainerDestroyRejected(Struct, frozen=True, kw_only=True, tag="container.destroy_rejected"):
    """A destroy was refused: no such container was ever known."""

    container: str
    error: str
    request_id: str = ""


class ContainerDestroyed(Struct, frozen=True, kw_only=True, tag="container.destroyed"):
    """Nothing of the container is left, but for ``leftovers``, which could not be removed."""

    container: str
    launch_id: str = ""
    leftovers: tuple[str, ...] = ()
    request_id: str = ""


class ContainerLost(Struct, frozen=True, kw_only=True, tag="container.lost"):
    """Nobody can tell what became of the container, see ``reason``; ``doubtful``: if it ran."""

    container: str
    launch_id: str
    reason: str
    doubtful: bool = False


class ContainerHoldLost(Struct, frozen=True, kw_only=True, tag="container.hold_lost"):
    """Descriptors donated at creation are gone; the container can only be destroyed."""

    container: str
    reason: str


class ProcessExecAccepted(Struct, frozen=True, kw_only=True, tag="process.exec_accepted"):
    """A process is about to be executed: the intent, durable before the effect."""

    container: str
    exec_id: str
    launch_id: str
    request: ExecRequest


class ProcessExecRejected(Struct, frozen=True, kw_only=True, tag="process.exec_rejected"):
    """An ExecuteAsync was refused."""

    container: str
    request: ExecRequest
    error: str


class ProcessExecuted(Struct, frozen=True, kw_only=True, tag="process.executed"):
    """An executed process runs; ``pid`` is its number in the container's PID namespace."""

    container: str
    exec_id: str
    pid: int
    launched: Launched


class ProcessExecFailed(Struct, frozen=True, kw_only=True, tag="process.exec_failed"):
    """A process that was to be executed never ran."""

    container: str
    exec_id: str
    failure: Failure


class ProcessExited(Struct, frozen=True, kw_only=True, tag="process.exited"):
    """An executed process is gone; with a ``checkpoint_id``, because an image was to be made.

    Images have none of them: they end before it is made, and what is restored is without them.
    """

    container: str
    exec_id: str
    pid: int
    exit: ExitStatus
    source: str
    exited_at_ns: int
    checkpoint_id: str = ""


class ProcessLost(Struct, frozen=True, kw_only=True, tag="process.lost"):
    """Nobody can tell what became of an executed process; ``doubtful``: if it ran."""

    container: str
    exec_id: str
    pid: int
    reason: str
    doubtful: bool = False


class RestoreRejected(Struct, frozen=True, kw_only=True, tag="restore.rejected"):
    """A Restore was refused."""

    error: str
    files: tuple[FdFact, ...] = ()
    request_id: str = ""


class ContainerRestoreRejected(Struct, frozen=True, kw_only=True, tag="container.restore_rejected"):
    """A RestoreSubcontainer was refused, or a start that was translated to one."""

    container: str
    request: StartRequest
    error: str


Event: TypeAlias = (
    SandboxCreated
    | SandboxCreateRejected
    | SandboxStartRequested
    | SandboxStarted
    | SandboxStartFailed
    | SandboxStartRejected
    | SandboxStopped
    | SandboxPauseRequested
    | SandboxPauseRejected
    | SandboxPaused
    | SandboxResumed
    | SandboxDeleteRequested
    | SandboxDeleteRejected
    | SandboxDeleted
    | ContainerCreated
    | ContainerCreateRejected
    | ContainerStartAccepted
    | ContainerStartRejected
    | ContainerStartTranslated
    | ContainerStarted
    | ContainerStartFailed
    | ContainerExited
    | ContainerSignalRequested
    | ContainerSignalSent
    | ContainerSignalRejected
    | ContainerPaused
    | ContainerResumed
    | ContainerDestroyRequested
    | ContainerDestroyRejected
    | ContainerDestroyed
    | ContainerLost
    | ContainerHoldLost
    | ProcessExecAccepted
    | ProcessExecRejected
    | ProcessExecuted
    | ProcessExecFailed
    | ProcessExited
    | ProcessLost
    | RestoreRejected
    | ContainerRestoreRejected
    | RestoreEvent
)
"""Everything that a sandbox's stream may hold."""
