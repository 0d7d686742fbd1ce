"""Unix socket addresses: of any length, bound for their owner only, never over a live one."""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

PATH_BYTES_MAX: Final = 107
"""Longest path in a unix address. Source: unix(7), sun_path[108] with its NUL."""

BACKLOG_CONNECTIONS: Final = 128
"""Connections that may wait to be accepted."""

_SOCKET_MODE: Final = 0o600


class UnixListener:
    """A listening socket and the file that it is bound to; made by `bind`."""

    def __init__(self, sock: socket.socket, path: Path) -> None:
        self.sock = sock
        self.path = path
        self._file = _identity(path)

    @classmethod
    def bind(cls, path: Path, *, kind: int = socket.SOCK_STREAM) -> Self:
        """Bind and listen: mode 0600 (less the umask) from the first moment.

        A socket file on which nobody listens, because its server was killed, is replaced. Two
        servers that race for one path are the caller's to prevent: lock the directory.

        Args:
            path: Of any length; its directory exists.
            kind: `SOCK_STREAM` or `SOCK_SEQPACKET`.

        Raises:
            OSError: EADDRINUSE: somebody listens there, or it is no socket; ENOENT, EACCES.

        Source: bind(2) on Linux gives the file the mode of the socket's own inode, less the umask:
            no window in which it is wider, and no change to a umask that all threads share.
        """
        if _is_stale(path, kind):
            path.unlink()
        sock = _socket(kind)
        try:
            os.fchmod(sock.fileno(), _SOCKET_MODE)
            with _reachable(path.parent, 1 + len(os.fsencode(path.name))) as parent:
                sock.bind(f"{parent}/{path.name}")
            sock.listen(BACKLOG_CONNECTIONS)
            return cls(sock, path)
        except BaseException:
            sock.close()
            raise

    def close(self) -> None:
        """Stop listening and remove the file, unless another one stands there; idempotent."""
        if self.sock.fileno() >= 0 and _identity(self.path) == self._file:
            self.path.unlink()
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AbstractListener:
    """A listening socket whose name is in no file system; made by `bind`.

    There is no mode that could keep anybody out: look at who connects.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    @classmethod
    def bind(cls, name: bytes) -> Self:
        """Bind and listen.

        Args:
            name: What follows the first NUL; every byte counts, also NULs. At most PATH_BYTES_MAX.

        Raises:
            OSError: EADDRINUSE: somebody in this network namespace has it; EINVAL: it is too long.

        Source: unix(7), "Abstract sockets".
        """
        if len(name) > PATH_BYTES_MAX:
            raise OSError(
                errno.EINVAL, f"a name of {len(name)} bytes, at most {PATH_BYTES_MAX} fit"
            )
        sock = _socket(socket.SOCK_STREAM)
        try:
            sock.bind(b"\0" + name)
            sock.listen(BACKLOG_CONNECTIONS)
            return cls(sock)
        except BaseException:
            sock.close()
            raise

    def close(self) -> None:
        """Stop listening; idempotent."""
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect_unix(path: Path, *, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Connect to a path of any length.

    Returns:
        A non-blocking connected socket, the caller's to close.

    Raises:
        BlockingIOError: The server's backlog is full. Try again shortly.
        OSError: ENOENT, ECONNREFUSED: no server there.
    """
    sock = _socket(kind)
    try:
        with _reachable(path) as address:
            sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _socket(kind: int) -> socket.socket:
    return socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _is_stale(path: Path, kind: int) -> bool:
    if not path.is_socket():
        return False
    try:
        connect_unix(path, kind=kind).close()
    except BlockingIOError:
        return False
    except ConnectionRefusedError:
        return True
    return False


@contextlib.contextmanager
def _reachable(path: Path, room_bytes: int = 0) -> Iterator[str]:
    """Lend a name for `path` that, with `room_bytes` after it, fits an address.

    A long one goes through a descriptor of our own.
    """
    if len(os.fsencode(path)) + room_bytes <= PATH_BYTES_MAX:
        yield str(path)
        return
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
