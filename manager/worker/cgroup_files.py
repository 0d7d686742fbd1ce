"""Files of the kernel that are written with one system call, and read with few.

A start takes dozens of them: to make a file object of Python's for each took as long as all else
that the worker does.
"""

import os
from typing import Final

_PIECE_BYTES: Final = 1 << 16


def put(path: str, value: str) -> None:
    """Write a value.

    Raises:
        OSError: As open(2) and write(2); `filename` says which file.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode("ascii"))
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)


def get(path: str) -> str:
    """Read all of it; raises OSError as open(2) and read(2) do."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while piece := os.read(fd, _PIECE_BYTES):
            content += piece
    finally:
        os.close(fd)
    return content.decode("ascii")
