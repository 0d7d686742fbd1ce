"""Where a command writes what it makes: a new file, whole or not at all, or a stream."""

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from eventstore.whole_file import replace_whole


@contextmanager
def new_file(path: Path | None) -> Iterator[Callable[[str], object]]:
    """What takes the parts of a text, in order; the file appears when all of them are on disk.

    Args:
        path: The file; one that exists is replaced, and of a link what it leads to. A named pipe
            or a character device is written to, part by part. None: stdout.

    Raises:
        OSError: It cannot be written.
    """
    if path is None or _is_stdout(path):
        yield sys.stdout.write  # not click.echo, which takes escapes for decoration
        sys.stdout.flush()
        return
    if _flows(path):
        with path.open("w", encoding="utf-8", newline="") as stream:
            yield stream.write
        return
    with replace_whole(path) as file:
        yield file.write


def _is_stdout(path: Path) -> bool:
    """Whether it is what we print to already, by another name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(sys.stdout.fileno()))
    except OSError:  # also of a stdout without a descriptor
        return False


def _flows(path: Path) -> bool:
    """Whether what is written to it passes on: no file of its name could take its place."""
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISFIFO(kind) or stat.S_ISCHR(kind)
