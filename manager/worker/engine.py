"""What the worker asks of an engine, whichever it is."""

import contextlib
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from msgspec import Struct

from manager.domain.features import Feature
from manager.domain.spec import Process, Rlimit, Spec
from manager.kernel import pidfd
from manager.kernel.namespaces import open_namespace
from manager.schema.observation import ProcessFacts
from manager.schema.worker_facts import PidIdentity
from manager.urpc.fds import FdBundle, OwnedFd
from manager.worker.cgroups import Cgroup
from manager.worker.criu import Criu
from manager.worker.delivery import (
    DELIVERED,
    EVERYONE,
    INIT,
    NOBODY,
    Delivery,
    Inhabitants,
    Target,
    deliver,
    send,
)
from manager.worker.exec_order import ExecOrder
from manager.worker.exit_report import ExitReport
from manager.worker.loop import Child, Pause, Steps
from manager.worker.phases import Phases
from manager.worker.process_facts import facts_of
from manager.worker.processes import Processes
from manager.worker.resources import Limits
from manager.worker.root_plan import RootPlan
from manager.worker.stage import LaunchStage

SHARED_NAMESPACES: Final = ("net", "ipc", "uts", "pid")
"""Kept open while a container lives, for others to join."""

OPEN_FILES: Final = "RLIMIT_NOFILE"

FROZEN_POLL_SECONDS: Final = 0.005
FROZEN_ROUNDS_MAX: Final = 1000
"""How often, and how many times, to ask whether the freezer is done."""


class Job(Struct, kw_only=True):
    """Everything an engine needs to start one container. Descriptors are lent.

    Attributes:
        engine_id: 32 hex digits.
        spec: The spec as the client wrote it; `body` is its JSON object.
        root_plan: What the engine still has to mount.
        stage: Where the finished root is, and room for a bundle.
        stdio: Become 0, 1, 2.
        terminal: The three are one terminal, which becomes init's controlling terminal.
        namespaces: Namespaces to join (`net`, `ipc`, `uts`, `pid`); a missing one is made new.
        run_hooks: Whether the spec's hooks may run.
        cgroup: Created; the engine puts init in, and sets the limits before it runs.
    """

    engine_id: str
    spec: Spec
    body: dict[str, object]
    root_plan: RootPlan
    stage: LaunchStage
    stdio: tuple[int, int, int]
    terminal: bool
    namespaces: Mapping[str, int]
    cgroup: Cgroup
    limits: Limits
    phases: Phases
    run_hooks: bool = False

    @property
    def process(self) -> Process:
        """The container's init, which every spec that gets here has."""
        assert self.spec.process is not None
        return self.spec.process

    @property
    def program(self) -> str:
        """What is to be executed, for messages."""
        return self.process.args[0] if self.process.args else ""


class Host(Struct, frozen=True, kw_only=True):
    """What every engine needs of this machine.

    Attributes:
        processes: Where children live.
        nothing: /dev/null, opened for reading and writing; lent.
        exit_status_by_pidfd: Whether the kernel tells init's status to those who did not reap it.
        lacks: What the machine itself does not allow, whatever the engine.
        criu: What can save processes here, for engines that cannot by themselves.
        open_files: Soft and hard limit of open files, for containers whose spec names none: the
            worker raises its own.
    """

    processes: Processes
    nothing: OwnedFd
    exit_status_by_pidfd: bool
    lacks: frozenset[Feature]
    criu: Criu
    open_files: tuple[int, int]

    def limits_for(self, process: Process) -> tuple[Rlimit, ...]:
        """The limits of a spec, and that of open files whether it is there or not."""
        given = process.rlimits or ()
        if any(limit.type == OPEN_FILES for limit in given):
            return given
        soft, hard = self.open_files
        return (*given, Rlimit(type=OPEN_FILES, soft=soft, hard=hard))


