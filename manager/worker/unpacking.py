"""Unpack a donated tar into an upper layer, in a process that is confined to it."""

import os
import signal
import sys
from pathlib import Path
from typing import Final

from manager.urpc.fds import OwnedFd
from manager.worker import commands
from manager.worker.errors import LaunchFailed, one_line
from manager.worker.layers import Fill
from manager.worker.loop import Steps
from manager.worker.machine import Machine

TAR_SECONDS_MAX: Final = 300.0
"""Longest time that unpacking may take."""

_SCRIPT: Final = Path(__file__).with_name("untar.py")


def unpack_into(machine: Machine, tar: OwnedFd) -> Fill:
    """Make the step that unpacks `tar` (lent) into the directory that it is given.

    The step raises LaunchFailed, stage `tar`: the archive is refused or cannot be read.
    """

    def fill(upper_fd: int) -> Steps[None]:
        result = yield from commands.run(
            machine.processes,
            [sys.executable, "-I", str(_SCRIPT), str(upper_fd), str(tar.number)],
            seconds=TAR_SECONDS_MAX,
            pass_fds=(upper_fd, tar.number),
            nothing=machine.nothing.number,
        )
        if result.timed_out:
            raise LaunchFailed("tar", f"unpacking took more than {TAR_SECONDS_MAX:g} seconds")
        if result.code == 128 + signal.SIGXFSZ:
            raise LaunchFailed("tar", "a file of the archive is too large", 27)
        if result.code != os.EX_OK:
            reason = one_line(result.output) or f"unpacking ended with code {result.code}"
            raise LaunchFailed("tar", reason)

    return fill
