"""Named places at which a process can be made to kill itself, to see what survives that.

``SANDTRAIL_FAIL_POINT=NAME:COUNT:PATH`` in the environment of a service has whichever of its
processes comes to the place NAME for the COUNT-th time kill itself with SIGKILL, once: PATH, which
must not exist, is made first, and as long as it exists nobody dies. Without the variable a place is
a call of a function that does nothing.
"""

import os
import signal
from collections.abc import Callable
from typing import Final

VARIABLE: Final = "SANDTRAIL_FAIL_POINT"

MANAGER_POINTS: Final = (
    "append.begun",
    "intent.appended",
    "effect.sent",
    "hold.kept",
    "outcome.received",
    "outcome.appended",
    "outcome.acknowledged",
    "worker.found",
    "recovery.settled",
)
WORKER_POINTS: Final = (
    "hold.received",
    "launch.received",
    "launch.recorded",
    "cgroup.made",
    "launch.unrecorded",
    "launch.done",
    "launch.reported",
    "kill.delivered",
    "exec.recorded",
    "exec.done",
    "exec.reported",
    "exit.seen",
    "end.written",
    "launch.cleaned",
    "destroy.received",
    "outbox.acknowledged",
)
IMAGE_POINTS: Final = (
    "save.received",
    "save.frozen",
    "save.one",
    "image.copied",
    "image.synced",
    "image.written",
    "save.reported",
    "restore.extracted",
)
POINTS: Final = (*MANAGER_POINTS, *WORKER_POINTS, *IMAGE_POINTS)


def _never(name: str) -> None:
    """Nobody is to die."""


def fail_point(setting: str) -> Callable[[str], None]:
    """What is to happen at each place, according to the variable's value.

    Raises:
        ValueError: It names no place, or is not of the form NAME:COUNT:PATH.
    """
    if not setting:
        return _never
    wanted, count, path = setting.split(":", 2)
    if wanted not in POINTS:
        raise ValueError(f"{VARIABLE}={setting}: {wanted!r} is none of {', '.join(POINTS)}")
    left = int(count)

    def reach(name: str) -> None:
        nonlocal left
        if name != wanted:
            return
        left -= 1
        if left > 0:
            return
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    return reach


reached: Final = fail_point(os.environ.get(VARIABLE, ""))
"""Called at each place with its name."""
