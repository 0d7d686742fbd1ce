"""A terminal for an executed process, joined to the one that this command is run on."""

import contextlib
import errno
import math
import os
import pty
import select
import signal
import termios
import tty
from collections.abc import Awaitable, Callable, Iterator
from fcntl import ioctl
from typing import Final, Self

import anyio
import anyio.lowlevel

CHUNK_BYTES: Final = 65536
LAST_WORDS_S: Final = 2.0
"""Longest silence in which something may still be on its way once the process has ended."""

LAST_WORDS_BYTES: Final = 262_144
"""More than can be on its way then, in the kernel and in a relay. What comes after it was written
by somebody else, who may go on for ever."""

_WINDOW_BYTES: Final = 8
_END: Final = b"\x04"
"""What a line discipline takes for the end of input: after half a line only for that line's end."""


class StreamBroken(Exception):  # noqa: N818 - whoever has its other end is at fault
    """One of this command's own streams cannot be used; ``cause`` is what it said."""

    def __init__(self, stream: str, cause: OSError) -> None:
        super().__init__(f"standard {stream}: {cause.strerror}")
        self.cause = cause


class ExecTerminal:
    """A pair of terminal ends; bytes are carried between its master and this command's streams.

    Args:
        stdin: Where its input comes from, made raw while this lasts if it is a terminal; `None`
            for no input.
        stdout: Where its output goes.
    """

    def __init__(self, stdin: int | None, stdout: int) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._master, self._slave = pty.openpty()
        # Nobody else has this end. One that blocks would keep what comes out from being read
        # while the process, which waits for that, reads no more of what goes in.
        os.set_blocking(self._master, False)
        self._hung_up = anyio.Event()
        self._silence = anyio.CancelScope()
        self._last: int | None = None
        self._before: list[int | list[bytes | int]] | None = None

    def __enter__(self) -> Self:
        self._follow_size()
        signal.signal(signal.SIGWINCH, lambda *_: self._follow_size())
        if self._stdin is not None and os.isatty(self._stdin):
            self._before = termios.tcgetattr(self._stdin)
            tty.setraw(self._stdin, termios.TCSANOW)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        if self._before is not None and self._stdin is not None:
            with contextlib.suppress(termios.error):  # it was hung up
                termios.tcsetattr(self._stdin, termios.TCSADRAIN, self._before)
        os.close(self._master)

    @contextlib.contextmanager
    def lent(self) -> Iterator[int]:
        """The end for the process; closed here afterwards, so that its end can be seen."""
        try:
            yield self._slave
        finally:
            os.close(self._slave)

    async def carry_in(self) -> None:
        """Carry input until it ends.

        Raises:
            StreamBroken: It cannot be read.
        """
        stdin, at_line_start = self._stdin, True
        while stdin is not None:
            try:
                await _ready(stdin, anyio.wait_readable)
                chunk = _read(stdin)
            except OSError as error:
                raise StreamBroken("input", error) from error
            if not chunk:
                # What the process reads is a terminal: there is no other way to say it.
                await self._put(_END if at_line_start else _END + _END)
                return
            at_line_start = chunk.endswith(b"\n")
            await self._put(chunk)

    async def carry_out(self) -> None:
        """Carry output until nobody has the other end any more, or to the end of the last words.

        Raises:
            StreamBroken: It cannot be written.
        """
        while chunk := await self._get():
            try:
                await _put_all(self._stdout, chunk)
            except OSError as error:
                raise StreamBroken("output", error) from error
        self._hung_up.set()

    async def last_words(self) -> None:
        """Wait until what is still on its way is carried, however long it takes to write it."""
        self._last = LAST_WORDS_BYTES
        self._silence.deadline = anyio.current_time() + LAST_WORDS_S
        await self._hung_up.wait()

    async def _get(self) -> bytes:
        """What the process wrote; nothing when nobody has its end any more, or after its end."""
        patience = math.inf if self._last is None else LAST_WORDS_S
        with anyio.move_on_after(patience) as self._silence:
            while True:
                with contextlib.suppress(BlockingIOError):
                    return self._within_last(_read(self._master))
                await anyio.wait_readable(self._master)
        return b""

    def _within_last(self, chunk: bytes) -> bytes:
        if self._last is None:
            return chunk
        chunk = chunk[: self._last]
        self._last -= len(chunk)
        return chunk

    async def _put(self, chunk: bytes) -> None:
        """Type it; what nobody is left to read is dropped."""
        while chunk and not self._hung_up.is_set():
            await anyio.wait_writable(self._master)
            with contextlib.suppress(BlockingIOError):
                chunk = chunk[os.write(self._master, chunk) :]

    def _follow_size(self) -> None:
        with contextlib.suppress(OSError):
            size = ioctl(self._stdout, termios.TIOCGWINSZ, bytes(_WINDOW_BYTES))
            ioctl(self._master, termios.TIOCSWINSZ, size)


def _read(fd: int) -> bytes:
    """A chunk; nothing at its end, or if it is a terminal that was hung up."""
    try:
        return os.read(fd, CHUNK_BYTES)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


async def _put_all(fd: int, chunk: bytes) -> None:
    """Write to a file that may be shared, so that it must not be made one that does not block."""
    while chunk:
        await _ready(fd, anyio.wait_writable)
        with contextlib.suppress(BlockingIOError):  # somebody else has made it one
            # As much as a pipe takes for certain when it takes anything.
            chunk = chunk[os.write(fd, chunk[: select.PIPE_BUF]) :]


async def _ready(fd: int, wait: Callable[[int], Awaitable[None]]) -> None:
    """Wait until a file is ready; one that cannot be waited for (a regular one) always is."""
    try:
        await wait(fd)
    except PermissionError:
        await anyio.lowlevel.checkpoint()
