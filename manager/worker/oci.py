"""OCI runtimes: `create`, `start`, `delete` of crun and runc, and of runsc with additions.

Never `run --detach`: it can lose the exit status of a container that ends at once. Between `create`
and `start` there is a process, init, that has not run a line of the client's code: the moment to
put it into its cgroup.

To run a program takes an engine longer than what crun has to do to start or to delete a container
that nobody lives in any more: a byte into a FIFO, and a directory less. Both are done here.
"""

import contextlib
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from manager.domain.features import Feature
from manager.schema.observation import ProcessFacts
from manager.urpc.fds import OwnedFd
from manager.worker import commands
from manager.worker.cgroups import Cgroup
from manager.worker.console import ConsoleSocket, start_relay
from manager.worker.delivery import Delivery, Target
from manager.worker.domain_name import name_domain
from manager.worker.engine import (
    Host,
    Job,
    Running,
    freeze_running,
    observe,
    processes_of,
    signal_running,
)
from manager.worker.engine_messages import explain
from manager.worker.errors import LaunchFailed, one_line
from manager.worker.exec_order import ExecOrder
from manager.worker.executing import program_of
from manager.worker.exit_report import ExitReport
from manager.worker.loop import Child, Steps
from manager.worker.oci_config import Changes, build_config
from manager.worker.oci_exec import ExecDialect, execute
from manager.worker.waiting import wait_as_a_parent, wait_as_a_stranger

CREATE_SECONDS: Final = 20.0
START_SECONDS: Final = 20.0
DELETE_SECONDS: Final = 10.0
"""Longest time for each command of an engine; after it the engine is killed."""

CONFIG_MODE: Final = 0o600

START_FIFO: Final = "exec.fifo"
"""In a container's state: where its init waits for a byte."""


class _Hooks(Struct, frozen=True):
    """What is asked of a config: whether it has any, whatever they are."""

    hooks: msgspec.Raw | None = None


class Dialect(Struct, frozen=True, kw_only=True):
    """How one runtime differs from the others.

    Attributes:
        name: Its name.
        global_options: Before the command, after `--root DIR`.
        bundle_option: How `create` is told the bundle.
        applies_resources: Whether it manages cgroups, and so gets `linux.resources`.
        delete: The command that removes a container whatever its state.
        bare_state: Whether a container without hooks is started by a byte into START_FIFO of its
            state, and deleted, once nothing of it runs, by removing that state: as crun has it in
            all its versions. Source: crun src/libcrun/status.c, container.c.
        serves_files: Whether it serves the root filesystem to the container through a process of
            its own, which makes mount points there, and takes a read-only root for a read-only
            everything.
        lacks: Features of a spec that it cannot give.
        exec: How its `exec` is asked.
    """

    name: str
    global_options: tuple[str, ...] = ()
    bundle_option: str = "--bundle"
    applies_resources: bool = False
    delete: tuple[str, ...] = ("delete", "--force")
    bare_state: bool = False
    serves_files: bool = False
    lacks: frozenset[Feature] = frozenset()
    exec: ExecDialect = ExecDialect()


CRUN: Final = Dialect(
    name="crun",
    exec=ExecDialect(name="crun"),
    bare_state=True,
    global_options=("--cgroup-manager=disabled",),
    lacks=frozenset(
        {
            "checkpoint",
            "idmapped-mounts",
            "intel-rdt",
            "resources-beyond-memory-pids-cpu",
            "time-namespace",
            "user-namespace",
            # What it mounts is the machine's own hierarchy, from the top.
            "writable-cgroup-mount",
        }
    ),
)
RUNC: Final = Dialect(
    name="runc",
    exec=ExecDialect(name="runc"),
    applies_resources=True,
    lacks=frozenset(
        {
            "idmapped-mounts",
            "personality",
            "time-namespace",
            "user-namespace",
        }
    ),
)


