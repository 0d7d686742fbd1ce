"""Waiting until init is the client's program, and no longer that of its engine.

An engine's program becomes the client's by an execve(2) that nobody is told of. Until then it is
the engine's that is listed, saved and signalled: runc's, one of Go, ends with code 2 of SIGABRT or
SIGSEGV. Source for what a running container is: OCI runtime spec, runtime.md, State.
"""

from typing import Final

from manager.worker.engine import Running
from manager.worker.loop import Pause, Steps
from manager.worker.phases import Phases

EXECUTED_SECONDS: Final = 20.0
"""Longest wait: hooks of the kind `startContainer` run before the program does."""

POLL_SECONDS: Final = 0.001


def program_of(pid: int) -> bytes:
    """What differs between any two programs that one process executes; empty if it may not be seen.

    Source: proc_pid_auxv(5). Entry point and addresses of the stack are in it.
    """
    try:
        with open(f"/proc/{pid}/auxv", "rb") as file:
            return file.read()
    except OSError:
        return b""


def until_executed(running: Running, phases: Phases) -> Steps[None]:
    """Wait until its init has executed the program, or is dead, or may not be looked at.

    Adds the lap `execute` to `phases` if there was anything to wait for.
    """
    if not running.engine_program:
        return
    for _ in range(int(EXECUTED_SECONDS / POLL_SECONDS)):
        if program_of(running.pid) != running.engine_program:
            break
        yield Pause(seconds=POLL_SECONDS)
    phases.lap("execute")
