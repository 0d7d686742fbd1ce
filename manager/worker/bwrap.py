"""bubblewrap: sets a sandbox up and waits, so that the worker can finish it before anything runs.

bubblewrap has no state and no daemon, and its process would stay as init's parent only to make an
exit code of init's status. It is ended before the program runs: init is a child of the worker then,
whom every kernel tells a code from a signal. Where it leads the session of a donated terminal, it
stays, as the terminal would be lost with it; the status comes from init's pidfd.
"""

import contextlib
import os
import resource
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from manager.domain.spec import Rlimit
from manager.kernel import pidfd
from manager.kernel.mount import shield_program
from manager.kernel.namespaces import entered
from manager.schema.observation import ProcessFacts
from manager.urpc.fds import OwnedFd
from manager.worker import commands
from manager.worker.bwrap_args import later_mounts, sandbox_arguments
from manager.worker.bwrap_exec import execute
from manager.worker.bwrap_lacks import LACKS, WHY_NOT
from manager.worker.cgroups import Cgroup
from manager.worker.completing import complete
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
from manager.worker.errors import LaunchFailed
from manager.worker.exec_order import ExecOrder
from manager.worker.executing import program_of
from manager.worker.exit_report import ExitReport, nobody_knows
from manager.worker.loop import Child, Pause, Steps
from manager.worker.processes import STOP_SECONDS, Processes
from manager.worker.program import check_program
from manager.worker.waiting import wait_as_a_parent, wait_as_a_stranger

SETUP_SECONDS: Final = 20.0
"""Longest time from bubblewrap's start until its sandbox stands."""

POLL_SECONDS: Final = 0.0005
"""How often to look whether the sandbox stands: bubblewrap itself does not say."""

DIAGNOSIS_SECONDS: Final = 5.0
"""Longest time for a second try whose only purpose is its error message."""

INFO_BYTES_MAX: Final = 4096

FIRST_ARGUMENTS: Final = b"--cap-drop\0ALL\0"
"""Written last, after which bubblewrap starts to work."""

NEEDED_OPTIONS: Final = ("--args", "--as-pid-1", "--block-fd", "--info-fd", "--perms", "--size")
"""What a version must know to be used at all (0.7)."""

JOIN_OPTION: Final = "--pidns"


class _Info(Struct, frozen=True, rename="kebab"):
    child_pid: int


