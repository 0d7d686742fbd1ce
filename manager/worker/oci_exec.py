"""`exec` of the OCI runtimes: a process in a container that runs, of which this process is parent.

The runtime is started behind a gate (`gate`), so that whatever it forks is in the container's
cgroup; it detaches, the process becomes an orphan and, this process being a subreaper, a child.
"""

import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from manager.urpc.fds import OwnedFd
from manager.worker import commands
from manager.worker.console import ConsoleSocket, start_relay
from manager.worker.engine import OPEN_FILES, Host, Running
from manager.worker.engine_messages import explain
from manager.worker.errors import LaunchFailed
from manager.worker.exec_order import STREAMS, ExecOrder
from manager.worker.loop import Child, Steps
from manager.worker.runsc_log import told_status

EXEC_SECONDS: Final = 20.0
"""Longest time for an engine's `exec`; after it the engine is killed."""

GATE: Final = Path(__file__).with_name("gate.py")
OPEN: Final = b"\n"
DETACH: Final = "detach"
"""What runsc strikes out of its own command line to begin anew: whatever has this word in it."""

TOLD: Final = "told"
"""File, in an order's place, in which a runtime tells how the process ended."""


class ExecDialect(Struct, frozen=True, kw_only=True):
    """How one runtime differs from the others.

    Attributes:
        name: Its name.
        own_kernel: Whether the process has a kernel of its own: its number there must be asked for,
            and how it ended stands in the runtime's log (`TOLD`).
    """

    name: str = ""
    own_kernel: bool = False


def execute(
    host: Host, order: ExecOrder, command: Sequence[str], dialect: ExecDialect
) -> Steps[tuple[Running, int]]:
    """Execute a process; see :meth:`manager.worker.engine.Engine.execute`.

    Args:
        host: This machine.
        order: What to execute where.
        command: The runtime's command line up to `exec`, with its global options.
        dialect: How it is asked.
    """
    place, own_number = order.place, order.place / "number"
    with contextlib.ExitStack() as owned:
        console = owned.enter_context(ConsoleSocket(place)) if order.process.terminal else None
        # In memory, and never in a file: it has env values.
        body = owned.enter_context(OwnedFd(os.memfd_create("process", os.MFD_CLOEXEC)))
        with open(os.dup(body.number), "wb") as writer:
            writer.write(msgspec.json.encode(process_object(host, order)))
        argv = list(command)
        argv += ["--detach", "--process", f"/proc/{os.getpid()}/fd/{body.number}"]
        argv += ["--pid-file", str(place / "pid")]
        if dialect.own_kernel:
            argv += ["--internal-pid-file", str(own_number)]
        if console is not None:
            argv += ["--console-socket", console.path]
        extra = order.extra()
        if extra:
            argv += ["--preserve-fds", str(_check_row(dialect.name, extra))]
        if dialect.own_kernel:
            _check_word(argv)
        yield from _run(host, order, [*argv, "--", order.engine_id], dialect)
        running, numbers = _take_process(host, order, dialect)
        if console is not None:
            with console.receive() as master:
                running.relay = start_relay(host.processes, order.files[0], master.number)
    if dialect.own_kernel:
        return running, int(own_number.read_text(encoding="ascii"))
    return running, numbers[-1] if numbers else 0


def process_object(host: Host, order: ExecOrder) -> dict[str, Any]:
    """The process as the OCI runtime spec has it."""
    wanted, defaults = order.process, order.defaults
    limits = list(defaults.get("rlimits") or ())
    if not any(limit.get("type") == OPEN_FILES for limit in limits):
        soft, hard = host.open_files
        limits.append({"type": OPEN_FILES, "soft": soft, "hard": hard})
    args = list(wanted.args)
    if wanted.executable:
        args[0] = wanted.executable
    capabilities = wanted.capabilities
    size = _window_size(order.files[0]) if wanted.terminal else {}
    return {
        **defaults,
        "terminal": wanted.terminal,
        **size,
        "user": {"uid": wanted.uid, "gid": wanted.gid, "additionalGids": wanted.extra_gids},
        "args": args,
        "env": wanted.env,
        "cwd": wanted.cwd,
        "rlimits": limits,
        "noNewPrivileges": wanted.no_new_privileges or defaults.get("noNewPrivileges", False),
        "capabilities": defaults.get("capabilities", {}) if capabilities is None else capabilities,
    }


