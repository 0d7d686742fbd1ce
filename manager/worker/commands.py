"""Running an engine's command to its end: bounded in time, its output read afterwards."""

import os
import signal
from collections.abc import Sequence
from typing import Final, Self

from msgspec import Struct

from manager.urpc.fds import OwnedFd
from manager.worker.errors import LaunchFailed
from manager.worker.loop import Child, Pause, Steps
from manager.worker.processes import STOP_SECONDS, Processes

OUTPUT_BYTES_MAX: Final = 64 * 1024
"""Most bytes of an engine's output that are looked at: the last ones."""


INTERRUPTED_SECONDS: Final = 2.0
"""How long a command may go on after nobody wants its result any more."""


class Result(Struct, frozen=True, kw_only=True):
    """How a command ended. `code` is its exit code, 128 + signal if one ended it."""

    code: int
    output: str = ""
    timed_out: bool = False


class Output:
    """An anonymous file for a program's output: never full, never blocks anybody. Owns it."""

    def __init__(self) -> None:
        self.fd = OwnedFd(os.memfd_create("engine-output", os.MFD_CLOEXEC))

    def read(self) -> str:
        """What was written so far, its end if it is long."""
        size = os.fstat(self.fd.number).st_size
        offset = max(0, size - OUTPUT_BYTES_MAX)
        return os.pread(self.fd.number, OUTPUT_BYTES_MAX, offset).decode(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.fd.close()


def run(
    processes: Processes,
    argv: Sequence[str],
    *,
    seconds: float,
    pass_fds: Sequence[int] = (),
    nothing: int,
) -> Steps[Result]:
    """Run a program without input to its end; its output is collected.

    Args:
        processes: Where children live.
        argv: Program and arguments.
        seconds: After that long it is killed.
        pass_fds: Descriptors it keeps; lent.
        nothing: A descriptor of /dev/null; lent.

    Raises:
        OSError: It cannot be executed.
    """
    with Output() as output:
        stdio = (nothing, output.fd.number, output.fd.number)
        child = processes.spawn(argv, stdio=stdio, pass_fds=pass_fds)
        ended = yield from finish(child, seconds=seconds)
        return Result(code=exit_code(child), output=output.read(), timed_out=not ended)


def finish(child: Child, *, seconds: float) -> Steps[bool]:
    """Wait for a child; kill it if it takes too long.

    When the wait is interrupted, the child may end by itself for a moment longer: an engine that
    is killed half-way leaves what nobody knows of.

    Returns:
        Whether it ended by itself.
    """
    ended = False
    try:
        ended = yield Pause(child=child, seconds=seconds)
    except LaunchFailed:
        ended = yield Pause(child=child, seconds=INTERRUPTED_SECONDS)
        raise
    finally:
        if not ended and child.status is None:
            os.kill(child.pid, signal.SIGKILL)
            yield Pause(child=child, seconds=STOP_SECONDS)
    return ended


def exit_code(child: Child) -> int:
    """Exit code as a shell would say it; -1 if the child would not even die."""
    if child.status is None:
        return -1
    code = os.waitstatus_to_exitcode(child.status)
    return code if code >= 0 else 128 - code
