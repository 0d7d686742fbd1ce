"""Donated files of which the file system must answer before anything is done with them.

A file system may be a program of its owner's (FUSE), or far away (NFS), and whoever asks it waits
as long as it likes, in the kernel. So the first question is put by a thread that nobody needs.
"""

import asyncio
import contextlib
import logging
import os
import stat
import threading
from collections.abc import Callable
from functools import cache
from typing import Final

import anyio

from manager.kernel.donated import ask
from manager.kernel.statx import known_type
from manager.urpc.errors import UrpcError
from manager.urpc.fds import FdBundle, OwnedFd

logger = logging.getLogger(__name__)

FILE_PATIENCE_S: Final = 5.0
"""How long the file systems of a call's donated files may take to answer."""

_ANSWERED_BY_FILE_SYSTEMS: Final = frozenset({stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK})


async def until_answered(files: FdBundle, patience_s: float = FILE_PATIENCE_S) -> None:
    """Wait until the file system of each file has answered a first question.

    Args:
        files: Lent. If one does not answer they are taken, and closed when it does: closing a file
            can be a question, too.
        patience_s: How long to wait for all of them.

    Raises:
        UrpcError: One did not answer in time; the text says which.

    Cancellation: as if it had not answered.
    """
    doubtful = [(index, fd.number) for index, fd in enumerate(files) if _may_wait(fd.number)]
    if not doubtful:
        return
    loop = asyncio.get_running_loop()
    done = anyio.Event()
    question = _Question(doubtful, lambda: loop.call_soon_threadsafe(done.set))
    question.begin()
    try:
        with anyio.move_on_after(patience_s):
            await done.wait()
    finally:
        silent = question.give_up(files)
    if silent is not None:
        text = f"donated file {silent}: its file system does not answer"
        logger.warning("files.silent %s", text)
        raise UrpcError(text)


def _may_wait(fd: int) -> bool:
    """Whether its file system may be silent; the one that everything here runs from is not."""
    mode, device = known_type(fd)
    return stat.S_IFMT(mode) in _ANSWERED_BY_FILE_SYSTEMS and device != _own_device()


@cache
def _own_device() -> int:
    with OwnedFd(os.open(os.sep, os.O_PATH | os.O_CLOEXEC)) as root:
        return known_type(root.number)[1]


class _Question:
    """A thread of its own asks; it ends with the process, whether it was answered or not."""

    def __init__(self, doubtful: list[tuple[int, int]], done: Callable[[], object]) -> None:
        self._doubtful = doubtful
        self._done = done
        self._asking: int | None = doubtful[0][0]
        self._abandoned = FdBundle()
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Ask."""
        threading.Thread(target=self._run, name="asks-a-file-system", daemon=True).start()

    def give_up(self, files: FdBundle) -> int | None:
        """Which file has not answered yet; then all of them are the thread's."""
        with self._lock:
            if self._asking is not None:
                self._abandoned = files.take_all()
            return self._asking

    def _run(self) -> None:
        for index, number in self._doubtful:
            self._asking = index
            # A refusal is an answer; what it means is found out by whoever uses the file.
            with contextlib.suppress(OSError):
                ask(number)
        with self._lock:
            self._asking = None
            self._abandoned.close()
        # The loop may have ended meanwhile: then nobody waits.
        with contextlib.suppress(RuntimeError):
            self._done()
