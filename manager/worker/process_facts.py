"""What the kernel tells of a container's processes.

Source: proc_pid_stat(5), proc_pid_status(5), proc_pid_fd(5), proc_pid_fdinfo(5).
"""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec.structs import replace

from manager.kernel import pidfd
from manager.schema.observation import ProcessFacts

PROCESSES_MAX: Final = 10_000
"""Processes that are looked at for one question."""

FILES_MAX: Final = 1_024
"""Open files of one process that are listed."""

TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
NS_PER_SECOND: Final = 1_000_000_000
PTS_MAJORS: Final = range(136, 144)
"""Major numbers of pseudo-terminals. Source: Linux admin-guide/devices.txt."""

# Index after the parenthesis of /proc/PID/stat, field number less 3.
_PGRP, _SESSION, _TTY, _UTIME, _STIME, _START, _VSIZE, _RSS = 2, 3, 4, 11, 12, 19, 20, 21


def facts_of(
    launch_id: str, pids: Iterable[int], *, details: bool = False
) -> Iterator[ProcessFacts]:
    """Look at processes, numbered as here; those that are gone meanwhile are left out."""
    boot_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    for count, pid in enumerate(pids):
        if count == PROCESSES_MAX:
            return
        with contextlib.suppress(OSError, KeyError, IndexError, ValueError):
            yield _facts(launch_id, pid, boot_ns, details=details)


def _facts(launch_id: str, pid: int, boot_ns: int, *, details: bool) -> ProcessFacts:
    status = _status(pid)
    stat = pidfd.stat_fields(pid)
    inner = _last(status["NSpid"])
    threads = [
        _last(_status(f"{pid}/task/{tid}")["NSpid"]) for tid in os.listdir(f"/proc/{pid}/task")
    ]
    basic = ProcessFacts(
        launch_id=launch_id,
        uid=int(status["Uid"].split()[1]),
        gid=int(status["Gid"].split()[1]),
        pid=inner,
        ppid=_inside(int(status["PPid"]), like=status),
        pgid=_last(status["NSpgid"]),
        sid=_last(status["NSsid"]),
        threads=tuple(sorted(threads)),
        tty=_tty(int(stat[_TTY])),
        started_ns=boot_ns + int(stat[_START]) * NS_PER_SECOND // TICKS_PER_SECOND,
        cpu_ns=(int(stat[_UTIME]) + int(stat[_STIME])) * NS_PER_SECOND // TICKS_PER_SECOND,
        name=status["Name"],
    )
    return _with_details(basic, pid, status, stat) if details else basic


def _with_details(
    basic: ProcessFacts, pid: int, status: dict[str, str], stat: list[str]
) -> ProcessFacts:

    real, effective, saved, _ = map(int, status["Uid"].split())
    groups = [int(each) for each in status["Gid"].split()]
    return replace(
        basic,
        uids=(real, effective, saved),
        gids=(groups[0], groups[1], groups[2]),
        vm_bytes=int(stat[_VSIZE]),
        rss_bytes=int(stat[_RSS]) * os.sysconf("SC_PAGE_SIZE"),
        exe=_link(f"/proc/{pid}/exe"),
        args=_strings(f"/proc/{pid}/cmdline"),
        env=_strings(f"/proc/{pid}/environ"),
        cwd=_link(f"/proc/{pid}/cwd"),
        root=_link(f"/proc/{pid}/root"),
        files=tuple(_files(pid)),
    )


def _status(pid: int | str) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        pairs = (line.partition(":") for line in file)
        return {key: value.strip() for key, _, value in pairs}


def _last(numbers: str) -> int:
    return int(numbers.rsplit(maxsplit=1)[-1])


def _inside(parent: int, *, like: dict[str, str]) -> int:
    """The parent's number in the same PID namespace, 0 if it is outside of that."""
    try:
        numbers = _status(parent)["NSpid"].split()
    except (OSError, KeyError):
        return 0
    return int(numbers[-1]) if len(numbers) == len(like["NSpid"].split()) else 0


def _tty(device: int) -> str:
    major = (device >> 8) & 0xFFF
    minor = (device & 0xFF) | ((device >> 12) & 0xFFF00)
    if major not in PTS_MAJORS:
        return "?"
    return f"pts/{minor + (major - PTS_MAJORS.start) * 256}"


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _strings(path: str) -> tuple[str, ...]:
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError:
        return ()
    return tuple(each.decode(errors="replace") for each in text.split(b"\0")[:-1])


def _files(pid: int) -> Iterator[tuple[int, str, int]]:
    with contextlib.suppress(OSError):
        for number in sorted(map(int, os.listdir(f"/proc/{pid}/fd")))[:FILES_MAX]:
            with contextlib.suppress(OSError):
                mode = os.lstat(f"/proc/{pid}/fd/{number}").st_mode
                yield number, os.readlink(f"/proc/{pid}/fd/{number}"), mode
