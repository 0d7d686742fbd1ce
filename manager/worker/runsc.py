"""runsc: gVisor. Every container is a sandbox of its own, with a kernel of its own.

That kernel is a process (and one for files, and one per address space); "init" to the host is the
sandbox process. It tells the status of the real init inside; where it can no longer be asked, its
exit code carries it.
"""

import contextlib
import datetime as dt
import errno
import fcntl
import os
import re
import signal
import stat
import time
from pathlib import Path
from typing import Final

import msgspec
from typing_extensions import override

from manager.kernel import pidfd
from manager.schema.observation import ProcessFacts
from manager.urpc.fds import FdBundle, OwnedFd
from manager.worker import commands
from manager.worker.cgroups import Cgroup
from manager.worker.delivery import DELIVERED, GROUP, Delivery, Target
from manager.worker.engine import Job, Running
from manager.worker.errors import LaunchFailed, one_line
from manager.worker.exit_report import ExitReport, nobody_knows
from manager.worker.loop import Pause, Steps
from manager.worker.oci import Dialect, OciEngine, write_private
from manager.worker.oci_exec import ExecDialect, read_told
from manager.worker.runsc_socket import (
    KernelSilent,
    connect_kernel,
    signal_by_socket,
    wait_by_socket,
    wait_process_by_socket,
)
from manager.worker.runsc_table import parse_table
from manager.worker.stage import LaunchStage

KILL_SECONDS: Final = 5.0
"""Longest time for delivering a signal."""

IMAGE_SECONDS: Final = 600.0
"""Longest time for writing or reading one container's memory."""

SENTRY_STDIO: Final = 256
"""Number that a container's stdin has in its sandbox process; its stdout and stderr follow.

Source: seen in gVisor of 2022; HEAD has `startingStdioFD` of the same value.
"""

CONFIG: Final = "config.json"
SIGNAL_CODE_BASE: Final = 128
SIGNAL_MAX: Final = 64
"""Exit code 128 + n stands for signal n, in runsc as in a shell; `exit(137)` looks the same."""

RUNSC: Final = Dialect(
    name="runsc",
    exec=ExecDialect(name="runsc", own_kernel=True),
    global_options=(
        "--platform=ptrace",
        "--network=none",
        "--ignore-cgroups",
        # Else it never sees what others write into a directory that was donated.
        "--file-access=shared",
    ),
    serves_files=True,
    lacks=frozenset(
        {
            "apparmor",
            "devices",
            "domainname",
            "exec-extra-files",
            "hooks",
            "idmapped-mounts",
            "intel-rdt",
            "mount-label",
            "mqueue",
            "namespace-paths",
            "personality",
            "pid-namespace-join",
            "resources-beyond-memory-pids-cpu",
            "rootfs-propagation",
            "seccomp",
            "selinux",
            "sysctl",
            "time-namespace",
            "user-namespace",
        }
    ),
)


NO_OVERLAY: Final = "--overlay2=none"
"""Since 2023 gVisor would else keep what a container writes from where it was donated for; and that
does not go with shared files."""

OVERLAY_SINCE: Final = "20221219"
"""The oldest build that is known to take it."""

_BUILD: Final = re.compile(r"20\d{6}")


def dialect_of(version: str) -> Dialect:
    """How a runsc wants to be talked to. Pure.

    Args:
        version: What it says of itself; a build without a date is taken for a new one.
    """
    build = _BUILD.search(version)
    if build is not None and build[0] < OVERLAY_SINCE:
        return RUNSC
    return msgspec.structs.replace(RUNSC, global_options=(*RUNSC.global_options, NO_OVERLAY))


