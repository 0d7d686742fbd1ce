"""What can be asked of a sandbox (by clients) and told to it (by the worker).

Commands carry every fact that a decision needs from outside the log: ids, descriptor facts, what
the engine can do. ``error`` texts and events follow from them and the state alone.
"""

from typing import TypeAlias

from msgspec import Struct

from manager.domain.checkpoint import ImageFacts
from manager.domain.execution import ExecRequest
from manager.domain.exit_status import ExitStatus
from manager.domain.request import EngineFacts, FdFact, StartRequest
from manager.domain.spec import Spec
from manager.domain.state import Launched

# --- by clients ----------------------------------------------------------------------------------


class CreateSandbox(Struct, frozen=True, kw_only=True):
    """Register the root container; its cid is the sandbox's id. ``request.cid`` may repeat it.

    ``hold_id`` (and ``tty_hold_id``, where the process has a terminal) name the donated descriptors
    in the worker's keeping; ``hold_error`` says why the worker could not take them, or why they can
    be given to nobody.
    """

    sandbox_id: str
    request: StartRequest
    spec: Spec | None
    engine: EngineFacts
    launch_id: str
    engine_id: str
    hold_id: str
    tty: FdFact | None = None
    tty_hold_id: str = ""
    requested_cid: str = ""
    hold_error: str = ""


class StartRoot(Struct, frozen=True, kw_only=True):
    """Run the root container."""

    request_id: str = ""


class CreateSubcontainer(Struct, frozen=True, kw_only=True):
    """Register a subcontainer, with its terminal if it has one."""

    cid: str
    files: tuple[FdFact, ...] = ()
    hold_id: str = ""
    hold_error: str = ""
    request_id: str = ""


class StartSubcontainer(Struct, frozen=True, kw_only=True):
    """Run a subcontainer with the donated descriptors.

    ``hold_error`` is as for a create. In a sandbox that is being restored this is a
    :class:`RestoreSubcontainer`, for which the last four are.
    """

    request: StartRequest
    spec: Spec | None
    engine: EngineFacts
    launch_id: str
    engine_id: str
    hold_id: str = ""
    hold_error: str = ""
    spec_object: dict[str, object] | None = None
    image_specs: dict[str, dict[str, object]] = {}


class RestoreSubcontainer(Struct, frozen=True, kw_only=True):
    """Register one container of a checkpoint image to be restored.

    ``spec_object`` is the spec as JSON, ``image_specs`` are those of the image by name. They, and
    ``launch_id`` and ``hold_id``, are only looked at while a restore is under way.
    """

    request: StartRequest
    spec: Spec | None
    engine: EngineFacts
    launch_id: str = ""
    hold_id: str = ""
    hold_error: str = ""
    spec_object: dict[str, object] | None = None
    image_specs: dict[str, dict[str, object]] = {}


class Restore(Struct, frozen=True, kw_only=True):
    """Begin to restore the sandbox from a checkpoint image.

    ``image`` is what its metadata says, or ``image_error`` why it cannot be read; ``hold_id`` names
    it in the worker's keeping. ``spec_object`` is the root container's spec as JSON,
    ``image_specs`` are those of the image by name. In the ``background`` no call waits until the
    containers go on. ``files_error`` says why the files can be given to nobody.
    """

    restore_id: str
    engine: EngineFacts
    background: bool = False
    files: tuple[FdFact, ...] = ()
    files_error: str = ""
    image: ImageFacts | None = None
    image_error: str = ""
    hold_id: str = ""
    hold_error: str = ""
    spec_object: dict[str, object] | None = None
    image_specs: dict[str, dict[str, object]] = {}
    at_ns: int = 0
    request_id: str = ""


class Checkpoint(Struct, frozen=True, kw_only=True):
    """Make an image of everything that runs; with ``resume`` the sandbox runs on afterwards.

    ``files_wanted`` is how many descriptors the call should have brought; ``files_error`` says why
    they can be given to nobody; ``reserved_label`` is one of its labels that nobody may give.
    """

    checkpoint_id: str
    engine: EngineFacts
    resume: bool = False
    files: tuple[FdFact, ...] = ()
    files_wanted: int = 1
    files_error: str = ""
    image: ImageFacts | None = None
    reserved_label: str = ""
    request_id: str = ""


class DestroySubcontainer(Struct, frozen=True, kw_only=True):
    """End every process of a container and forget it."""

    cid: str
    request_id: str = ""


class Signal(Struct, frozen=True, kw_only=True):
    """Send a signal. Modes: 0 process, 1 all, 2 foreground process group, 3 process group.

    ``pid`` is a number of the container's PID namespace; 0 stands for its init.
    """

    cid: str
    signo: int
    pid: int
    mode: int
    kill_id: str
    request_id: str = ""


