"""`exec` of the OCI runtimes: a process in a container that runs, of which this process is parent.

The runtime is started behind a gate (`gate`), so that whatever it forks is in the container's
cgroup; it detaches, the process becomes an orphan and, this process being a subreaper, a child.
"""

import contextlib
import os
import sys
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
from manager.worker.loop import Steps

EXEC_SECONDS: Final = 20.0
"""Longest time for an engine's `exec`; after it the engine is killed."""

GATE: Final = Path(__file__).with_name("gate.py")
OPEN: Final = b"\n"


class ExecDialect(Struct, frozen=True, kw_only=True):
    """How one runtime differs from the others.

    Attributes:
        name: Its name.
        tells_own_number: Whether the process has a kernel of its own, and its number there must be
            asked for.
    """

    name: str = ""
    tells_own_number: bool = False


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
        if dialect.tells_own_number:
            argv += ["--internal-pid-file", str(own_number)]
        if console is not None:
            argv += ["--console-socket", console.path]
        extra = order.extra()
        if extra:
            argv += ["--preserve-fds", str(_check_row(dialect.name, extra))]
        yield from _run(host, order, [*argv, "--", order.engine_id], dialect.name)
        running, numbers = _take_process(host, order)
        if console is not None:
            with console.receive() as master:
                running.relay = start_relay(host.processes, order.files[0], master.number)
    if dialect.tells_own_number:
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


def _check_row(engine: str, extra: Mapping[int, int]) -> int:
    """How many descriptors follow the three streams; between them the engine's own would leak."""
    if set(extra) != set(range(STREAMS, STREAMS + len(extra))):
        numbers = ", ".join(map(str, sorted(extra)))
        reason = f"{engine} needs guest file descriptors in a row from {STREAMS}, not {numbers}"
        raise LaunchFailed("create", reason)
    return len(extra)


def _run(host: Host, order: ExecOrder, argv: Sequence[str], engine: str) -> Steps[None]:
    nothing = host.nothing.number
    stdio = (nothing,) * 3 if order.process.terminal else order.stdio(nothing)
    log = order.place / "log"
    # The runtime's complaints go to its log: its standard error is the process's.
    argv = [argv[0], "--log", str(log), "--log-format", "json", *argv[1:]]
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
        raise LaunchFailed("create", f"{engine} exec took too long and was killed")
    if child.status:
        output = log.read_text(errors="replace") if log.exists() else ""
        raise explain(engine, "exec", output, order.program)


def _take_process(host: Host, order: ExecOrder) -> tuple[Running, tuple[int, ...]]:
    pid = int((order.place / "pid").read_text(encoding="ascii"))
    return take_orphan(host, order, pid)


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
