"""The keeper: a process that does nothing but hold pidfds, so that no exit status goes with us.

Whoever holds a pidfd from before a process ended can ask the kernel for its wait status after it
was reaped, by whomever (`PIDFD_GET_INFO`). The keeper holds one for every container, outlives a
manager and a worker that are killed, and hands them to the next worker.

A worker runs this file as a program of its own: it must stay small, so it imports nothing of ours.
The sockets keep the bounds of packets (`SOCK_SEQPACKET`). A packet begins with a verb:

    + NAME, one descriptor     keep it; a name kept already changes hands
    - NAME                     close it
    ?                          answered by `=` NAME with a copy of the descriptor for each, then `.`
    !                          leave, if nothing is kept
"""

import array
import os
import resource
import select
import signal
import socket

PACKET_BYTES_MAX = 512
"""Longest packet: a verb and a name."""

LISTENER_FD = 0
"""The worker leaves a listening socket there; its address is the worker's business."""

_FD_BYTES = array.array("i").itemsize


class Keeper:
    """What is kept, and the conversations about it."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._kept: dict[bytes, int] = {}
        self._workers: dict[int, socket.socket] = {}
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)

    def serve(self) -> None:
        """Serve until a worker says that it is time to leave."""
        leaving = False
        while not leaving:
            for fd, _ in self._poll.poll():
                if fd == self._listener.fileno():
                    worker = self._listener.accept()[0]
                    self._workers[worker.fileno()] = worker
                    self._poll.register(worker, select.POLLIN)
                else:
                    leaving = self._hear_out(self._workers[fd]) or leaving

    def _hear_out(self, worker: socket.socket) -> bool:
        """Do all that it has said so far; returns whether it is time to leave.

        The last words of a worker that was killed count before the questions of the next one: who
        came first is polled first.
        """
        leaving = False
        while worker.fileno() >= 0 and not leaving:
            try:
                leaving = self._hear(worker)
            except BlockingIOError:
                break
        return leaving

    def _hear(self, worker: socket.socket) -> bool:
        """Do what one packet says; returns whether it is time to leave.

        Raises:
            BlockingIOError: There is none.
        """
        try:
            packet, fds = _receive(worker)
            verb, name = packet[:1], packet[1:]
            if verb == b"+" and fds:
                self._drop(name)
                self._kept[name] = fds.pop()
            elif verb == b"-":
                self._drop(name)
            elif verb == b"?":
                self._tell(worker)
            elif not packet:
                self._hang_up(worker)
            for fd in fds:
                os.close(fd)
        except BlockingIOError:
            raise
        except OSError:
            self._hang_up(worker)
            return False
        return verb == b"!" and not self._kept

    def _tell(self, worker: socket.socket) -> None:
        for name, fd in self._kept.items():
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
            worker.sendmsg([b"=" + name], [rights], socket.MSG_NOSIGNAL)
        worker.send(b".", socket.MSG_NOSIGNAL)

    def _drop(self, name: bytes) -> None:
        fd = self._kept.pop(name, None)
        if fd is not None:
            os.close(fd)

    def _hang_up(self, worker: socket.socket) -> None:
        self._poll.unregister(worker)
        del self._workers[worker.fileno()]
        worker.close()


def _receive(worker: socket.socket) -> tuple[bytes, list[int]]:
    room = socket.CMSG_SPACE(_FD_BYTES)
    flags = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
    packet, ancillary, _, _ = worker.recvmsg(PACKET_BYTES_MAX, room, flags)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) // _FD_BYTES * _FD_BYTES])
    return packet, list(fds)


def main() -> None:
    """Be a keeper, away from the terminal and the signals of whoever started it."""
    os.setsid()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Keeper(socket.socket(fileno=LISTENER_FD)).serve()


if __name__ == "__main__":
    main()