class RunscEngine(OciEngine):
    """gVisor on this machine."""

    joins_namespaces = False

    @override
    def start(self, job: Job) -> Steps[Running]:
        if not job.terminal:
            _check_stdio(job.stdio)
        running = yield from super().start(job)
        running.config = b"" if job.terminal else _to_tell_again(self._config(job))
        return _alone(running)

    def restore(self, job: Job, image: Path) -> Steps[Running]:
        """See :class:`manager.worker.engine.SavingEngine`."""
        _check_stdio(job.stdio)
        job.cgroup.limit(job.limits)
        config, bundle = self._config(job), job.stage.bundle
        self._write_config(bundle, config)
        try:
            running = yield from self._restore(job.engine_id, job.cgroup, bundle, image, job.stdio)
        finally:
            (bundle / CONFIG).unlink(missing_ok=True)
        job.phases.lap("restore")
        running.config = _to_tell_again(config)
        return running

    def unsaveable(self, running: Running) -> str:
        """See :class:`manager.worker.engine.SavingEngine`."""
        if running.config:
            return ""
        return (
            "a container was started by a worker that is gone: it could not go on if the image "
            "came to nothing"
        )

    def save(self, running: Running, image: Path) -> Steps[str]:
        """See :class:`manager.worker.engine.SavingEngine`."""
        result = yield from commands.run(
            self._host.processes,
            self._command("checkpoint", "--image-path", str(image), "--", running.engine_id),
            seconds=IMAGE_SECONDS,
            nothing=self._host.nothing.number,
        )
        if result.code == os.EX_OK:
            return ""
        return one_line(result.output) or f"runsc checkpoint ended with {result.code}"

    def streams(self, running: Running) -> FdBundle:
        """See :class:`manager.worker.engine.RevivingEngine`."""
        assert running.pidfd is not None, "it was seen alive"
        number = running.pidfd.number
        return FdBundle(pidfd.duplicate(number, SENTRY_STDIO + each) for each in range(3))

    def revive(
        self, running: Running, image: Path, stage: LaunchStage, streams: FdBundle
    ) -> Steps[Running]:
        """See :class:`manager.worker.engine.RevivingEngine`."""
        assert running.pidfd is not None, "it was seen alive"
        yield from self.freeze(running, frozen=False)  # it ends now, if it has not yet
        yield Pause(fd=running.pidfd.number, seconds=KILL_SECONDS)
        yield from self.clean_up(running.engine_id)
        bundle = stage.bundle
        write_private(bundle / CONFIG, running.config)
        stdin, stdout, stderr = streams.numbers()
        try:
            revived = yield from self._restore(
                running.engine_id, running.cgroup, bundle, image, (stdin, stdout, stderr)
            )
        finally:
            (bundle / CONFIG).unlink(missing_ok=True)
        revived.config = running.config
        return revived

    def _restore(
        self,
        engine_id: str,
        cgroup: Cgroup,
        bundle: Path,
        image: Path,
        stdio: tuple[int, int, int],
    ) -> Steps[Running]:
        log, pid_file = bundle / "restore.log", bundle / "pid"
        log.unlink(missing_ok=True)
        argv = self._command("--log", str(log), "--log-format", "json", "restore", "--detach")
        argv += ["--image-path", str(image), "--bundle", str(bundle), "--pid-file", str(pid_file)]
        try:
            child = self._host.processes.spawn([*argv, "--", engine_id], stdio=stdio)
            cgroup.add(child.pid)
        except OSError as error:
            raise LaunchFailed.from_os("restore", f"cannot run {self.path}", error) from error
        ended = yield from commands.finish(child, seconds=IMAGE_SECONDS)
        if not ended or child.status:
            output = log.read_text(errors="replace") if log.exists() else ""
            why = one_line(output) if ended else "it took too long and was killed"
            raise LaunchFailed("restore", f"runsc restore: {why or 'it failed'}")
        return _alone(self._take_init(engine_id, cgroup, bundle))

    @override
    def adopt(self, running: Running) -> None:
        with contextlib.suppress(KernelSilent):
            running.kernel = self._kernel(running)

    def _kernel(self, running: Running) -> OwnedFd:
        return connect_kernel(running.engine_id, self._state_dir)

    @override
    def wait(self, running: Running) -> Steps[ExitReport]:
        told = None
        if running.kernel is not None:
            with running.kernel:
                told = yield from wait_by_socket(running.kernel, running.engine_id)
        report = yield from super().wait(running)
        if told is not None:
            return ExitReport(status=told, source="engine", at_ns=report.at_ns)
        if report.status is None or not os.WIFEXITED(report.status):
            return report
        code = os.WEXITSTATUS(report.status)
        signo = code - SIGNAL_CODE_BASE
        status = signo if 0 < signo <= SIGNAL_MAX else report.status
        return ExitReport(status=status, source="engine", at_ns=report.at_ns)

    @override
    def wait_executed(self, running: Running, number: int, place: Path) -> Steps[ExitReport]:
        report = yield from super().wait(running)
        told = read_told(place, running.pid)
        if told is not None:
            return ExitReport(status=told, source="engine", at_ns=report.at_ns)
        try:  # whoever was to tell was killed; the process may go on
            with self._kernel(running) as kernel:
                told = yield from wait_process_by_socket(kernel, running.engine_id, number)
        except KernelSilent:
            if report.status is not None and os.WIFSIGNALED(report.status):
                return report  # all that was in the container
            return nobody_knows("its gVisor kernel ended before it could tell")
        if told is None:
            return nobody_knows("its gVisor kernel told it to a process that was killed")
        return ExitReport(status=told, source="engine", at_ns=time.time_ns())

    @override
    def _take_init(self, engine_id: str, cgroup: Cgroup, bundle: Path) -> Running:
        running = super()._take_init(engine_id, cgroup, bundle)
        self.adopt(running)
        return running

    @override
    def signal(self, running: Running, signo: int, target: Target) -> Steps[Delivery]:
        if signo == signal.SIGKILL and running.maybe_paused:
            yield from self.freeze(running, frozen=False)  # nothing dies while it is paused
        # By its socket: its command knows neither signal 0 nor a terminal's foreground group.
        if target.mode == GROUP:
            return Delivery(errno=errno.ENOTSUP, why="unsupported")
        try:
            with self._kernel(running) as kernel:
                error = yield from signal_by_socket(
                    kernel, running.engine_id, signo, target, KILL_SECONDS
                )
        except KernelSilent as silence:
            error = str(silence)
        if not error:
            return DELIVERED
        if error.endswith("no TTY attached"):
            return Delivery(errno=errno.ENOTTY, why="no-terminal")
        return Delivery(errno=errno.ESRCH, why="no-process" if target.pid else "")

    @override
    def freeze(self, running: Running, *, frozen: bool) -> Steps[str]:
        result = yield from commands.run(
            self._host.processes,
            self._command("pause" if frozen else "resume", "--", running.engine_id),
            seconds=KILL_SECONDS,
            nothing=self._host.nothing.number,
        )
        if result.code == os.EX_OK:
            running.maybe_paused = frozen
            return ""
        return one_line(result.output)

    @override
    def processes(
        self, launch_id: str, running: Running, *, details: bool
    ) -> Steps[tuple[ProcessFacts, ...]]:
        result = yield from commands.run(
            self._host.processes,
            self._command("ps", "--", running.engine_id),
            seconds=KILL_SECONDS,
            nothing=self._host.nothing.number,
        )
        return parse_table(launch_id, result.output, dt.datetime.now(tz=dt.UTC).date())


def _alone(running: Running) -> Running:
    """Forget the sandbox process's own namespaces: nobody's containers live in them."""
    while running.namespaces:
        running.namespaces.popitem()[1].close()
    return running


def _to_tell_again(config: dict[str, object]) -> bytes:
    """The config for a later restore, which takes the environment from the image."""
    process = msgspec.convert(config["process"], dict[str, object])
    return msgspec.json.encode({**config, "process": {**process, "env": []}})


def _check_stdio(stdio: tuple[int, int, int]) -> None:
    """Refuse what gVisor would corrupt: it keeps an offset of its own for regular files.

    Raises:
        LaunchFailed: Stage `create`, says which stream and what would do.
    """
    for name, fd in zip(("stdin", "stdout", "stderr"), stdio, strict=True):
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            continue
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        if flags & os.O_ACCMODE == os.O_RDONLY:
            if os.lseek(fd, 0, os.SEEK_CUR) == 0:
                continue
            reason = f"runsc reads a regular file from its beginning, {name} stands further on"
        elif flags & os.O_APPEND:
            continue
        else:
            reason = f"runsc would overwrite a regular file: open {name} with O_APPEND, or a pipe"
        raise LaunchFailed("create", reason)
