"""What can go wrong in the worker, told by what becomes of it.

::

    WorkerError                   root; never raised itself
    ├── LaunchFailed              becomes StartFailed, with its stage, reason and errno
    │   ├── EngineIdTaken         nothing was made yet, and what has the id is another's
    │   └── LaunchAborted         thrown into a launch that is to be given up (Destroy)
    ├── StateDirTaken             another worker serves this directory: do not start
    └── KernelTooOld              no container can be launched here: every engine reports why
"""

import errno as errno_codes
import os
from typing import Final

from manager.schema.worker_facts import FailedStage

REASON_CHARS_MAX: Final = 1000
"""Longest reason of a failure; an engine's message is cut to it."""


class WorkerError(Exception):
    """Root of everything that this package raises."""


class LaunchFailed(WorkerError):  # noqa: N818 - named as the outcome that it becomes
    """The container's code did not run and will not.

    Args:
        stage: Which part of the launch failed.
        reason: For a person; made one line, bounded. No env value may be in it.
        errno: The kernel's number, where one is the cause.
    """

    def __init__(self, stage: FailedStage, reason: str, errno: int | None = None) -> None:
        self.stage: FailedStage = stage
        self.reason = one_line(reason)
        self.errno = errno
        super().__init__(f"{stage}: {self.reason}")

    @classmethod
    def from_os(cls, stage: FailedStage, doing: str, error: OSError) -> "LaunchFailed":
        """Say what was being done, and what the kernel said to it."""
        number = error.errno or errno_codes.EIO
        return cls(stage, f"{doing}: {error.strerror or os.strerror(number)}", number)


class EngineIdTaken(LaunchFailed):
    """The engine id is that of a container that runs: nothing of it may be touched."""

    def __init__(self) -> None:
        reason = "the container that the image was made of is still here: destroy it first"
        super().__init__("restore", reason)


class LaunchAborted(LaunchFailed):
    """The launch was destroyed while it was under way."""

    def __init__(self) -> None:
        super().__init__("aborted", "destroyed while it was being started")


class StateDirTaken(WorkerError):  # noqa: N818 - says what is, as the log line does
    """Another worker holds the lock of this state directory."""


class KernelTooOld(WorkerError):  # noqa: N818 - says what is
    """A facility that nothing can stand in for is missing from this kernel."""


def one_line(text: str) -> str:
    """Make a foreign message fit for a log: printable, one line, bounded."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= REASON_CHARS_MAX else flat[: REASON_CHARS_MAX - 1] + "…"
