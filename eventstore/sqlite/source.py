"""How a log's file is opened to be read, so that nothing is made beside it, even by root.

With ``mode=ro`` alone SQLite makes a -wal and a -shm wherever it may. So it is asked to look at

* the file with what lies beside it, if a -wal and its -shm do: somebody writes, or was killed;
* the file alone (``immutable=1``), if there is nothing in a -wal. It must not change meanwhile,
  which is looked for after each visit;
* a private copy, if a -wal lies there without its -shm, as in a copy of the two or after the
  machine went down: SQLite cannot read such a -wal without making a -shm.

Never while SQLite has the file open here does anything else open it: closing it again would drop
SQLite's locks. Copied is only what has no -shm, which nobody can have open.
Source: sqlite.org/howtocorrupt.html, section 2.2; sqlite.org/wal.html, section 5.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias
from urllib.parse import quote

from msgspec import Struct

from eventstore.errors import LogInaccessible, LogNotFound, StoreBusy
from eventstore.sqlite.completeness import WAL_SUFFIX

logger = logging.getLogger(__name__)

SHM_SUFFIX: Final = "-shm"
PRIVATE_COPY_BYTES_MAX: Final = 4 * 1024 * 1024 * 1024
"""Bytes of a log and its -wal that are copied to be read, where that is the only way."""
OPEN_TRIES_MAX: Final = 10
"""How often a file is looked at anew because a writer has just come or gone."""

State: TypeAlias = tuple[tuple[int, int, int] | None, ...]
"""Inode, size and time of change of the file and its -wal; of the -shm only whether it is there."""

Identity: TypeAlias = tuple[int, int] | None
"""Device and inode of a log's file; None if there is no such file."""


class Source(Struct, frozen=True):
    """What SQLite is to open.

    Attributes:
        path: The log's file.
        uri: For :func:`sqlite3.connect`.
        state: How the files were when this was decided; None if they may change.
    """

    path: str
    uri: str
    state: State | None

    def is_current(self) -> bool:
        """Whether what was read since is what was in the log."""
        return self.state is None or self.state == _state(self.path)


@contextmanager
def reading_source(path: str) -> Iterator[Source]:
    """Decide how a log is read. SQLite must have begun to read before the context is left.

    Raises:
        LogNotFound: No such file.
        LogInaccessible: It could only be read from a copy, which cannot be made.
        StoreBusy: Writers come and go. Try again.
    """
    for _ in range(OPEN_TRIES_MAX):
        state = _state(path)
        main, wal, shm = state
        if main is None:
            raise LogNotFound(path, "no such file")
        if wal is not None and shm is not None:
            logger.info("log.read path=%s how=with_wal", path)
            yield Source(path, file_uri(path, "mode=ro"), None)
            return
        if wal is None or not wal[1]:
            logger.info("log.read path=%s how=alone", path)
            yield Source(path, file_uri(path, "mode=ro&immutable=1"), state)
            return
        with _private_copy(path, main[1] + wal[1]) as copy:
            if _state(path) == state:
                logger.info("log.read path=%s how=private_copy", path)
                yield Source(path, file_uri(copy, "mode=ro"), state)
                return
    raise StoreBusy(path)


def file_uri(path: str, parameters: str) -> str:
    """A path as an address for SQLite."""
    return f"file:{quote(path)}?{parameters}"


@contextmanager
def _private_copy(path: str, size_bytes: int) -> Iterator[str]:
    """A copy of the file and its -wal that has lost its name, and ends with who has it open."""
    if size_bytes > PRIVATE_COPY_BYTES_MAX:
        raise LogInaccessible(
            path,
            f"{path}{WAL_SUFFIX} can only be read with a {SHM_SUFFIX} beside it, or from a copy, "
            f"but they are {size_bytes:,} bytes, over the limit of {PRIVATE_COPY_BYTES_MAX:,}: "
            "put both on a disk that can be written and open them there",
        )
    directory = tempfile.mkdtemp(prefix="eventstore-")
    try:
        copy = os.path.join(directory, "log.db")
        try:
            shutil.copyfile(path, copy)
            shutil.copyfile(path + WAL_SUFFIX, copy + WAL_SUFFIX)
        except OSError as error:
            raise LogInaccessible(
                path, f"cannot be copied to {directory} to be read: {error.strerror}"
            ) from error
        yield copy
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _state(path: str) -> State:
    shm = _look(path + SHM_SUFFIX)
    return _look(path), _look(path + WAL_SUFFIX), None if shm is None else (0, 0, 0)


def identity_of(path: str) -> Identity:
    """Which file has that name now."""
    found = _status(path)
    return None if found is None else (found.st_dev, found.st_ino)


def _look(path: str) -> tuple[int, int, int] | None:
    found = _status(path)
    return None if found is None else (found.st_ino, found.st_size, found.st_mtime_ns)


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LogInaccessible(path, error.strerror or str(error)) from error
