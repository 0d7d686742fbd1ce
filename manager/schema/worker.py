"""What the manager and the worker say to each other.

One message is one msgpack frame on the private socket; descriptors ride on the frame's first byte.
The manager sends commands, the worker answers with *outcomes*. An outcome carries a sequence number
and is kept by the worker, across manager restarts, until the manager has acknowledged it with
:class:`Ack`, which it does only once the event that records it is durable. Commands are idempotent:
the worker acts once on a ``launch_id``, ``hold_id``, ``kill_id``, ``exec_id`` or ``destroy`` and
answers a repeated one with the outcome that it already has.

Conversation::

    manager -> Hello                 worker -> Welcome, then every outcome not yet acknowledged
    manager -> Hold + FDs            worker -> Held
    manager -> Launch + FDs          worker -> Started | StartFailed ... later Exited
    manager -> Kill                  worker -> Killed
    manager -> Execute + FDs         worker -> Executed | ExecFailed ... later ProcessExited
    manager -> Save + FD             worker -> Saved | SaveFailed, and Exited of those that end
    manager -> Destroy               worker -> Exited (if it lived), Destroyed
    manager -> Retell                worker -> Started, Executed of each that runs
    manager -> Release, Ack, Stop    (no answer)
"""

from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from manager.domain.payload import LaunchPlan
from manager.schema import worker_facts, worker_images
from manager.schema.observation import ProcessFacts, UsageFacts

PROTOCOL_VERSION: Final = 5

SignalProblem: TypeAlias = Literal[
    "", "no-process", "no-group", "no-terminal", "other-container", "unsupported"
]

PidIdentity = worker_facts.PidIdentity
EngineReport = worker_facts.EngineReport
ExecProcess = worker_facts.ExecProcess
LaunchFact = worker_facts.LaunchFact
Revived = worker_facts.Revived
LogMark = worker_facts.LogMark
Save = worker_images.Save
Saved = worker_images.Saved
SaveFailed = worker_images.SaveFailed


# --- manager to worker ---------------------------------------------------------------------------


class Hello(Struct, frozen=True, kw_only=True, tag="hello"):
    """The first frame of a connection. A later connection replaces an earlier one."""

    protocol: int
    manager_pid: int


class Hold(Struct, frozen=True, kw_only=True, tag="hold"):
    """Keep the frame's descriptors under this name until a launch uses them or they are released.

    Ownership passes to the worker with the frame. ``spec`` travels along for a root container: it
    has env values, which the manager never writes down.
    """

    hold_id: str
    spec: bytes = b""


class Release(Struct, frozen=True, kw_only=True, tag="release"):
    """Close what is held under this name. Unknown names are ignored."""

    hold_id: str


class Launch(Struct, frozen=True, kw_only=True, tag="launch"):
    """Start one container.

    Attributes:
        launch_id: Names this one start for ever.
        engine_id: What the engine calls the container: 32 hex digits, never a client's id.
        engine: ``crun``, ``runc``, ``runsc`` or ``bwrap``.
        spec: The OCI runtime spec as JSON, env values included; empty: the one that was held under
            ``held_fds``.
        plan: Roles of the descriptors, as indices into the descriptors of this frame, or into
            those held under ``held_fds``.
        held_fds: Use the descriptors held under this name instead of the frame's.
        held_tty: The one descriptor held under this name is the container's terminal.
        sandbox: ``launch_id`` of the root container whose net, ipc and uts namespaces are joined;
            ``None`` for a root container, which gets new ones.
        pid_namespace: ``launch_id`` of the container whose PID namespace is joined; ``None`` for a
            new one.
        held_image: Go on where an image was made instead of executing the spec's program: the
            image is the one descriptor held under this name, which stays held.
        image_name: The name of the container in that image.
        namespaces: The last descriptors of this frame are these namespaces, by their names under
            /proc/PID/ns, which it joins instead of the sandbox's.
        run_hooks: Whether the engine may run what the spec's hooks name.
    """

    launch_id: str
    engine_id: str
    engine: str
    spec: bytes
    plan: LaunchPlan
    held_fds: str | None = None
    held_tty: str | None = None
    sandbox: str | None = None
    pid_namespace: str | None = None
    held_image: str = ""
    image_name: str = ""
    namespaces: tuple[str, ...] = ()
    run_hooks: bool = False


