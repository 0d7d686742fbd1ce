"""A terminal for an executed process, joined to the one that this command is run on."""

import contextlib
import os
import pty
import signal
import termios
import tty
from collections.abc import Iterator
from fcntl import ioctl
from typing import Final, Self

import anyio

CHUNK_BYTES: Final = 65536
LAST_WORDS_S: Final = 2.0
"""Longest wait for what is still on its way once the process has ended."""

_WINDOW_BYTES: Final = 8


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
        self._hung_up = anyio.Event()
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
        """Carry input until it ends."""
        while self._stdin is not None:
            await anyio.wait_readable(self._stdin)
            chunk = os.read(self._stdin, CHUNK_BYTES)
            if not chunk:
                # What the process reads is a terminal: there is no other way to say it.
                os.write(self._master, b"\x04")
                return
            os.write(self._master, chunk)

    async def carry_out(self) -> None:
        """Carry output until nobody has the other end any more."""
        with contextlib.suppress(OSError):
            while True:
                await anyio.wait_readable(self._master)
                chunk = os.read(self._master, CHUNK_BYTES)
                if not chunk:
                    break
                os.write(self._stdout, chunk)
        self._hung_up.set()

    async def last_words(self) -> None:
        """Wait for what is still on its way."""
        with anyio.move_on_after(LAST_WORDS_S):
            await self._hung_up.wait()

    def _follow_size(self) -> None:
        with contextlib.suppress(OSError):
            size = ioctl(self._stdout, termios.TIOCGWINSZ, bytes(_WINDOW_BYTES))
            ioctl(self._master, termios.TIOCSWINSZ, size)
