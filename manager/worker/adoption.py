"""What becomes of the containers of a worker that was killed.

They go on running. The next worker finds them by their records, makes sure that each process is
still the one that the record names, and takes over: waits, signals, cleans up. Where a start was
under way, what there is of it is removed.
"""

import contextlib
import os
import signal
from collections.abc import Iterator

from manager.domain.payload import LaunchPlan, LayerPlan
from manager.domain.react import REBOOTED
from manager.kernel import pidfd
from manager.schema import worker as w
from manager.urpc.fds import OwnedFd
from manager.worker.engine import observe
from manager.worker.errors import LaunchFailed
from manager.worker.launch import Launch
from manager.worker.loop import Steps
from manager.worker.machine import Machine
from manager.worker.records import Record


def bare_command(record: Record) -> w.Launch:
    """A command that stands for the one whose spec and descriptors are gone."""
    return w.Launch(
        launch_id=record.launch_id,
        engine_id=record.engine_id,
        engine=record.engine,
        spec=b"",
        plan=LaunchPlan(stdio=None, root=LayerPlan(lower="none")),
    )


def remaining_life(
    launch: Launch, record: Record, machine: Machine, kept: OwnedFd | None
) -> Steps[None]:
    """The rest of a launch's life, according to what is left of it.

    Args:
        launch: The launch.
        record: What is known of it.
        machine: This one.
        kept: The container's init beyond doubt, dead or alive, if it was kept; owned here.

    A record of an earlier boot of the machine is cleaned up after like any other; its container
    is lost.
    """
    engine = machine.engine_of(record.engine)
    identity = _identity(record, kept)
    if identity is None:
        kill_engine_processes(record.engine_id)
        reason = "the worker was killed while it was starting this container"
        if record.boot_id != machine.boot_id:
            reason = f"{REBOOTED} while this container was being started"
        return launch.abandoned_life(engine, LaunchFailed("interrupted", reason))
    handle = kept or open_same_process(identity, machine.boot_id)
    if handle is None:
        return launch.lost_life(engine, why_lost(identity, machine.boot_id))
    if engine is None:
        handle.close()
        return launch.lost_life(None, f"there is no engine {record.engine!r} here: it was ended")
    running = observe(record.engine_id, identity.pid, handle, launch.cgroup)
    running.start_ticks = identity.start_ticks
    running.maybe_paused = True
    engine.adopt(running)
    return launch.adopted_life(running, engine)


def _identity(record: Record, kept: OwnedFd | None) -> w.PidIdentity | None:
    """What the record says, unless the disk was full when it was to be written.

    A container's init is kept as soon as it runs, and never before.
    """
    if kept is None:
        return record.identity
    inode = pidfd.inode(kept.number)
    if record.identity is not None and record.identity.pidfd_inode in (0, inode):
        return record.identity
    pid = pidfd.number(kept.number)
    ticks = pidfd.start_ticks(pid)
    return w.PidIdentity(pid=pid, start_ticks=ticks, pidfd_inode=inode, boot_id=record.boot_id)


def why_lost(identity: w.PidIdentity, boot_id: str) -> str:
    """Why nobody can tell how a process ended that is not there any more."""
    if identity.boot_id != boot_id:
        return REBOOTED
    return "it ended while neither manager nor worker lived, and nobody else knows how"


def open_same_process(identity: w.PidIdentity, boot_id: str) -> OwnedFd | None:
    """Open the very process that an identity names; `None` if it is gone, whoever has its pid."""
    if identity.boot_id != boot_id:
        return None
    try:
        handle = pidfd.open_pidfd(identity.pid)
    except ProcessLookupError:
        return None
    same_inode = identity.pidfd_inode in (0, pidfd.inode(handle.number))
    if same_inode and pidfd.start_ticks(identity.pid) == identity.start_ticks:
        return handle
    handle.close()
    return None


def kill_engine_processes(engine_id: str) -> None:
    """End what is still at work on a start: an engine's command goes on without the worker.

    They are found by the id in their arguments, 128 random bits that mean nothing else.
    """
    kill_processes_with(engine_id.encode())


def kill_processes_with(wanted: bytes) -> None:
    """End every process that has this among its arguments."""
    for handle in _processes_with(wanted):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle.number, signal.SIGKILL)


def is_at_work(wanted: bytes) -> bool:
    """Whether there is a process that has this among its arguments."""
    return any(True for _ in _processes_with(wanted))


def _processes_with(wanted: bytes) -> Iterator[OwnedFd]:
    """Each of them, held while it is looked at."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        # The command line is read while the handle is held: the pid is still this process's.
        with (
            contextlib.suppress(OSError),
            pidfd.open_pidfd(int(entry)) as handle,
            open(f"/proc/{entry}/cmdline", "rb") as file,
        ):
            if wanted in file.read().split(b"\0"):
                yield handle