class Kill(Struct, frozen=True, kw_only=True, tag="kill"):
    """Send a signal within a container.

    ``mode`` is gVisor's: 0 one process, 1 every process of the container, 2 the foreground process
    group of a process's terminal, 3 a process group. ``pid`` names the process or the group by its
    number in the container's PID namespace; 0 is the container's init. An answer that is not
    ``durable`` is said once: no log waits for it.
    """

    kill_id: str
    launch_id: str
    signo: int
    pid: int = 0
    mode: int = 0
    durable: bool = True


class Execute(Struct, frozen=True, kw_only=True, tag="execute"):
    """Run one more process in a container that runs. Ownership of the descriptors passes."""

    exec_id: str
    launch_id: str
    process: ExecProcess


class Freeze(Struct, frozen=True, kw_only=True, tag="freeze"):
    """Stop every process of these launches, or let them go on: all of them or none.

    One that does not run any more is left out.
    """

    pause_id: str
    launch_ids: tuple[str, ...]
    frozen: bool


class Ask(Struct, frozen=True, kw_only=True, tag="ask"):
    """A question about launches; the answer is no outcome, and a lost one is asked again.

    ``what``: their processes; these with all that /proc tells; what they have used.
    """

    ask_id: str
    launch_ids: tuple[str, ...]
    what: Literal["processes", "details", "usage"]


class Destroy(Struct, frozen=True, kw_only=True, tag="destroy"):
    """End every process of a launch and remove all that it left: mounts, cgroup, bundle, state.

    Works in any phase: a launch still under way is given up, one that is gone is already destroyed.
    """

    launch_id: str


class Ack(Struct, frozen=True, kw_only=True, tag="ack"):
    """Outcomes up to and including ``seq`` are durable: forget them, after noting ``mark``.

    ``mark`` is the newest record then, so that of whatever is forgotten the outcome lies before it.
    """

    seq: int
    mark: LogMark | None = None


class Retell(Struct, frozen=True, kw_only=True, tag="retell"):
    """Say again of everything that runs that it does: the log is older than what it was told."""


class Stop(Struct, frozen=True, kw_only=True, tag="stop"):
    """Exit once no container runs and every outcome is acknowledged; until then serve on."""


# --- worker to manager ---------------------------------------------------------------------------


class Welcome(Struct, frozen=True, kw_only=True, tag="welcome"):
    """Answer to :class:`Hello`: who the worker is, what works here, what it holds and runs."""

    protocol: int
    worker: PidIdentity
    kernel: str
    engines: tuple[EngineReport, ...]
    capabilities: dict[str, str]
    """Probed kernel facility -> the path taken, e.g. ``{"exit-status": "PIDFD_GET_INFO"}``."""
    held: tuple[str, ...] = ()
    launches: tuple[LaunchFact, ...] = ()
    saves: tuple[str, ...] = ()
    """Checkpoint ids of the images that are being made, or of which it will yet report."""
    executions: tuple[str, ...] = ()
    """Exec ids of the processes that it will yet report of."""
    leftovers: tuple[str, ...] = ()
    """What this worker found of former ones that belongs to no launch, and set about to remove."""
    mark: LogMark | None = None
    """The last one that it, or a worker before it, was given; ``None``: nothing is left of any."""


class Held(Struct, frozen=True, kw_only=True, tag="held"):
    """The descriptors of a :class:`Hold` have arrived and are safe from a manager's crash."""

    seq: int
    hold_id: str


class Started(Struct, frozen=True, kw_only=True, tag="started"):
    """The container's own code runs."""

    seq: int
    launch_id: str
    identity: PidIdentity
    engine: str
    engine_version: str
    started_at_ns: int
    phases_us: dict[str, int]
    """How long each step took, in microseconds, in the order taken: ``mounts``, ``cgroup``,
    ``create``, ``start``, ``execute``; of a restore, ``image`` and ``restore`` for the last three.
    """
    cpu_ns: int = 0
    """Processor time that bringing it back from an image has taken."""


