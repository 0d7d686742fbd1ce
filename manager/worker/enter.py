"""Run one more process in a container that no engine can be asked to: enter it, and become it.

A program of its own, run by the worker. Arguments are descriptors: the gate (a byte opens it), the
order (a JSON object, see `bwrap_exec`), where to report, the pidfd of the container's init, and a
file for the process's number. It reports one JSON object a line: `pid`, the host's number of the
process, then, if the program could not be executed, `stage`, `reason` and `errno`.

Inside it has no file of the host's to fall back on, so everything is imported before, and nothing
can be any more: what a module is called there may be anything. It cannot be traced or read by what
runs there. Standard library only. Source: setns(2), capabilities(7),
prctl(2).
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import stat
import struct
import sys
import termios
from typing import Any, Final, NoReturn

_CLONE_NEWCGROUP: Final = 0x02000000
_NAMESPACES: Final = {
    "mnt": 0x00020000,
    "cgroup": _CLONE_NEWCGROUP,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
_PR_SET_DUMPABLE: Final = 4
_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522
_CAPABILITIES_MAX: Final = 64
_PASSWD_BYTES_MAX: Final = 1 << 20
_PASSWD_FIELDS: Final = 7

_STDERR: Final = 2

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):  # noqa: N818 - says what is
    """The program cannot be executed."""

    def __init__(self, stage: str, reason: str, number: int | None) -> None:
        super().__init__(reason)
        self.facts = {"stage": stage, "reason": reason, "errno": number}


def main() -> int:
    """Enter, fork (a process of another PID namespace can only be born there), report."""
    gate, order_fd, report, pidfd, pid_file = map(int, sys.argv[1:])
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > _STDERR:
            with contextlib.suppress(OSError):
                os.set_inheritable(fd, False)
    if not os.read(gate, 1):
        return 1
    with open(order_fd, "rb") as file:
        order: dict[str, Any] = json.load(file)
    try:
        if order["oom_score_adj"] is not None:
            with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
                file.write(str(order["oom_score_adj"]))
        _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
        _call("setns", pidfd, _flags(order["init"]))
    except OSError as error:
        return _fail(report, Refused("create", f"cannot enter: {error.strerror}", error.errno))
    sys.path.clear()
    sys.meta_path.clear()
    noted, note = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid:
        # Before it runs: a worker that is killed now leaves word of it to the next one.
        os.write(pid_file, str(pid).encode())
        os.write(note, b"\n")
        _tell(report, {"pid": pid})
        return 0
    os.close(note)
    if not os.read(noted, 1):
        return 1
    os.setsid()
    report = _place(order["files"], report)
    return _fail(report, _become_or_say(order))


def _flags(init: int) -> int:
    """The namespaces in which the container's init differs from this process."""
    flags = 0
    for name, flag in _NAMESPACES.items():
        own, other = os.stat(f"/proc/self/ns/{name}"), os.stat(f"/proc/{init}/ns/{name}")
        if (own.st_dev, own.st_ino) != (other.st_dev, other.st_ino):
            flags |= flag
    return flags


def _become_or_say(order: dict[str, Any]) -> Refused:
    """Be that program, or say why not."""
    try:
        _become(order)
    except Refused as refused:
        return refused
    except OSError as error:
        return Refused("create", f"{error.strerror}", error.errno)
    except (ValueError, OverflowError) as error:  # what no system call takes
        return Refused("create", str(error), errno.EINVAL)


def _become(order: dict[str, Any]) -> NoReturn:
    if order["terminal"]:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for name, soft, hard in order["rlimits"]:
        resource.setrlimit(getattr(resource, name), (soft, hard))
    env = dict(each.split("=", 1) for each in order["env"])
    env.setdefault("HOME", _home(order["uid"]))
    _take_identity(order)
    try:
        os.chdir(order["cwd"])
    except OSError as error:
        text = f"working directory {order['cwd']!r}: {os.strerror(error.errno or 0).lower()}"
        raise Refused("create", text, error.errno) from error
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    _execute(order["executable"], order["args"], env)


def _place(files: dict[str, int], report: int) -> int:
    """Give the descriptors their numbers, and the report another one; nothing else stays open."""
    free = max((int(number) for number in files), default=_STDERR) + 1
    pairs = [
        (fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, free), int(number))
        for number, source in files.items()
    ]
    report = fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, free)
    for source, number in pairs:
        os.dup2(source, number)
    return report


def _home(uid: int) -> str:
    """The home directory of a user as the container has it; `/` if it knows none."""
    with contextlib.suppress(OSError, ValueError):
        fd = os.open("/etc/passwd", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                for line in os.read(fd, _PASSWD_BYTES_MAX).decode(errors="replace").splitlines():
                    fields = line.split(":")
                    if len(fields) == _PASSWD_FIELDS and fields[2] == str(uid):
                        return fields[5] or "/"
        finally:
            os.close(fd)
    return "/"


def _take_identity(order: dict[str, Any]) -> None:
    sets: dict[str, int] = order["capabilities"]
    for number in range(_CAPABILITIES_MAX):
        if not sets["bounding"] >> number & 1:
            # EINVAL: a number that this kernel does not know.
            with contextlib.suppress(OSError):
                _call("prctl", _PR_CAPBSET_DROP, number, 0, 0, 0)
    _call("prctl", _PR_SET_KEEPCAPS, 1, 0, 0, 0)
    if order["set_groups"]:
        os.setgroups(order["extra_gids"])
    os.setresgid(order["gid"], order["gid"], order["gid"])
    os.setresuid(order["uid"], order["uid"], order["uid"])
    _call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _set_capabilities(sets)
    for number in range(_CAPABILITIES_MAX):
        if sets["ambient"] >> number & 1:
            _call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0)
    if order["no_new_privileges"]:
        _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _set_capabilities(sets: dict[str, int]) -> None:
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    names = ("effective", "permitted", "inheritable")
    low = struct.pack("=3I", *(sets[name] & 0xFFFFFFFF for name in names))
    high = struct.pack("=3I", *(sets[name] >> 32 for name in names))
    if _libc.capset(header, low + high) < 0:
        number = ctypes.get_errno()
        raise Refused("create", f"cannot set the capabilities: {os.strerror(number)}", number)


def _execute(executable: str, args: list[str], env: dict[str, str]) -> NoReturn:
    """Try as execvp(3) does; returns never."""
    paths = [executable]
    if "/" not in executable:
        search = env.get("PATH", "/bin:/usr/bin")
        paths = [f"{each or '.'}/{executable}" for each in search.split(":")]
    problem = errno.ENOENT
    for path in paths:
        try:
            os.execve(path, args, env)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
                problem = error.errno or errno.EIO
    text = os.strerror(problem).lower()
    raise Refused("exec", f"program {executable!r}: {text}", problem)


def _call(name: str, *words: int) -> None:
    if getattr(_libc, name)(*map(ctypes.c_long, words)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _fail(report: int, refused: Refused) -> int:
    _tell(report, refused.facts)
    return 1


def _tell(report: int, facts: dict[str, Any]) -> None:
    os.write(report, json.dumps(facts).encode() + b"\n")


if __name__ == "__main__":
    os._exit(main())