def _window_size(terminal: int) -> dict[str, Any]:
    """The size of the client's terminal: the process may ask before the two are joined."""
    rows, columns = os.get_terminal_size(terminal).lines, os.get_terminal_size(terminal).columns
    return {"consoleSize": {"height": rows, "width": columns}} if rows and columns else {}


def _check_word(argv: Sequence[str]) -> None:
    for each in argv[1:]:
        if DETACH in each and not each.startswith("-"):
            reason = f"runsc cannot execute with {DETACH!r} in a path of its own: {each}"
            raise LaunchFailed("create", reason)


def _check_row(engine: str, extra: Mapping[int, int]) -> int:
    """How many descriptors follow the three streams; between them the engine's own would leak."""
    if set(extra) != set(range(STREAMS, STREAMS + len(extra))):
        numbers = ", ".join(map(str, sorted(extra)))
        reason = f"{engine} needs guest file descriptors in a row from {STREAMS}, not {numbers}"
        raise LaunchFailed("create", reason)
    return len(extra)


def _run(host: Host, order: ExecOrder, argv: Sequence[str], dialect: ExecDialect) -> Steps[None]:
    nothing = host.nothing.number
    stdio = (nothing,) * 3 if order.process.terminal else order.stdio(nothing)
    log = order.place / "log"
    # The runtime's complaints go to its log: its standard error is the process's.
    logs = ["--log", str(log), "--log-format", "json"]
    if dialect.own_kernel:
        logs += ["--debug-log", str(order.place / TOLD)]
    argv = [argv[0], *logs, *argv[1:]]
    gate_read, gate_write = map(OwnedFd, os.pipe2(os.O_CLOEXEC))
    with gate_read, gate_write:
        extra = order.extra()
        placing = ",".join(f"{fd}:{number}" for number, fd in extra.items()) or "-"
        program = [sys.executable, "-I", "-S", str(GATE), str(gate_read.number), placing, *argv]
        passed = [gate_read.number, *extra.values()]
        try:
            child = host.processes.spawn(program, stdio=stdio, pass_fds=passed)
        except OSError as error:
            raise LaunchFailed.from_os("create", f"cannot run {argv[0]}", error) from error
        order.cgroup.add(child.pid)
        os.write(gate_write.number, OPEN)
    ended = yield from commands.finish(child, seconds=EXEC_SECONDS)
    if not ended:
        raise LaunchFailed("create", f"{dialect.name} exec took too long and was killed")
    if child.status and not (dialect.own_kernel and _is_over(order)):
        output = log.read_text(errors="replace") if log.exists() else ""
        raise explain(dialect.name, "exec", output, order.program)


def read_told(place: Path, pid: int) -> int | None:
    """How the process ended, as that runtime process told; `None` if it told nothing."""
    try:
        return told_status((place / TOLD).read_text(errors="replace"), pid)
    except FileNotFoundError:
        return None


def _is_over(order: ExecOrder) -> bool:
    """Whether the process has ended.

    A runtime that detaches looks whether the process is there and, if not, whether it has failed.
    One that came and ended between the two looks has not.
    """
    try:
        return read_told(order.place, _read_pid(order)) is not None
    except (OSError, ValueError):
        return False


def _take_process(
    host: Host, order: ExecOrder, dialect: ExecDialect
) -> tuple[Running, tuple[int, ...]]:
    pid = _read_pid(order)
    try:
        return take_orphan(host, order, pid)
    except LaunchFailed:
        told = read_told(order.place, pid) if dialect.own_kernel else None
        if told is None:
            raise
    # The runtime that looked for it has reaped it.
    child = Child(pid)
    child.settle(told, time.time_ns())
    running = Running(engine_id=order.engine_id, pid=pid, pidfd=None, cgroup=order.cgroup)
    running.init = child
    return running, ()


def _read_pid(order: ExecOrder) -> int:
    return int((order.place / "pid").read_text(encoding="ascii"))


def take_orphan(host: Host, order: ExecOrder, pid: int) -> tuple[Running, tuple[int, ...]]:
    """Become the parent in deed of a process that has become this one's child.

    Returns:
        The process, and its numbers in each level of PID namespaces.

    Raises:
        LaunchFailed: Stage `create`: there is none.
    """
    inherited = host.processes.inherit(pid)
    if inherited is None:
        raise LaunchFailed("create", "the process was gone as soon as it was made")
    child, handle = inherited
    running = Running(engine_id=order.engine_id, pid=pid, pidfd=handle, cgroup=order.cgroup)
    running.init = child
    return running, child.numbers
