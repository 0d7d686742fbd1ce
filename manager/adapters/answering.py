"""Donated files of which the file system must answer before anything is done with them.

A file system may be a program of its owner's (FUSE), or far away (NFS), and whoever asks it waits
as long as it likes, in the kernel. So the first question is put by a thread that nobody needs.
"""

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable
from functools import cache
from typing import Final

import anyio

from manager.application.ports import Described
from manager.domain.silent_files import silent_file
from manager.kernel import donated
from manager.kernel.donated import describe_unasked
from manager.kernel.statx import known_type
from manager.urpc.fds import FdBundle, OwnedFd

logger = logging.getLogger(__name__)

FILE_PATIENCE_S: Final = 5.0
"""How long the file systems of a call's donated files may take to answer."""


async def describe(files: FdBundle, patience_s: float = FILE_PATIENCE_S) -> Described:
    """The facts of each file, once its file system has answered a first question.

    Args:
        files: Lent. If one does not answer they are taken, and closed when it does: closing a file
            can be a question, too.
        patience_s: How long to wait for all of them.

    Cancellation: as if one had not answered.
    """
    doubtful = {index: fd.number for index, fd in enumerate(files) if _may_wait(fd.number)}
    known = tuple(
        describe_unasked(number) if index in doubtful else donated.describe(number)
        for index, number in enumerate(files.numbers())
    )
    if not doubtful:
        return Described(facts=known)
    silent = await _silent_one(files, doubtful, patience_s)
    if silent is not None:
        problem = silent_file(silent)
        logger.warning("files.silent %s", problem)
        return Described(facts=known, problem=problem)
    return Described(facts=tuple(donated.describe(number) for number in files.numbers()))


async def _silent_one(files: FdBundle, doubtful: dict[int, int], patience_s: float) -> int | None:
    loop = asyncio.get_running_loop()
    done = anyio.Event()
    question = _Question(doubtful, lambda: loop.call_soon_threadsafe(done.set))
    question.begin()
    try:
        with anyio.move_on_after(patience_s):
            await done.wait()
    finally:
        silent = question.give_up(files)
    return silent


def _may_wait(fd: int) -> bool:
    """Whether its file system may be silent: a pipe or a device has its name in one as well."""
    _, device = known_type(fd)
    return device not in _own_devices()


@cache
def _own_devices() -> frozenset[int]:
    """Where everything here runs from, and the kernel's own: pipes, sockets, devices."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    with (
        OwnedFd(read_end) as pipe,
        OwnedFd(write_end),
        OwnedFd(os.eventfd(0, os.EFD_CLOEXEC)) as anonymous,
        OwnedFd(os.open(os.sep, os.O_PATH | os.O_CLOEXEC)) as root,
        OwnedFd(os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)) as null,
        socket.socket(socket.AF_UNIX) as sock,
    ):
        numbers = (pipe.number, anonymous.number, root.number, null.number, sock.fileno())
        return frozenset(known_type(number)[1] for number in numbers)


class _Question:
    """A thread of its own asks; it ends with the process, whether it was answered or not."""

    def __init__(self, doubtful: dict[int, int], done: Callable[[], object]) -> None:
        self._doubtful = doubtful
        self._done = done
        self._asking: int | None = next(iter(doubtful))
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
        for index, number in self._doubtful.items():
            self._asking = index
            # A refusal is an answer; what it means is found out by whoever uses the file.
            with contextlib.suppress(OSError):
                donated.ask(number)
        with self._lock:
            self._asking = None
            self._abandoned.close()
        # The loop may have ended meanwhile: then nobody waits.
        with contextlib.suppress(RuntimeError):
            self._done()
