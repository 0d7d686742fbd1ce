"""Carry bytes between a donated terminal and the one that an engine made: a script of its own.

An OCI engine makes a container's terminal inside the container and hands its master end out; what
was donated is a terminal of the client's. So somebody has to stand between the two: this process,
one per container with a terminal, so that neither worker nor manager does, and so that it outlives
both. It ends by itself when the container has closed its terminal or the client has hung up.

Arguments: the donated terminal's descriptor; the master's; in hexadecimal digits the settings that
the donated one had before it was made raw, and gets back. Standard library only.
"""

import contextlib
import fcntl
import os
import select
import struct
import sys
import termios
import tty
from typing import Final

CHUNK_BYTES: Final = 65536
SIZE_POLL_SECONDS: Final = 0.25
"""How often to look whether the client has resized its terminal: its signal goes elsewhere."""

SETTINGS_BYTES: Final = 64
"""Room for the kernel's struct termios, which has 36 or 44 by architecture."""

_SIZE: Final = struct.Struct("HHHH")


def main() -> int:
    """Run until either side is gone; returns the exit code."""
    donated, master = map(int, sys.argv[1:3])
    # A worker that is older than this file leaves it to us.
    before = bytes.fromhex(sys.argv[3]) if sys.argv[3:] else make_raw(donated)
    # Nobody else has the master. While a write to it waited, what the container prints would not be
    # read, and it reads no more itself before that is.
    os.set_blocking(master, False)
    try:
        carry(donated, master)
    finally:
        # If the client has hung up, there is nothing to restore.
        with contextlib.suppress(OSError):
            if before:
                fcntl.ioctl(donated, termios.TCSETSW, before)
    return 0


def make_raw(terminal: int) -> bytes:
    """Have a terminal pass everything on as it comes; returns the settings that it had."""
    before = fcntl.ioctl(terminal, termios.TCGETS, bytes(SETTINGS_BYTES))
    tty.setraw(terminal, termios.TCSANOW)
    return before


def carry(donated: int, master: int) -> None:
    """Copy both ways; what a side does not take yet waits here, and its source waits with it."""
    pending = {donated: b"", master: b""}
    other = {donated: master, master: donated}
    size = b""
    while True:
        size = _follow_size(donated, master, size)
        reading = [fd for fd in (donated, master) if not pending[other[fd]]]
        writing = [fd for fd, data in pending.items() if data]
        readable, writable, _ = select.select(reading, writing, [], SIZE_POLL_SECONDS)
        try:
            for fd in writable:
                with contextlib.suppress(BlockingIOError):
                    pending[fd] = pending[fd][os.write(fd, pending[fd]) :]
            for fd in readable:
                with contextlib.suppress(BlockingIOError):
                    chunk = os.read(fd, CHUNK_BYTES)
                    if not chunk:
                        return
                    pending[other[fd]] = chunk
        except OSError:
            # EIO: the last process of the container has closed it, or the client has hung up.
            return


def _follow_size(donated: int, master: int, known: bytes) -> bytes:
    try:
        size = fcntl.ioctl(donated, termios.TIOCGWINSZ, bytes(_SIZE.size))
        if size != known:
            fcntl.ioctl(master, termios.TIOCSWINSZ, size)
    except OSError:
        return known
    return size


if __name__ == "__main__":
    sys.exit(main())
