"""Processes beyond doubt: pidfds, and what the kernel tells through them."""

import contextlib
import errno
import fcntl
import os
import select
import struct
import time
from typing import Final

from manager.kernel.libc import syscall
from manager.urpc.fds import OwnedFd

_SYS_PIDFD_GETFD: Final = 438
_PIDFD_GET_INFO: Final = 0xC040FF0B
_PIDFD_INFO_EXIT: Final = 8
_INFO: Final = struct.Struct("=QQ11Ii")
"""struct pidfd_info, 64 bytes: mask, cgroupid; pid, tgid, ppid, eight ids; exit_code."""

_EXIT_CODE: Final = 13
_STAT_PARENT: Final = 1
_STAT_START_TICKS: Final = 19
_STAT_EXIT_CODE: Final = 49
"""Index after the parenthesis of field 52 of /proc/PID/stat."""


def open_pidfd(pid: int) -> OwnedFd:
    """Open a process, zombies included.

    Raises:
        ProcessLookupError: No such process.

    Source: pidfd_open(2), and kernel/pid.c for what it does not say: a number that only a process
    group or a session still bears is `EINVAL` to kernels before 6.16.
    """
    try:
        return OwnedFd(os.pidfd_open(pid))
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from error
        raise


def duplicate(pidfd: int, number: int) -> OwnedFd:
    """Duplicate another process's descriptor, close-on-exec.

    Raises:
        OSError: `EBADF`, it has none of that number; `EPERM`, it is not ours to look into.

    Source: pidfd_getfd(2).
    """
    return OwnedFd(syscall(_SYS_PIDFD_GETFD, pidfd, number, 0))


def has_exited(pidfd: int) -> bool:
    """Whether the process is gone or a zombie; never blocks."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def inode(pidfd: int) -> int:
    """The process's own number for the life of the system; 0 where pidfds have none (< 6.9)."""
    status = os.fstat(pidfd)
    # Before pidfs, pidfds shared one inode with eventfds and all other anonymous files.
    with OwnedFd(os.eventfd(0, os.EFD_CLOEXEC)) as anonymous:
        shared = os.fstat(anonymous.number)
    return 0 if status.st_dev == shared.st_dev else status.st_ino


def number(pidfd: int) -> int:
    """The process's pid, as numbered here; 0 if it was reaped.

    Source: pidfd_open(2), the field Pid of /proc/self/fdinfo.
    """
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        found = dict(line.split(":", 1) for line in file)
    return max(0, int(found["Pid"]))


def start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 if it is gone.

    Source: proc_pid_stat(5), field 22.
    """
    fields = stat_fields(pid)
    return int(fields[_STAT_START_TICKS]) if fields else 0


def started_at_ns(ticks: int) -> int:
    """The time of day at which a process started, as the clock is set now.

    Args:
        ticks: Its :func:`start_ticks`.
    """
    since_boot_ns = ticks * (10**9 // os.sysconf("SC_CLK_TCK"))
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME) + since_boot_ns


def parent(pid: int) -> int:
    """The parent's pid; 0 if the process is gone, or its parent is not of this PID namespace."""
    fields = stat_fields(pid)
    return int(fields[_STAT_PARENT]) if fields else 0


def stat_fields(pid: int) -> list[str]:
    """Fields of `/proc/PID/stat` from the third (state) on; empty if the process is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="latin-1") as file:
        return file.read().rpartition(")")[2].split()
    return []


def zombie_status(pid: int, started_ticks: int) -> int | None:
    """Wait status of a zombie that somebody else has not reaped yet; else `None`.

    Args:
        pid: Its number, which may be another's by now,
        started_ticks: so this must be its :func:`start_ticks`.
    """
    fields = stat_fields(pid)
    if fields and fields[0] == "Z" and int(fields[_STAT_START_TICKS]) == started_ticks:
        return int(fields[_STAT_EXIT_CODE])
    return None


def exit_status(pidfd: int) -> int | None:
    """Wait status of a process that was reaped by somebody else, if the kernel can tell.

    Returns:
        The raw wait status; `None` while it is not reaped.

    Raises:
        OSError: `ENOTTY` or `EINVAL`, a kernel before 6.15.

    Source: include/uapi/linux/pidfd.h, PIDFD_GET_INFO with PIDFD_INFO_EXIT.
    """
    buffer = bytearray(_INFO.pack(_PIDFD_INFO_EXIT, *(0,) * 13))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, buffer)
    except OSError as error:
        if error.errno == errno.ESRCH:
            return None
        raise
    fields = _INFO.unpack(buffer)
    if not fields[0] & _PIDFD_INFO_EXIT:
        return None
    return int(fields[_EXIT_CODE])


def boot_id() -> str:
    """Name of this boot of the machine; ticks and pids of another mean nothing."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
