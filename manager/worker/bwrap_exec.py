"""Executing a process in a container of bubblewrap's, which has no such command: by `enter`."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from manager.domain.capability_numbers import mask_of
from manager.kernel import mount
from manager.schema import worker as w
from manager.schema.worker_facts import FailedStage
from manager.urpc.fds import OwnedFd
from manager.worker import commands
from manager.worker.engine import OPEN_FILES, Host, Running
from manager.worker.errors import LaunchFailed
from manager.worker.exec_order import ExecOrder
from manager.worker.loop import Pause, Steps
from manager.worker.oci_exec import EXEC_SECONDS, OPEN, take_orphan

ENTER: Final = Path(__file__).with_name("enter.py")
REPORT_BYTES_MAX: Final = 16384
ENTER_SECONDS: Final = 5.0
"""Longest wait for the program that enters to end, once it has reported."""

_SETS: Final = {
    "bounding": "CapBnd",
    "effective": "CapEff",
    "inheritable": "CapInh",
    "permitted": "CapPrm",
    "ambient": "CapAmb",
}


class Report(msgspec.Struct, frozen=True):
    """One line of what `enter` says."""

    pid: int = 0
    stage: FailedStage | None = None
    reason: str = ""
    errno: int | None = None


def execute(host: Host, order: ExecOrder) -> Steps[tuple[Running, int]]:
    """Execute a process; see :meth:`manager.worker.engine.Engine.execute`."""
    with contextlib.ExitStack() as owned:
        report = yield from _enter(host, order, owned)
    pid, failure = _read(report)
    if pid:
        running, numbers = take_orphan(host, order, pid)
        if failure is None:
            return running, numbers[-1] if numbers else 0
        if running.init is not None:
            host.processes.forget(running.init)
        running.close()
    if failure is None:
        raise LaunchFailed("create", "the program that enters the container ended without a word")
    assert failure.stage is not None
    raise LaunchFailed(failure.stage, f"bwrap: {failure.reason}", failure.errno)


def _enter(host: Host, order: ExecOrder, owned: contextlib.ExitStack) -> Steps[bytes]:
    """Run `enter`; returns what it said, until the process was another program or had failed."""
    gate_read, gate_write = _pipe(owned)
    report_read, report_write = _pipe(owned)
    body = owned.enter_context(OwnedFd(os.memfd_create("order", os.MFD_CLOEXEC)))
    with open(os.dup(body.number), "wb") as writer:
        writer.write(msgspec.json.encode(_order(host, order)))
    os.lseek(body.number, 0, os.SEEK_SET)
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    pid_file = owned.enter_context(OwnedFd(os.open(order.place / "pid", flags, 0o600)))
    ours = (gate_read, body, report_write)
    told = (*(each.number for each in ours), order.init_pidfd, pid_file.number)
    python = owned.enter_context(mount.clone_program(sys.executable))
    argv = [sys.executable, "-I", "-S", str(ENTER), *map(str, told)]
    program = f"/proc/self/fd/{python.number}"
    passed = [*told, python.number, *order.files.values()]
    try:
        child = host.processes.spawn(argv, pass_fds=passed, executable=program)
    except OSError as error:
        raise LaunchFailed.from_os("create", "cannot run the interpreter", error) from error
    order.cgroup.add(child.pid)
    os.write(gate_write.number, OPEN)
    gate_write.close()
    report_write.close()
    text = b""
    while len(text) < REPORT_BYTES_MAX:
        if not (yield Pause(fd=report_read.number, seconds=EXEC_SECONDS)):
            yield from commands.finish(child, seconds=0)
            raise LaunchFailed("create", f"entering took more than {EXEC_SECONDS:g} seconds")
        chunk = os.read(report_read.number, REPORT_BYTES_MAX)
        if not chunk:
            break
        text += chunk
    yield from commands.finish(child, seconds=ENTER_SECONDS)
    return text


def _order(host: Host, order: ExecOrder) -> dict[str, Any]:
    wanted, defaults = order.process, order.defaults
    limits = [(each["type"], each["soft"], each["hard"]) for each in defaults.get("rlimits") or ()]
    if all(name != OPEN_FILES for name, _, _ in limits):
        limits.append((OPEN_FILES, *host.open_files))
    own = _status_of(order.init)
    return {
        "init": order.init,
        "args": wanted.args,
        "executable": order.program,
        "env": wanted.env,
        "cwd": wanted.cwd,
        "uid": wanted.uid,
        "gid": wanted.gid,
        "extra_gids": wanted.extra_gids,
        "set_groups": bool(wanted.extra_gids) or (os.geteuid() == 0 and _may_set_groups()),
        "no_new_privileges": wanted.no_new_privileges or own["NoNewPrivs"] == "1",
        "capabilities": _capabilities(wanted, own),
        "rlimits": [(name, _number(soft), _number(hard)) for name, soft, hard in limits],
        "oom_score_adj": defaults.get("oomScoreAdj"),
        "terminal": wanted.terminal,
        "files": {str(number): fd for number, fd in order.files.items()},
    }


def _may_set_groups() -> bool:
    """Whether this user namespace lets anybody change groups. Source: user_namespaces(7)."""
    try:
        with open("/proc/self/setgroups", encoding="ascii") as file:
            return file.read().strip() == "allow"
    except OSError:
        return False


def _capabilities(wanted: w.ExecProcess, own: dict[str, str]) -> dict[str, int]:
    """As asked; else as the container's init has them."""
    if wanted.capabilities is None:
        return {name: int(own[field], 16) for name, field in _SETS.items()}
    return {name: mask_of(wanted.capabilities.get(name, ())) for name in _SETS}


def _status_of(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="latin-1") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


def _number(limit: int) -> int:
    # RLIM_INFINITY is -1 to Python and 2**64-1 in JSON.
    return -1 if limit >= (1 << 63) else limit


def _read(text: bytes) -> tuple[int, Report | None]:
    pid, failure = 0, None
    for line in text.splitlines():
        said = msgspec.json.decode(line, type=Report)
        pid = said.pid or pid
        failure = said if said.stage is not None else failure
    return pid, failure


def _pipe(owned: contextlib.ExitStack) -> tuple[OwnedFd, OwnedFd]:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    return owned.enter_context(OwnedFd(read_end)), owned.enter_context(OwnedFd(write_end))
