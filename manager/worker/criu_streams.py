"""How CRIU is told which of a container's files are its streams, when it is saved and restored.

A stream's other end, or its file, is not in the container. CRIU knows it by a key, which an image
names; on the way back a descriptor is handed over for each key.
"""

import fcntl
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

STREAMS: Final = ("stdin", "stdout", "stderr")
NULL: Final = "/dev/null"
FILE: Final = "file"
FIFO: Final = "fifo"
"""Stand for a file or a named pipe outside of the container, until CRIU's key for it is known."""

UNUSED: Final = ""
"""Stands for a stream that the container has closed, or has replaced."""

_NULL_DEVICE: Final = os.makedev(1, 3)
_PIPE: Final = re.compile(r"pipe:\[[0-9]+\]", re.ASCII)
_FILE_KEY: Final = re.compile(r"(file|fifo)(\[[0-9a-f]+:[0-9a-f]+\])", re.ASCII)
_MOUNT_ID: Final = re.compile(r"^mnt_id:\s+([0-9]+)$", re.MULTILINE)


class StreamLost(Exception):  # noqa: N818 - named as the outcome that it becomes
    """A stream cannot be carried over; the text names it, and what would do."""


def kind_of(fd: int) -> str:
    """What a stream is: a pipe's key, NULL, FILE, FIFO, or a word for what cannot be saved."""
    status = os.fstat(fd)
    if stat.S_ISFIFO(status.st_mode):
        link = os.readlink(f"/proc/self/fd/{fd}")
        return link if _PIPE.fullmatch(link) else FIFO
    if stat.S_ISREG(status.st_mode):
        return FILE
    if stat.S_ISCHR(status.st_mode):
        if status.st_rdev == _NULL_DEVICE:
            return NULL
        return "terminal" if os.isatty(fd) else "device"
    return "socket"


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuse what CRIU cannot save.

    Raises:
        StreamLost: A stream is a socket, a terminal or a device.
    """
    for name, kind in zip(STREAMS, kinds, strict=True):
        if kind not in {NULL, FILE, FIFO} and not _PIPE.fullmatch(kind):
            raise StreamLost(f"{name} is a {kind}: give it a pipe or a regular file")


def keys_of(pid: int, kinds: Sequence[str]) -> list[str]:
    """What is to be known of the streams of a container that stands still.

    A pipe is told by CRIU's key for it, a file or a named pipe by its key with FILE or FIFO in
    front; else it is NULL or UNUSED.

    Args:
        pid: Its init.
        kinds: What each stream was when it was donated.
    """
    return [
        _file_key(pid, number, kind) if kind in {FILE, FIFO} else kind
        for number, kind in enumerate(kinds)
    ]


def _file_key(pid: int, number: int, kind: str) -> str:
    try:
        found = os.stat(f"/proc/{pid}/fd/{number}")
        info = Path(f"/proc/{pid}/fdinfo/{number}").read_text(encoding="ascii")
    except FileNotFoundError:
        return UNUSED
    match = _MOUNT_ID.search(info)
    is_kind = stat.S_ISREG if kind == FILE else stat.S_ISFIFO
    if match is None or not is_kind(found.st_mode):
        return UNUSED
    mounts = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8", errors="replace")
    if match[1] in {line.split(" ", 1)[0] for line in mounts.splitlines()}:
        return UNUSED  # a file of the container's own: it has put it in the stream's place
    return f"{kind}[{int(match[1]):x}:{found.st_ino:x}]"


def options_to_save(keys: Sequence[str]) -> Iterator[str]:
    """Lines for CRIU's options: what it is not to look for in the container."""
    for key in dict.fromkeys(keys):
        if match := _FILE_KEY.fullmatch(key):
            yield f"external file{match[2]}"


def options_to_restore(keys: Sequence[str]) -> Iterator[str]:
    """Lines for CRIU's options: which of its own descriptors come in the streams' places.

    Those that were pipes, runc hands over by itself.
    """
    for number, key in enumerate(keys):
        if (match := _FILE_KEY.fullmatch(key)) and key not in keys[:number]:
            yield f"inherit-fd fd[{number}]:file{match[2]}"


def read_keys(content: bytes) -> list[str]:
    """The keys of an image.

    Raises:
        StreamLost: They are none.
    """
    try:
        keys = msgspec.json.decode(content, type=list[str])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StreamLost(f"the image does not tell its streams: {error}") from error
    known = [k in {NULL, UNUSED} or _PIPE.fullmatch(k) or _FILE_KEY.fullmatch(k) for k in keys]
    if len(keys) != len(STREAMS) or not all(known):
        raise StreamLost("the image does not tell its streams as CRIU knows them")
    return keys


def check_successors(keys: Sequence[str], stdio: Sequence[int]) -> None:
    """See that what is donated can come in the place of what was saved.

    Args:
        keys: Of the image.
        stdio: The new streams, lent.

    Raises:
        StreamLost: One cannot; says which, and what would do.
    """
    for name, key, fd in zip(STREAMS, keys, stdio, strict=True):
        if key == NULL and kind_of(fd) != NULL:
            raise StreamLost(f"{name} was /dev/null when it was saved: give it /dev/null again")
        if key in {NULL, UNUSED}:
            continue
        first = keys.index(key)
        if not os.path.sameopenfile(fd, stdio[first]):
            raise StreamLost(
                f"{STREAMS[first]} and {name} were one when they were saved: give them one again"
            )
        if key.startswith(FILE):
            _check_file(name, fd)


def _check_file(name: str, fd: int) -> None:
    """CRIU sets the position that the old one had, in the new one."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise StreamLost(f"{name} was a file when it was saved: give it a file again")
    if flags & os.O_ACCMODE != os.O_RDONLY and not flags & os.O_APPEND:
        raise StreamLost(f"runc would leave a hole in a file: open {name} with O_APPEND")
