"""The standard streams of a command, which somebody may have closed before it began."""

import os
import sys
from typing import Final

NOTHING: Final = {0: os.O_RDONLY, 1: os.O_RDONLY, 2: os.O_WRONLY}
"""How /dev/null is opened in place of a stream: an output that is not there must not seem printed,
so writing to it fails; there is nothing to read, and nowhere to complain."""


def fill_closed_streams() -> None:
    """Open what is closed of 0, 1 and 2, before any other file can get its number.

    A number that is free would be an event loop's, or a connection's, and be taken for a stream: it
    would be donated to a container. Programs that run as another user get the same from their C
    library. Source: POSIX, exec, of file descriptors 0, 1 and 2.
    """
    for number, flags in NOTHING.items():
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)  # the lowest that is free: this one
            os.set_inheritable(opened, True)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