class StartFailed(Struct, frozen=True, kw_only=True, tag="start_failed"):
    """The container's code never ran, and nothing of the attempt is left.

    ``reason`` is one line for a person. ``errno`` is the kernel's, where one is the cause
    (``ENOENT`` with stage ``exec``: the program is not in the root filesystem).
    """

    seq: int
    launch_id: str
    stage: worker_facts.FailedStage
    reason: str
    errno: int | None = None


class Exited(Struct, frozen=True, kw_only=True, tag="exited"):
    """The container's init is gone.

    ``status`` is the raw wait status (wait(2)): 768 for ``exit(3)``, 9 for SIGKILL; ``None`` where
    nobody can tell any more, and ``loss`` then says why. ``source`` says who told. ``oom`` is true
    when the memory cgroup counted a kill.
    """

    seq: int
    launch_id: str
    status: int | None
    source: Literal["waitid", "pidfd-info", "proc-stat", "engine", "unknown"]
    exited_at_ns: int
    oom: bool = False
    loss: str = ""


class Killed(Struct, frozen=True, kw_only=True, tag="killed"):
    """Answer to :class:`Kill`: delivered, or the errno of the failure (``ESRCH``: none left).

    ``why`` says which process was not there; ``owner`` is the launch that a process of another
    container belongs to.
    """

    seq: int
    kill_id: str
    errno: int | None = None
    why: SignalProblem = ""
    owner: str = ""


class Executed(Struct, frozen=True, kw_only=True, tag="executed"):
    """An executed process runs; ``pid`` is its number in the container's PID namespace."""

    seq: int
    exec_id: str
    launch_id: str
    pid: int
    identity: PidIdentity
    engine: str
    engine_version: str
    started_at_ns: int


class ExecFailed(Struct, frozen=True, kw_only=True, tag="exec_failed"):
    """A process that was to be executed never ran; ``reason`` and ``errno`` as for a start."""

    seq: int
    exec_id: str
    launch_id: str
    stage: str
    reason: str
    errno: int | None = None


class ProcessExited(Struct, frozen=True, kw_only=True, tag="process_exited"):
    """An executed process is gone; ``status``, ``source``, ``loss`` as in :class:`Exited`."""

    seq: int
    exec_id: str
    launch_id: str
    status: int | None
    source: Literal["waitid", "pidfd-info", "proc-stat", "engine", "unknown"]
    exited_at_ns: int
    loss: str = ""


class Frozen(Struct, frozen=True, kw_only=True, tag="frozen"):
    """Answer to :class:`Freeze`; with an ``error`` everything is as it was."""

    seq: int
    pause_id: str
    error: str = ""


class Destroyed(Struct, frozen=True, kw_only=True, tag="destroyed"):
    """Nothing of the launch is left, but for ``leftovers``, which could not be removed."""

    seq: int
    launch_id: str
    leftovers: tuple[str, ...] = ()


class Answer(Struct, frozen=True, kw_only=True, tag="answer"):
    """Answer to :class:`Ask`: what was asked for, of those launches that run."""

    ask_id: str
    processes: tuple[ProcessFacts, ...] = ()
    usages: tuple[UsageFacts, ...] = ()


ToWorker: TypeAlias = (
    Hello
    | Hold
    | Release
    | Launch
    | Save
    | Kill
    | Execute
    | Freeze
    | Ask
    | Destroy
    | Ack
    | Retell
    | Stop
)
Outcome: TypeAlias = (
    Held
    | Started
    | StartFailed
    | Exited
    | Killed
    | Frozen
    | Saved
    | SaveFailed
    | Destroyed
    | Executed
    | ExecFailed
    | ProcessExited
)
FromWorker: TypeAlias = Welcome | Outcome | Answer

encode = msgspec.msgpack.Encoder().encode
_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
_from_worker = msgspec.msgpack.Decoder(FromWorker).decode


def decode_to_worker(body: bytes) -> ToWorker:
    """Read a command; raises msgspec.DecodeError if it is none."""
    try:
        message: ToWorker = _to_worker(body)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error
    return message


def decode_from_worker(body: bytes) -> FromWorker:
    """Read what the worker says; raises msgspec.DecodeError if it is nothing."""
    try:
        message: FromWorker = _from_worker(body)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error
    return message