class BwrapEngine:
    """bubblewrap on this machine.

    Args:
        path: The program.
        version: As it says itself.
        host: What it needs of this machine.
        can_join_pid_namespace: Whether this version knows `JOIN_OPTION`.
    """

    name = "bwrap"
    joins_namespaces = True
    serves_files = False

    def __init__(
        self, *, path: Path, version: str, host: Host, can_join_pid_namespace: bool
    ) -> None:
        self.path = path
        self.version = version
        self.lacks = LACKS | host.lacks
        self.why_not = WHY_NOT
        if not can_join_pid_namespace:
            self.lacks |= {"pid-namespace-join"}
        self._host = host

    def start(self, job: Job) -> Steps[Running]:
        """See :class:`manager.worker.engine.Engine`."""
        try:
            # OCI engines see to that themselves.
            shield_program(self.path)
        except OSError as error:
            raise LaunchFailed.from_os("create", f"cannot run {self.path}", error) from error
        with contextlib.ExitStack() as owned:
            attempt = _Attempt(self._host.processes, self.path, job, owned)
            monitor = yield from attempt.spawn(job.stdio)
            try:
                running = yield from self._set_up(attempt, job, monitor)
            except BaseException:
                yield from _end(monitor, job.cgroup)
                raise
            attempt.go()
            job.phases.lap("start")
            return running

    def adopt(self, running: Running) -> None:
        """See :class:`manager.worker.engine.Engine`."""
        monitor, inside = running.pid, running.cgroup.pids()
        while (above := pidfd.parent(monitor)) in inside:
            monitor = above
        if monitor != running.pid:
            running.cgroup.host(monitor)

    def wait(self, running: Running) -> Steps[ExitReport]:
        """See :class:`manager.worker.engine.Engine`."""
        if running.monitor is None and running.init is not None:
            return (yield from wait_as_a_parent(running, self._host.processes))
        if running.monitor is None:
            by_pidfd = self._host.exit_status_by_pidfd
            return (yield from wait_as_a_stranger(running, by_pidfd=by_pidfd))
        assert running.init is not None
        assert running.pidfd is not None
        yield Pause(child=running.monitor)
        if not pidfd.has_exited(running.pidfd.number):
            yield Pause(fd=running.pidfd.number)
        at_ns = running.monitor.reaped_at_ns
        if self._host.exit_status_by_pidfd:
            status = pidfd.exit_status(running.pidfd.number)
            if status is not None:
                self._host.processes.forget(running.init)
                return ExitReport(status=status, source="pidfd-info", at_ns=at_ns)
        if running.monitor.status is not None and os.WIFEXITED(running.monitor.status):
            self._host.processes.forget(running.init)
            status = _as_wait_status(running.monitor)
            return ExitReport(status=status, source="engine", at_ns=at_ns)
        # Somebody killed bubblewrap before init ended: init has become a child of ours.
        yield Pause(child=running.init, seconds=STOP_SECONDS)
        self._host.processes.forget(running.init)
        if running.init.status is None:
            return nobody_knows("bubblewrap was killed before it could tell", at_ns)
        return ExitReport(
            status=running.init.status, source="waitid", at_ns=running.init.reaped_at_ns
        )

    def execute(self, order: ExecOrder) -> Steps[tuple[Running, int]]:
        """See :class:`manager.worker.engine.Engine`."""
        return (yield from execute(self._host, order))

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

    def clean_up(self, engine_id: str) -> Steps[list[str]]:  # noqa: ARG002 - it keeps nothing
        """See :class:`manager.worker.engine.Engine`."""
        return []
        yield

    def _set_up(self, attempt: "_Attempt", job: Job, monitor: Child) -> Steps[Running]:
        pid = yield from attempt.child_pid()
        if pid is None:
            raise (yield from self._diagnose(job))
        running = observe(job.engine_id, pid, pidfd.open_pidfd(pid), job.cgroup)
        running.init = self._host.processes.expect(pid)
        try:
            yield from self._wait_for_sandbox(attempt, job, pid)
            running.engine_program = program_of(pid)
            if job.terminal:
                running.monitor = monitor
                job.cgroup.host(monitor.pid)
            else:
                yield from _kill(monitor)
            job.phases.lap("create")
            self._finish_sandbox(job, running)
            job.cgroup.limit(job.limits)
            job.phases.lap("cgroup")
        except BaseException:
            signal_running(running, signal.SIGKILL)
            self._host.processes.forget(running.init)
            running.close()
            raise
        return running

    def _wait_for_sandbox(self, attempt: "_Attempt", job: Job, pid: int) -> Steps[None]:
        if not (yield from attempt.stands(pid)):
            raise (yield from self._diagnose(job))

    def _finish_sandbox(self, job: Job, running: Running) -> None:
        process = job.process
        name_domain(job, running)
        complete(running.pid, job.spec, later_mounts(job.root_plan), running.namespaces)
        check_program(running.pid, process)
        _set_limits(running.pid, self._host.limits_for(process))
        if process.oom_score_adj:
            adjust = Path(f"/proc/{running.pid}/oom_score_adj")
            try:
                adjust.write_text(str(process.oom_score_adj), encoding="ascii")
            except OSError as error:
                doing = f"cannot set oomScoreAdj to {process.oom_score_adj}"
                raise LaunchFailed.from_os("create", doing, error) from error

    def _diagnose(self, job: Job) -> Steps[LaunchFailed]:
        """Try again without the container's streams, for the message alone: it is never let go."""
        with contextlib.ExitStack() as owned, commands.Output() as output:
            attempt = _Attempt(self._host.processes, self.path, job, owned)
            nothing = self._host.nothing.number
            child = yield from attempt.spawn((nothing, nothing, output.fd.number))
            yield from commands.finish(child, seconds=DIAGNOSIS_SECONDS)
            return explain(self.name, "setup", output.read(), job.program)


