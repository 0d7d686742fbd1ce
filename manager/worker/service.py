"""Set the worker's process up, and serve.

Everything lies in `DIR/worker`: `lock`, `stage` (mounted over, in this process's mount namespace
only), `engines` (their own state), `launches` (see `records`), `execs` (see `exec_records`), `ends`
(see there), `log-mark` (see `log_mark`), `keeper.sock` (see `keeper`). The socket is
`DIR/worker.sock`.
"""

import contextlib
import fcntl
import logging
import os
import platform
import resource
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from manager.kernel import mount, namespaces, pidfd, prctl
from manager.schema import worker as w
from manager.urpc.fds import OwnedFd
from manager.urpc.unix_address import UnixListener
from manager.worker.capabilities import Kernel, probe_kernel
from manager.worker.cgroups import Cgroups
from manager.worker.criu import NAME, Criu, find_criu
from manager.worker.ends import Ends
from manager.worker.engine import Host
from manager.worker.engines import Program, find_programs, machine_lacks, make_engine
from manager.worker.errors import StateDirTaken
from manager.worker.exec_records import ExecRecords
from manager.worker.keeping import Keeping
from manager.worker.log_mark import LogMarkFile
from manager.worker.loop import Loop
from manager.worker.machine import Machine
from manager.worker.probing import Prober
from manager.worker.processes import Processes
from manager.worker.records import Records
from manager.worker.rootless import become_root
from manager.worker.server import ROOT_UID, Server
from manager.worker.stage import Stage

logger = logging.getLogger(__name__)

SOCKET_NAME: Final = "worker.sock"
DIRECTORY_NAME: Final = "worker"
LAUNCHES_NAME: Final = "launches"
PROCESS_NAME: Final = "sandtrail-work"
LOCK_SECONDS: Final = 1.0
"""How long to try for the lock: a worker that was killed while it started an engine has left a
child that holds it until it has become that engine."""

LOCK_POLL_SECONDS: Final = 0.01
UMASK: Final = 0o022
"""A container inherits it, so it is the usual one; what is private here says so itself."""

FIRST_FOREIGN_FD: Final = 3
FDS_MAX: Final = 1 << 20


def serve(state: Path, engine_paths: Mapping[str, Path]) -> None:
    """Be the worker of `state` until asked to stop; changes this process for good.

    Args:
        state: The service's directory, existing, absolute.
        engine_paths: Programs to use instead of those in PATH, by engine, or `criu`.

    Raises:
        StateDirTaken: Another worker serves it.
        OSError: The directory cannot be used.
    """
    os.closerange(FIRST_FOREIGN_FD, FDS_MAX)
    os.umask(UMASK)
    os.chdir("/")
    _heed_signals()
    directory = state / DIRECTORY_NAME
    directory.mkdir(mode=0o700, exist_ok=True)
    with _locked(directory / "lock"), contextlib.ExitStack() as owned:
        prctl.set_process_name(PROCESS_NAME)
        prctl.become_subreaper()
        rootless = os.geteuid() != ROOT_UID
        _isolate(directory / LAUNCHES_NAME, rootless=rootless)
        kernel = probe_kernel()
        loop = owned.enter_context(contextlib.closing(Loop()))
        processes = owned.enter_context(contextlib.closing(Processes(loop)))
        nothing = owned.enter_context(OwnedFd(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)))
        programs = find_programs(engine_paths)
        criu = find_criu(engine_paths.get(NAME))
        machine = _machine(directory, kernel, processes, nothing, programs, criu, rootless=rootless)
        # Whoever holds the lock owns the name; a child of a killed worker may still listen on it.
        (state / SOCKET_NAME).unlink(missing_ok=True)
        listener = UnixListener.bind(state / SOCKET_NAME)
        prober = Prober(loop, machine, programs, criu, directory / "engines.json")
        leave = partial(prober.leave, loop.stop)
        server = owned.enter_context(contextlib.closing(Server(loop, listener, machine, leave)))
        signal.signal(signal.SIGTERM, lambda *_: server.stop())
        owned.callback(machine.keeping.close)
        server.launches.adopt_all(machine.keeping.open())
        server.saves.adopt_all()
        prober.begin(kernel.missing, partial(_open, server, machine, kernel, prober))
        loop.run()


