"""The terminal that an OCI engine makes: received from it, and joined to the donated one.

Source: opencontainers/runc, docs/terminals.md: the engine connects to a socket of ours and sends
the master end by SCM_RIGHTS.
"""

import contextlib
import fcntl
import os
import socket
import sys
import termios
from pathlib import Path
from typing import Final, Self

from manager.urpc.fdpass import recv_with_fds
from manager.urpc.fds import OwnedFd
from manager.worker.errors import LaunchFailed
from manager.worker.loop import Child
from manager.worker.processes import Processes
from manager.worker.relay import make_raw

SOCKET_NAME: Final = "console"
NAME_BYTES_MAX: Final = 4096
"""The engine sends the terminal's name along."""

WINDOW_SIZE_BYTES: Final = 8
"""struct winsize. Source: ioctl_tty(2)."""

_SCRIPT: Final = Path(__file__).with_name("relay.py")


class ConsoleSocket:
    """Where an engine delivers the master end of a container's terminal. Owns what it opens.

    Args:
        directory: A private directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = OwnedFd(os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        # Short enough for a socket address wherever the directory is.
        self.path = f"/proc/{os.getpid()}/fd/{self._directory.number}/{SOCKET_NAME}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener.bind(self.path)
        self._listener.listen(1)

    def receive(self) -> OwnedFd:
        """Take the master end; to be called after `create` has ended well.

        Raises:
            LaunchFailed: Stage `create`: the engine did not send one.
        """
        try:
            connection, _ = self._listener.accept()
            with connection:
                connection.setblocking(False)
                received = recv_with_fds(connection, NAME_BYTES_MAX)
        except OSError as error:
            raise LaunchFailed.from_os("create", "no terminal from the engine", error) from error
        with received.files as files:
            if len(files) != 1:
                raise LaunchFailed("create", f"{len(files)} terminals from the engine, not one")
            return files.take_first()

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()
        self._directory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start_relay(processes: Processes, donated: int, master: int) -> Child:
    """Join the two terminals (lent) by a process that ends when either is gone.

    From now on what the client types is the container's to edit and to echo, and its end of input
    one for the container: the process may begin only after the first of it came.
    """
    # At once: the container may ask before the process has begun to follow.
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(donated, termios.TIOCGWINSZ, bytes(WINDOW_SIZE_BYTES))
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)
    before = b""
    with contextlib.suppress(OSError, termios.error):  # the client has hung up
        before = make_raw(donated)
    argv = [sys.executable, "-I", str(_SCRIPT), str(donated), str(master), before.hex()]
    return processes.spawn(argv, pass_fds=(donated, master))