class Running(Struct, kw_only=True):
    """A container whose code runs, or has run. Owns its descriptors.

    Attributes:
        engine_id: What the engine calls it.
        pid: Its init, in the worker's PID namespace.
        pidfd: The same; `None` if it was gone before anybody could look.
        start_ticks: When init was started; 0 if nobody could look.
        namespaces: Its `net`, `ipc`, `uts` and `pid`, for others to join; none where an engine
            keeps its own.
        cgroup: Its cgroup.
        init: Set if init is, or may become, a child of the worker.
        monitor: A process of the engine that is init's parent.
        relay: A process that carries the bytes of its terminal.
        maybe_paused: Whether it is paused, or may be: a former worker may have paused it.
        kernel: A connection to its kernel, where it has one of its own: to be told how it ends.
        config: What its engine was told, without env values, for an engine that may have to be
            told again; empty if a former worker has started it.
        engine_program: What init executed before the client's program; see `executing`. Empty if
            that is not waited for.
    """

    engine_id: str
    pid: int
    pidfd: OwnedFd | None
    cgroup: Cgroup
    start_ticks: int = 0
    namespaces: dict[str, OwnedFd] = {}
    init: Child | None = None
    monitor: Child | None = None
    relay: Child | None = None
    maybe_paused: bool = False
    kernel: OwnedFd | None = None
    config: bytes = b""
    engine_program: bytes = b""

    def identity(self, boot_id: str) -> PidIdentity:
        """Which process its init is, for whoever comes later in this boot of the machine."""
        return PidIdentity(
            pid=self.pid,
            start_ticks=self.start_ticks,
            pidfd_inode=pidfd.inode(self.pidfd.number) if self.pidfd is not None else 0,
            boot_id=boot_id,
        )

    def close(self) -> None:
        """Close the descriptors."""
        if self.pidfd is not None:
            self.pidfd.close()
        if self.kernel is not None:
            self.kernel.close()
        for namespace in self.namespaces.values():
            namespace.close()


def observe(engine_id: str, pid: int, handle: OwnedFd | None, cgroup: Cgroup) -> Running:
    """Note what can only be seen while init lives; ownership of its pidfd moves in."""
    running = Running(engine_id=engine_id, pid=pid, pidfd=handle, cgroup=cgroup)
    if handle is not None and not pidfd.has_exited(handle.number):
        running.start_ticks = pidfd.start_ticks(pid)
        cgroup.note_init(pid)
        with contextlib.suppress(OSError):
            for name in SHARED_NAMESPACES:
                running.namespaces[name] = open_namespace(pid, name)
        if pidfd.has_exited(handle.number):
            # What was opened may be a stranger's.
            while running.namespaces:
                running.namespaces.popitem()[1].close()
    return running


def signal_running(running: Running, signo: int, target: Target = INIT) -> Delivery:
    """Signal within a container whose processes are the kernel's own."""
    if target.mode == EVERYONE:
        spared = () if running.monitor is None else (running.monitor.pid,)
        running.cgroup.signal_everyone(signo, spared=spared)
        return DELIVERED
    if running.pidfd is None:
        return NOBODY
    if target == INIT:
        delivery = send(running.pidfd, signo)
    else:
        delivery = deliver(Inhabitants(running.pid, running.cgroup), signo, target)
    if signo == signal.SIGKILL:
        running.cgroup.freeze(False)  # nothing dies while it is frozen
    return delivery