def _heed_signals() -> None:
    """Ignore nothing that whoever started us ignored: every container would ignore it, too.

    What Python itself ignores (SIGPIPE, SIGXFSZ) its children do not. Source: signal(7), execve(2).
    """
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _open(server: Server, machine: Machine, kernel: Kernel, prober: Prober) -> None:
    """Let managers in, now that there is something to tell them."""
    server.open(_welcome(machine, kernel, prober.reports()))
    logger.info("worker.ready pid=%d", os.getpid())


def _isolate(launches: Path, *, rootless: bool) -> None:
    """Be in a mount namespace of our own, from which nothing spreads."""
    if not rootless:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mount.make_private("/")
        return
    become_root(launches)
    # All that it enters for a moment it must be able to come back from: to namespaces of its own.
    namespaces.unshare(
        namespaces.CLONE_NEWNS
        | namespaces.CLONE_NEWNET
        | namespaces.CLONE_NEWIPC
        | namespaces.CLONE_NEWUTS
    )
    # What the user's machine mounts later is to be found here too: trees are looked up by name.
    mount.make_slave("/")


def _machine(
    directory: Path,
    kernel: Kernel,
    processes: Processes,
    nothing: OwnedFd,
    programs: Sequence[Program],
    criu: Criu,
    *,
    rootless: bool,
) -> Machine:
    stage = Stage(directory / "stage")
    if not kernel.missing:
        stage.mount()
    cgroups = Cgroups.prepare()
    host = Host(
        processes=processes,
        nothing=nothing,
        exit_status_by_pidfd=kernel.exit_status_by_pidfd,
        lacks=machine_lacks(kernel, cgroups, rootless=rootless),
        criu=criu,
        open_files=_raise_open_files(),
    )
    state_dir = directory / "engines"
    state_dir.mkdir(mode=0o700, exist_ok=True)
    boot_id = pidfd.boot_id()
    engines = {each.name: make_engine(each, host, state_dir) for each in programs}
    absent = {each.name: engines.pop(each.name) for each in programs if each.problem}
    return Machine(
        processes=processes,
        stage=stage,
        cgroups=cgroups,
        nothing=nothing,
        overlay_by_fd=kernel.overlay_by_fd,
        rootless=rootless,
        boot_id=boot_id,
        records=Records(directory / LAUNCHES_NAME, boot_id),
        exec_records=ExecRecords(directory / "execs"),
        ends=Ends(directory / "ends"),
        log_mark=LogMarkFile(directory / "log-mark"),
        keeping=Keeping(directory, processes),
        engine_states=state_dir,
        images=_emptied(directory / "images"),
        engines=engines,
        absent=absent,
    )


def _emptied(directory: Path) -> Path:
    """Remove engines' files that a killed worker left; what it had frozen, `saves` looks after."""
    directory.mkdir(mode=0o700, exist_ok=True)
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
    return directory


def _raise_open_files() -> tuple[int, int]:
    """Allow this process all the descriptors it may have; returns what was allowed before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft, hard


def _welcome(machine: Machine, kernel: Kernel, engines: tuple[w.EngineReport, ...]) -> w.Welcome:
    own = os.getpid()
    with pidfd.open_pidfd(own) as handle:
        identity = w.PidIdentity(
            pid=own,
            start_ticks=pidfd.start_ticks(own),
            pidfd_inode=pidfd.inode(handle.number),
            boot_id=machine.boot_id,
        )
    return w.Welcome(
        protocol=w.PROTOCOL_VERSION,
        worker=identity,
        kernel=platform.release(),
        engines=engines,
        capabilities={**kernel.paths_taken(), "cgroup": machine.cgroups.path_taken},
    )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with OwnedFd(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)) as lock:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                raise StateDirTaken(f"another worker serves {path.parent}")
            time.sleep(LOCK_POLL_SECONDS)
        yield


def _try_lock(lock: OwnedFd) -> bool:
    try:
        fcntl.flock(lock.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
