"""Files that are there, whole, whatever happens to the machine after they were written."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO


def create_whole(path: Path, content: bytes, mode: int) -> None:
    """Make a file, whole or not at all, and durable; one that is there already stays as it is.

    Args:
        path: Its directory exists.
        content: All of it.
        mode: Its permissions, less the umask, from the first moment.

    Raises:
        OSError: It could not be made, on a full disk say; nothing is left of the attempt.
    """
    try:
        with new_whole(path, mode) as file:
            file.write(content)
    except FileExistsError:  # somebody else was first: theirs counts
        sync_names(path.parent)


@contextmanager
def new_whole(path: Path, mode: int) -> Iterator[BinaryIO]:
    """A file that is there, whole and durable, when the block has ended well, and not before.

    Args:
        path: Its directory exists.
        mode: Its permissions, less the umask, from the first moment.

    Raises:
        FileExistsError: Something of that name is there already; it stays as it is.
        OSError: It could not be made, on a full disk say; nothing is left of the attempt.
    """
    half = _half_of(path)
    try:
        with _synced(half, mode) as file:
            yield file.buffer
        os.link(half, path)
    finally:
        half.unlink(missing_ok=True)
    sync_names(path.parent)


@contextmanager
def replace_whole(path: Path) -> Iterator[TextIO]:
    """A text that takes the place of the file at a path: durable when the block has ended well.

    Args:
        path: Its directory exists. Of a link, what it leads to is replaced.

    Raises:
        OSError: It could not be written, or is no regular file. What was there still is, and
            nothing is left of the attempt.
    """
    target = replaceable(path)
    half = _half_of(target)
    try:
        with _synced(half, 0o666) as file:
            yield file
        put_in_place(half, target)
    finally:
        half.unlink(missing_ok=True)


def replaceable(path: Path) -> Path:
    """The file that a rename may take the place of: where the links at a path lead.

    Raises:
        OSError: What is there is no regular file, and a rename would put an end to it: a device,
            say. Or it cannot be looked at.
    """
    target = Path(os.path.realpath(path))
    try:
        found = path.stat()
    except FileNotFoundError:
        return target
    # What is open but has no name any more is at no path, whatever its link in /proc says.
    if not stat.S_ISREG(found.st_mode) or not target.exists():
        kind = "it is no regular file, which a whole one could replace"
        raise OSError(errno.EINVAL, kind, str(path))
    return target


def put_in_place(half: Path, target: Path) -> None:
    """Give a file that is on disk its name; what has it is replaced, at once and durably.

    Raises:
        OSError: It could not be renamed, or the new name may not be on disk.
    """
    half.replace(target)
    try:
        sync_names(target.parent)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that keeps no names, see fsync(2)
            raise


def sync_names(path: str | os.PathLike[str]) -> None:
    """Make the names in a directory durable; raises ``OSError``."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _half_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


@contextmanager
def _synced(half: Path, mode: int) -> Iterator[TextIO]:
    """A file for what a name is given to afterwards: on disk when the block has ended well."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(half, flags, mode), "w", encoding="utf-8", newline="") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