class Execute(Struct, frozen=True, kw_only=True):
    """Run one more process in a container that runs.

    ``env_error`` is what is wrong with the environment, whose values no command carries;
    ``files_error`` says why the files can be given to nobody.
    """

    request: ExecRequest
    exec_id: str
    engine: EngineFacts
    env_error: str = ""
    files_error: str = ""


class Pause(Struct, frozen=True, kw_only=True):
    """Stop everything in the sandbox, or with ``paused`` false let it go on."""

    paused: bool
    pause_id: str
    engine: EngineFacts
    request_id: str = ""


class DeleteSandbox(Struct, frozen=True, kw_only=True):
    """Forget the sandbox; with ``force``, end what still runs in it first.

    ``sandbox_id`` is what the caller asked for: the refusal of an unknown one names it.
    """

    sandbox_id: str = ""
    force: bool = False
    request_id: str = ""


# --- by the worker -------------------------------------------------------------------------------


class ReportStarted(Struct, frozen=True, kw_only=True):
    """The container's own code runs."""

    launch_id: str
    launched: Launched
    phases_us: dict[str, int] = {}


class ReportStartFailed(Struct, frozen=True, kw_only=True):
    """The container's own code never ran."""

    launch_id: str
    stage: str
    reason: str
    errno: int | None = None


class ReportExited(Struct, frozen=True, kw_only=True):
    """The container's init is gone; ``source`` says who told."""

    launch_id: str
    exit: ExitStatus
    source: str
    exited_at_ns: int
    oom: bool = False


class ReportKilled(Struct, frozen=True, kw_only=True):
    """A signal was delivered, or not (``errno``); ``why`` and ``owner`` as in ``worker.Killed``.

    ``untold``: why nobody can tell which of the two.
    """

    kill_id: str
    errno: int | None = None
    why: str = ""
    owner: str = ""
    untold: str = ""


class ReportFrozen(Struct, frozen=True, kw_only=True):
    """A pause or a resume is done for all, or, with an ``error``, for none."""

    pause_id: str
    error: str = ""


class ReportSaved(Struct, frozen=True, kw_only=True):
    """An image is whole and on disk; ``revived`` are the new processes of those that run on."""

    checkpoint_id: str
    image_bytes: int
    digest: str
    resumed: bool
    revived: dict[str, Launched] = {}


class ReportSaveFailed(Struct, frozen=True, kw_only=True):
    """There is no image, and everything runs on; if ``interrupted``, as far as anybody knows."""

    checkpoint_id: str
    stage: str
    reason: str
    revived: dict[str, Launched] = {}


class ReportImageLost(Struct, frozen=True, kw_only=True):
    """The image that a restore was begun with is gone."""

    restore_id: str
    reason: str


class ReportDestroyed(Struct, frozen=True, kw_only=True):
    """Nothing of a launch is left, but for ``leftovers``."""

    launch_id: str
    leftovers: tuple[str, ...] = ()


class ReportLost(Struct, frozen=True, kw_only=True):
    """Nobody can tell any more what became of a launch.

    ``ran``: its process was there once, whether its start is on record or not. ``doubtful``: of
    one whose start is not on record nobody can tell even that.
    """

    launch_id: str
    reason: str
    ran: bool = False
    doubtful: bool = False


class ReportHoldLost(Struct, frozen=True, kw_only=True):
    """Descriptors that waited in the worker for the start of ``cid`` are gone."""

    cid: str
    reason: str


class ReportExecuted(Struct, frozen=True, kw_only=True):
    """An executed process runs; ``pid`` is its number in the container's PID namespace."""

    exec_id: str
    pid: int
    launched: Launched


class ReportExecFailed(Struct, frozen=True, kw_only=True):
    """A process that was to be executed never ran."""

    exec_id: str
    stage: str
    reason: str
    errno: int | None = None


class ReportProcessExited(Struct, frozen=True, kw_only=True):
    """An executed process is gone; ``source`` says who told."""

    exec_id: str
    exit: ExitStatus
    source: str
    exited_at_ns: int


class ReportProcessLost(Struct, frozen=True, kw_only=True):
    """Nobody can tell what became of an executed process; ``doubtful``: if it ever ran."""

    exec_id: str
    reason: str
    doubtful: bool = False


ClientCommand: TypeAlias = (
    CreateSandbox
    | StartRoot
    | CreateSubcontainer
    | StartSubcontainer
    | RestoreSubcontainer
    | Restore
    | DestroySubcontainer
    | Signal
    | Execute
    | Pause
    | Checkpoint
    | DeleteSandbox
)
Report: TypeAlias = (
    ReportStarted
    | ReportStartFailed
    | ReportExited
    | ReportKilled
    | ReportFrozen
    | ReportSaved
    | ReportSaveFailed
    | ReportImageLost
    | ReportDestroyed
    | ReportLost
    | ReportHoldLost
    | ReportExecuted
    | ReportExecFailed
    | ReportProcessExited
    | ReportProcessLost
)
Command: TypeAlias = ClientCommand | Report