class _Attempt:
    """One run of bubblewrap up to the point where it waits; `owned` closes what it needs."""

    def __init__(
        self, processes: Processes, path: Path, job: Job, owned: contextlib.ExitStack
    ) -> None:
        self._processes = processes
        self._path = path
        self._job = job
        self._owned = owned
        self._info, self._info_write = self._pipe()
        self._block, self._gate = self._datagram_pair()

    def spawn(self, stdio: tuple[int, int, int]) -> Steps[Child]:
        """Start it, in its cgroup from the first moment: whatever becomes of it can be found."""
        job = self._job
        pid_namespace = job.namespaces.get("pid")
        arguments = sandbox_arguments(job, pid_namespace_fd=pid_namespace)
        arguments += ["--info-fd", str(self._info_write.number)]
        arguments += ["--block-fd", str(self._block.number)]
        first, first_write = self._pipe()
        with _argument_file(arguments) as file:
            setsid = ["setsid", "--ctty"] if job.terminal else []
            argv = [*setsid, str(self._path), "--args", str(first.number)]
            argv += ["--args", str(file.number), "--", *(job.process.args or ())]
            passed = [first.number, file.number, self._info_write.number, self._block.number]
            if pid_namespace is not None:
                passed.append(pid_namespace)
            joined = {name: fd for name, fd in job.namespaces.items() if name != "pid"}
            try:
                with entered(joined), job.cgroup.inhabited() as born_inside:
                    child = self._processes.spawn(argv, stdio=stdio, pass_fds=passed)
            except OSError as error:
                raise LaunchFailed.from_os("create", f"cannot run {self._path}", error) from error
        self._info_write.close()
        # It forks only when it has read all its arguments: by then it is in its cgroup, and so is
        # everything that it forks.
        try:
            if not born_inside:
                job.cgroup.add(child.pid)
        except LaunchFailed:
            yield from _end(child, job.cgroup)
            raise
        os.write(first_write.number, FIRST_ARGUMENTS)
        first_write.close()
        return child

    def child_pid(self) -> Steps[int | None]:
        """Pid of the process that becomes init; `None` if bubblewrap failed before it had one."""
        text = b""
        while len(text) < INFO_BYTES_MAX:
            if not (yield Pause(fd=self._info.number, seconds=SETUP_SECONDS)):
                raise LaunchFailed("create", f"bwrap took more than {SETUP_SECONDS:g} seconds")
            chunk = os.read(self._info.number, INFO_BYTES_MAX)
            if not chunk:
                break
            text += chunk
            with contextlib.suppress(msgspec.DecodeError):
                return msgspec.json.decode(text, type=_Info).child_pid
        return None

    def stands(self, pid: int) -> Steps[bool]:
        """Wait until the sandbox waits for us; false if it ended instead."""
        waiting = f"{self._block.number:#x}"
        for _ in range(int(SETUP_SECONDS / POLL_SECONDS)):
            call = _system_call(pid)
            if call is None:
                return False
            if len(call) > 1 and call[1] == waiting:
                return True
            yield Pause(seconds=POLL_SECONDS)
        raise LaunchFailed("create", f"bwrap took more than {SETUP_SECONDS:g} seconds")

    def go(self) -> None:
        """Let the program run."""
        os.write(self._gate.number, b"\n")

    def _datagram_pair(self) -> tuple[OwnedFd, OwnedFd]:
        """Two ends that know no end of file.

        A pipe would read as closed when the worker is killed, and bubblewrap would take that as
        leave to run the program, in a sandbox that nobody has finished.
        """
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        first, second = (self._owned.enter_context(OwnedFd(end.detach())) for end in ends)
        return first, second

    def _pipe(self) -> tuple[OwnedFd, OwnedFd]:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        return (
            self._owned.enter_context(OwnedFd(read_end)),
            self._owned.enter_context(OwnedFd(write_end)),
        )


def _end(monitor: Child, cgroup: Cgroup) -> Steps[None]:
    """End bubblewrap and whatever it has forked, before anything of it can go on."""
    cgroup.kill_everyone()
    yield from _kill(monitor)


def _kill(monitor: Child) -> Steps[None]:
    if monitor.status is None:
        os.kill(monitor.pid, signal.SIGKILL)
        yield Pause(child=monitor, seconds=STOP_SECONDS)


def _system_call(pid: int) -> list[str] | None:
    """Number and arguments of the system call that a process is in; `None` if it is gone.

    Source: proc_pid_syscall(5).
    """
    try:
        with open(f"/proc/{pid}/syscall", encoding="ascii") as file:
            return file.read().split()
    except OSError:
        return None


@contextlib.contextmanager
def _argument_file(arguments: Sequence[str]) -> Iterator[OwnedFd]:
    with OwnedFd(os.memfd_create("bwrap-arguments", os.MFD_CLOEXEC)) as file:
        with open(os.dup(file.number), "wb") as writer:
            writer.write(b"".join(os.fsencode(each) + b"\0" for each in arguments))
        os.lseek(file.number, 0, os.SEEK_SET)
        yield file


def _set_limits(pid: int, rlimits: Sequence[Rlimit]) -> None:
    for limit in rlimits:
        kind = getattr(resource, limit.type, None)
        if not limit.type.startswith("RLIMIT_") or kind is None:
            raise LaunchFailed("create", f"process.rlimits: no limit is named {limit.type!r}")
        try:
            resource.prlimit(pid, kind, (_rlim(limit.soft), _rlim(limit.hard)))
        except (OSError, ValueError) as error:
            reason = f"cannot set {limit.type} to {limit.soft}:{limit.hard}: {error}"
            number = error.errno if isinstance(error, OSError) else None
            raise LaunchFailed("create", reason, number) from error


def _rlim(value: int) -> int:
    # RLIM_INFINITY is -1 to Python and 2**64-1 in JSON.
    return resource.RLIM_INFINITY if value >= (1 << 63) else value


def _as_wait_status(monitor: Child) -> int | None:
    # bubblewrap passes an exit code on, and 128 + signal for one ended by a signal.
    code = commands.exit_code(monitor)
    if code < 0:
        return None
    return code - 128 if code > 128 else code << 8
