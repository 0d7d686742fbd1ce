"""Ending a process that a killed worker was executing, and that is told as never executed."""

import contextlib
import signal
from pathlib import Path
from typing import Final

from manager.kernel import pidfd
from manager.worker.adoption import is_at_work, kill_processes_with
from manager.worker.delivery import Target
from manager.worker.launch import Launch
from manager.worker.loop import Pause, Steps
from manager.worker.oci_exec import EXEC_SECONDS

POLL_SECONDS: Final = 0.05


def end_unheard(place: Path, launch: Launch | None) -> Steps[None]:
    """End it, and the engine's command that was making it.

    Args:
        place: Its directory, which that command has among its arguments.
        launch: The container, if it is known.
    """
    command = str(place / "pid").encode()
    if launch is not None and launch.inside is not None:
        engine, _ = launch.inside
        if not engine.joins_namespaces:
            yield from _end_in_its_kernel(place, launch, command)
    kill_processes_with(command)
    with contextlib.suppress(OSError, ValueError):
        pid = int((place / "pid").read_text(encoding="ascii"))
        with pidfd.open_pidfd(pid) as handle:
            if launch is not None and launch.contains(pid):
                signal.pidfd_send_signal(handle.number, signal.SIGKILL)


def _end_in_its_kernel(place: Path, launch: Launch, command: bytes) -> Steps[None]:
    """Let the command go on until it has told what the container's own kernel calls the process.

    From outside the process cannot be seen: once its command is killed, nobody finds it any more.
    """
    for _ in range(int(EXEC_SECONDS / POLL_SECONDS)):
        if not is_at_work(command):
            return
        # The number is there before the file that says that all is.
        with contextlib.suppress(OSError, ValueError):
            int((place / "pid").read_text(encoding="ascii"))
            number = int((place / "number").read_text(encoding="ascii"))
            yield from launch.signal(signal.SIGKILL, Target(pid=number))
            return
        yield Pause(seconds=POLL_SECONDS)