class OciEngine:
    """An OCI runtime on this machine.

    Args:
        dialect: Which one.
        path: The program.
        version: As it says itself.
        state_dir: Directory for its own records, existing.
        host: What it needs of this machine.
        why_not: Why this very program cannot give some of what it lacks.
    """

    joins_namespaces = True

    def __init__(
        self,
        dialect: Dialect,
        *,
        path: Path,
        version: str,
        state_dir: Path,
        host: Host,
        why_not: Mapping[Feature, str],
    ) -> None:
        self._dialect = dialect
        self.name = dialect.name
        self.path = path
        self.version = version
        self.serves_files = dialect.serves_files
        self._why_not = why_not
        self._state_dir = state_dir
        self._host = host

    @property
    def lacks(self) -> frozenset[Feature]:
        """See :class:`manager.worker.engine.Engine`."""
        return self._dialect.lacks | self._host.lacks

    @property
    def why_not(self) -> Mapping[Feature, str]:
        """See :class:`manager.worker.engine.Engine`."""
        return self._why_not

    def start(self, job: Job) -> Steps[Running]:
        """See :class:`manager.worker.engine.Engine`."""
        bundle = job.stage.bundle
        self._write_config(bundle, self._config(job))
        try:
            with contextlib.ExitStack() as owned:
                console = owned.enter_context(ConsoleSocket(bundle)) if job.terminal else None
                born_inside = yield from self._create(job, bundle, console)
                running = self._take_init(job.engine_id, job.cgroup, bundle)
                if console is not None:
                    master = owned.enter_context(console.receive())
                    terminal = job.stdio[0]
                    running.relay = start_relay(self._host.processes, terminal, master.number)
            job.phases.lap("create")
            try:
                if not born_inside:
                    job.cgroup.add(running.pid)
                if not self._dialect.applies_resources:
                    job.cgroup.limit(job.limits)
                name_domain(job, running)
                if not self._dialect.exec.own_kernel:
                    running.engine_program = program_of(running.pid)
                job.phases.lap("cgroup")
                yield from self._start(job, bundle)
                job.phases.lap("start")
            except BaseException:
                self._let_go(running)
                raise
            return running
        finally:
            # It has the env values; nobody needs it any more.
            (bundle / "config.json").unlink(missing_ok=True)

    def adopt(self, running: Running) -> None:
        """See :class:`manager.worker.engine.Engine`."""

    def wait(self, running: Running) -> Steps[ExitReport]:
        """See :class:`manager.worker.engine.Engine`."""
        if running.init is None:
            by_pidfd = self._host.exit_status_by_pidfd
            return (yield from wait_as_a_stranger(running, by_pidfd=by_pidfd))
        return (yield from wait_as_a_parent(running, self._host.processes))

    def execute(self, order: ExecOrder) -> Steps[tuple[Running, int]]:
        """See :class:`manager.worker.engine.Engine`."""
        return (yield from execute(self._host, order, self._command("exec"), self._dialect.exec))

    def wait_executed(self, running: Running, number: int, place: Path) -> Steps[ExitReport]:  # noqa: ARG002 - the kernel tells
        """See :class:`manager.worker.engine.Engine`."""
        return (yield from self.wait(running))

    def signal(self, running: Running, signo: int, target: Target) -> Steps[Delivery]:
        """See :class:`manager.worker.engine.Engine`."""
        return signal_running(running, signo, target)
        yield  # a generator, as others have to wait here

    def freeze(self, running: Running, *, frozen: bool) -> Steps[str]:
        """See :class:`manager.worker.engine.Engine`."""
        return (yield from freeze_running(running, frozen=frozen))

    def processes(
        self, launch_id: str, running: Running, *, details: bool
    ) -> Steps[tuple[ProcessFacts, ...]]:
        """See :class:`manager.worker.engine.Engine`."""
        return processes_of(launch_id, running, details=details)
        yield  # a generator, as others have to wait here

    def clean_up(self, engine_id: str) -> Steps[list[str]]:
        """See :class:`manager.worker.engine.Engine`."""
        if not self._traces(engine_id):
            return []
        result = commands.Result(code=os.EX_OK)
        if not self._dialect.bare_state or self._has_hooks(engine_id):
            result = yield from self._delete(engine_id)
        for path in self._traces(engine_id):
            # runsc leaves its lock behind, and no engine removes what was never finished. A link
            # that named a descriptor may name a directory by now.
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if not self._traces(engine_id):
            return []
        return [f"{self.name} {engine_id}: {one_line(result.output) or f'exit {result.code}'}"]

    def _delete(self, engine_id: str) -> Steps[commands.Result]:
        try:
            return (
                yield from commands.run(
                    self._host.processes,
                    [*self._command(), *self._dialect.delete, "--", engine_id],
                    seconds=DELETE_SECONDS,
                    nothing=self._host.nothing.number,
                )
            )
        except OSError as error:  # its program is gone: all that there is are files
            return commands.Result(code=os.EX_UNAVAILABLE, output=str(error))

    def _has_hooks(self, engine_id: str) -> bool:
        """Whether the engine may have to run something when the container is deleted."""
        try:
            config = (self._state_dir / engine_id / "config.json").read_bytes()
            return msgspec.json.decode(config, type=_Hooks).hooks is not None
        except (OSError, msgspec.MsgspecError):
            return True

    def _traces(self, engine_id: str) -> list[Path]:
        # Not all begin with it: gVisor of 2024 has a socket `runsc-ID.sock`.
        names = os.listdir(self._state_dir)
        return [self._state_dir / name for name in names if engine_id in name]

    def _command(self, *options: str) -> list[str]:
        root = ("--root", str(self._state_dir))
        return [str(self.path), *self._dialect.global_options, *root, *options]

    def _config(self, job: Job) -> dict[str, object]:
        stage = job.stage
        changes = Changes(
            root=stage.root,
            parts=stage.parts,
            namespaces=self._namespace_paths(job),
            cgroups_path=job.cgroup.path,
            rlimits=self._host.limits_for(job.process),
            terminal=job.terminal,
            keep_resources=self._dialect.applies_resources,
            run_hooks=job.run_hooks,
            readonly=job.root_plan.readonly and not self._dialect.serves_files,
        )
        return build_config(job.body, job.root_plan, changes)

    def _namespace_paths(self, job: Job) -> dict[str, str]:
        return {name: f"/proc/{os.getpid()}/fd/{fd}" for name, fd in job.namespaces.items()}

    def _write_config(self, bundle: Path, config: dict[str, object]) -> None:
        write_private(bundle / "config.json", msgspec.json.encode(config))

    def _create(self, job: Job, bundle: Path, console: ConsoleSocket | None) -> Steps[bool]:
        log = bundle / "create.log"
        argv = self._command("--log", str(log), "--log-format", "json")
        argv += ["create", self._dialect.bundle_option, str(bundle)]
        argv += ["--pid-file", str(bundle / "pid")]
        stdio = job.stdio
        if console is not None:
            argv += ["--console-socket", console.path]
            stdio = (self._host.nothing.number,) * 3
        try:
            child, born_inside = self._spawn(job, [*argv, "--", job.engine_id], stdio)
        except OSError as error:
            raise LaunchFailed.from_os("create", f"cannot run {self.path}", error) from error
        ended = yield from commands.finish(child, seconds=CREATE_SECONDS)
        self._check(job, child, "create", log, ended=ended)
        return born_inside

    def _spawn(self, job: Job, argv: list[str], stdio: tuple[int, int, int]) -> tuple[Child, bool]:
        """Run it, and say whether all that it forks is in the container's cgroup."""
        if self._dialect.applies_resources:
            return self._host.processes.spawn(argv, stdio=stdio), False
        # Whatever it forks is found by the cgroup then, however it ends.
        with job.cgroup.inhabited() as born_inside:
            child = self._host.processes.spawn(argv, stdio=stdio)
        if not born_inside:
            job.cgroup.add(child.pid)
        return child, born_inside

    def _start(self, job: Job, bundle: Path) -> Steps[None]:
        fifo = self._state_dir / job.engine_id / START_FIFO
        # A version that has no such thing there is asked to start it, which takes longer.
        if self._dialect.bare_state and not job.run_hooks and fifo.exists():
            self._let_start(fifo)
            return
        log = bundle / "start.log"
        argv = self._command("--log", str(log), "--log-format", "json")
        argv += ["start", "--", job.engine_id]
        stdio = (self._host.nothing.number,) * 3
        child = self._host.processes.spawn(argv, stdio=stdio)
        ended = yield from commands.finish(child, seconds=START_SECONDS)
        self._check(job, child, "start", log, ended=ended)

    def _let_start(self, fifo: Path) -> None:
        try:
            # Init has had it open since it was made; one that is gone is not waited for.
            with OwnedFd(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)) as gate:
                fifo.unlink()
                os.write(gate.number, b"\0")
        except OSError as error:
            doing = f"{self.name}: init does not wait to be started"
            raise LaunchFailed.from_os("create", doing, error) from error

    def _check(self, job: Job, child: Child, doing: str, log: Path, *, ended: bool) -> None:
        if not ended:
            raise LaunchFailed("create", f"{self.name} {doing} took too long and was killed")
        if child.status:
            output = log.read_text(errors="replace") if log.exists() else ""
            raise explain(self.name, doing, output, job.program)

    def _take_init(self, engine_id: str, cgroup: Cgroup, bundle: Path) -> Running:
        pid = int((bundle / "pid").read_text(encoding="ascii"))
        inherited = self._host.processes.inherit(pid)
        if inherited is None:
            raise LaunchFailed("create", f"{self.name}: init was gone as soon as it was made")
        child, handle = inherited
        running = observe(engine_id, pid, handle, cgroup)
        running.init = child
        return running

    def _let_go(self, running: Running) -> None:
        if running.init is not None:
            self._host.processes.forget(running.init)
        signal_running(running, signal.SIGKILL)
        running.close()


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, and that was never anything else."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(path, flags, CONFIG_MODE), "wb") as file:
        file.write(content)
