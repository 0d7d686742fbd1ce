"""One writer at a time: an advisory lock on a file beside the log.

Never on the log itself: closing any descriptor of it in this process would drop the locks that
SQLite holds there. Source: sqlite.org/howtocorrupt.html, section 2.2.
"""

import fcntl
import os
from contextlib import suppress
from typing import Final

from eventstore.errors import LogInaccessible, LogLocked, LogNotFound

LOCK_SUFFIX: Final = ".lock"
PID_BYTES_MAX: Final = 32


class WriterLock:
    """The right to write to a log. Owns its descriptor; the kernel drops the lock with it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def take(cls, path: str) -> "WriterLock":
        """Take the lock of the log at ``path``, without waiting.

        Raises:
            LogLocked: Another process, named in the error, or another log of this one has it.
            LogNotFound: The directory is missing.
            LogInaccessible: The lock file cannot be made or opened.
        """
        name = path + LOCK_SUFFIX
        try:
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError as error:
            raise LogNotFound(path, "the directory does not exist") from error
        except OSError as error:
            raise LogInaccessible(path, f"cannot open {name}: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = _owner(fd)
            os.close(fd)
            raise LogLocked(path, pid) from error
        except OSError as error:
            os.close(fd)
            raise LogInaccessible(path, f"cannot lock {name}: {error.strerror}") from error
        with suppress(OSError):  # a full disk costs others our pid, not us the lock
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        return cls(fd)

    def release(self) -> None:
        """Let others write."""
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
        os.close(self._fd)


def _owner(fd: int) -> int:
    with suppress(ValueError):
        return int(os.pread(fd, PID_BYTES_MAX, 0))
    return 0
