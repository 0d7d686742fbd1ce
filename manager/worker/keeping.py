"""The worker's side of its keeper, see :mod:`manager.worker.keeper`."""

import contextlib
import errno
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Final

from manager.urpc.fdpass import recv_with_fds, send_with_fds
from manager.urpc.fds import OwnedFd
from manager.urpc.unix_address import UnixListener, connect_unix
from manager.worker import keeper
from manager.worker.processes import Processes

logger = logging.getLogger(__name__)

SOCKET_NAME: Final = "keeper.sock"
ANSWER_SECONDS: Final = 5.0
"""Longest wait for a keeper to say what it keeps, or to make room for more to be told.

The kernel takes some 270 packets that nobody has read yet; whoever adopts more containers than that
waits a moment for the keeper.
"""


class Keeping:
    """Has pidfds kept, by name, in a process that outlives this one.

    Where it cannot be done (no memory for a process, say) it is not done, and the log says so:
    containers are then as safe as without a keeper.

    Args:
        directory: The worker's own; the keeper's socket lies there.
        processes: Starts the keeper.
    """

    def __init__(self, directory: Path, processes: Processes) -> None:
        self._path = directory / SOCKET_NAME
        self._processes = processes
        self._keeper: socket.socket | None = None
        self._lent: dict[str, OwnedFd] = {}

    def open(self) -> dict[str, OwnedFd]:
        """Find the keeper that a former worker left, or start one.

        Returns:
            What it keeps, by name, owned by the caller; nothing if it is new.
        """
        kept: dict[str, OwnedFd] = {}
        try:
            self._keeper = self._connect()
            if self._keeper is None:
                self._keeper = self._start()
            else:
                kept = self._ask(self._keeper)
        except OSError as error:
            logger.warning("worker.no_keeper %s", error)
            self._hang_up()
        return kept

    def keep(self, name: str, pidfd: OwnedFd) -> None:
        """Have a copy of a pidfd kept; it is lent until :meth:`drop`."""
        self._lent[name] = pidfd
        self._send(b"+", name, (pidfd.number,))

    def drop(self, name: str) -> None:
        """Keep it no longer; a name that is not kept is fine."""
        self._lent.pop(name, None)
        self._send(b"-", name)

    def close(self) -> None:
        """Let the keeper leave if it keeps nothing; one that has left is not replaced."""
        if self._keeper is not None:
            with contextlib.suppress(OSError):
                send_with_fds(self._keeper, b"!")
        self._hang_up()

    def _send(self, verb: bytes, name: str, fds: tuple[int, ...] = ()) -> None:
        if self._keeper is None:
            return
        try:
            send_with_fds(self._keeper, verb + name.encode(), fds)
        except OSError as error:
            logger.warning("worker.keeper_lost %s", error)
            self._replace()

    def _replace(self) -> None:
        self._hang_up()
        try:
            self._path.unlink(missing_ok=True)  # one that does not answer may still listen
            self._keeper = self._start()
            for name, pidfd in self._lent.items():
                send_with_fds(self._keeper, b"+" + name.encode(), (pidfd.number,))
        except OSError as error:
            logger.warning("worker.no_keeper %s", error)
            self._hang_up()

    def _hang_up(self) -> None:
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None

    def _connect(self) -> socket.socket | None:
        try:
            return self._reach()
        except (FileNotFoundError, ConnectionRefusedError):
            return None

    def _reach(self) -> socket.socket:
        sock = connect_unix(self._path, kind=socket.SOCK_SEQPACKET)
        sock.settimeout(ANSWER_SECONDS)
        return sock

    def _start(self) -> socket.socket:
        listener = UnixListener.bind(self._path, kind=socket.SOCK_SEQPACKET)
        # Only the keeper listens, and the file stays: it is how the next worker finds it.
        with listener.sock, OwnedFd(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) as nothing:
            listener.sock.setblocking(True)
            program = [sys.executable, "-I", "-S", keeper.__file__]
            stdio = (listener.sock.fileno(), nothing.number, nothing.number)
            self._processes.forget(self._processes.spawn(program, stdio=stdio))
            # It will accept when it has started; until then packets wait in the socket.
            return self._reach()

    def _ask(self, sock: socket.socket) -> dict[str, OwnedFd]:
        kept: dict[str, OwnedFd] = {}
        sock.send(b"?")
        while True:
            answer = recv_with_fds(sock, keeper.PACKET_BYTES_MAX)
            if answer.data[:1] != b"=":
                break
            kept[answer.data[1:].decode()] = answer.files.take_first()
        if answer.data != b".":
            for pidfd in kept.values():
                pidfd.close()
            raise ConnectionAbortedError(errno.ECONNABORTED, "the keeper hung up")
        return kept