class Engine(Protocol):
    """One engine on this machine.

    Every method may be interrupted at any of its waits by LaunchFailed; what it spawned is dead
    then, and what it made is left to `clean_up`.
    """

    @property
    def name(self) -> str:
        """`crun`, `runc`, `runsc` or `bwrap`."""
        ...

    @property
    def path(self) -> Path:
        """The program."""
        ...

    @property
    def version(self) -> str:
        """The program's version, as it says itself; empty if it did not say."""
        ...

    @property
    def joins_namespaces(self) -> bool:
        """Whether containers share namespaces; if not, each has a kernel of its own."""
        ...

    @property
    def serves_files(self) -> bool:
        """Whether it needs every mount point in the root, also those that another mount hides."""
        ...

    @property
    def lacks(self) -> frozenset[Feature]:
        """What a spec may ask for and this engine cannot give here."""
        ...

    @property
    def why_not(self) -> Mapping[Feature, str]:
        """Why it cannot give some of these, in words for a person."""
        ...

    def start(self, job: Job) -> Steps[Running]:
        """Start the container; returns when its own code runs.

        Raises:
            LaunchFailed: Stage `create`, `exec` or `cgroup`.
        """
        ...

    def adopt(self, running: Running) -> None:
        """Take up with a container that a former worker started and that runs."""
        ...

    def wait(self, running: Running) -> Steps[ExitReport]:
        """Wait, for as long as it takes, until init is gone."""
        ...

    def wait_executed(self, running: Running, number: int, place: Path) -> Steps[ExitReport]:
        """Wait for the end of what `execute` has made: under this number, at its order's place."""
        ...

    def signal(self, running: Running, signo: int, target: Target) -> Steps[Delivery]:
        """Signal one process of the container, all of them, or a process group."""
        ...

    def execute(self, order: ExecOrder) -> Steps[tuple[Running, int]]:
        """Execute one more process in a container that runs.

        Returns:
            The process, for `wait_executed`, and its number in the container's PID namespace.

        Raises:
            LaunchFailed: Stage `create`, `exec` or `cgroup`: it did not run.
        """
        ...

    def freeze(self, running: Running, *, frozen: bool) -> Steps[str]:
        """Stop every process, or let them go on; returns why it could not be done."""
        ...

    def processes(
        self, launch_id: str, running: Running, *, details: bool
    ) -> Steps[tuple[ProcessFacts, ...]]:
        """Look at every process."""
        ...

    def clean_up(self, engine_id: str) -> Steps[list[str]]:
        """Remove the engine's own traces, after everything is dead; returns what is left."""
        ...


@runtime_checkable
class SavingEngine(Protocol):
    """An engine that can put a container into files, and bring it back from them.

    Its files are read and written by the engine alone; whose they are is the caller's business.
    """

    def restore(self, job: Job, image: Path) -> Steps[Running]:
        """Go on from files that `save` made, instead of `Engine.start`.

        The engine id must be the one that the container had when it was saved.

        Raises:
            LaunchFailed: Stage `restore` or `create`.
        """
        ...

    def unsaveable(self, running: Running) -> str:
        """Look whether a container can be saved, before anything is done to it; returns why not."""
        ...

    def save(self, running: Running, image: Path) -> Steps[str]:
        """Write a container that is frozen to files in a directory.

        After that it can go on as if nothing had been; see `RevivingEngine` for those of which
        it cannot.

        Returns:
            Why it could not be done; empty if it was.
        """
        ...


@runtime_checkable
class RevivingEngine(SavingEngine, Protocol):
    """An engine under which a container that was saved can only end.

    It ends at once, or as soon as it may go on. If it was not saved, it can go on.
    """

    def streams(self, running: Running) -> FdBundle:
        """Duplicate the container's stdin, stdout and stderr, for `revive`.

        Raises:
            OSError: It has ended.
        """
        ...

    def revive(
        self, running: Running, image: Path, stage: LaunchStage, streams: FdBundle
    ) -> Steps[Running]:
        """Have a container that was saved go on here and now, as a new process.

        `streams` are lent.

        Raises:
            LaunchFailed: It has ended for good.
        """
        ...


def processes_of(launch_id: str, running: Running, *, details: bool) -> tuple[ProcessFacts, ...]:
    """Look at every process of a container whose processes are the kernel's own."""
    spared = None if running.monitor is None else running.monitor.pid
    pids = [pid for pid in running.cgroup.pids() if pid != spared]
    return tuple(facts_of(launch_id, pids, details=details))


def freeze_running(running: Running, *, frozen: bool) -> Steps[str]:
    """Stop a container whose processes are the kernel's own, or let it go on.

    Returns:
        Why it could not be done; empty if it was.
    """
    running.cgroup.freeze(frozen)
    for _ in range(FROZEN_ROUNDS_MAX):
        if running.cgroup.is_frozen() == frozen:
            return ""
        yield Pause(seconds=FROZEN_POLL_SECONDS)
    running.cgroup.freeze(not frozen)
    return "the kernel did not stop every process in time"
