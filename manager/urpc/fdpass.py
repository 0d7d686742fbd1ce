"""SCM_RIGHTS, one system call at a time: what arrives is owned, close-on-exec, and counted.

The receive buffer has room for the kernel's own maximum (SCM_MAX_FD), so that a message with more
files than MAX_FILES is seen as such instead of being cut in silence.
"""

import array
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from manager.urpc.fds import MAX_FILES, FdBundle

SCM_FDS_MAX: Final = 253
"""Most descriptors that one sendmsg(2) may carry (the kernel's SCM_MAX_FD; 254 is EINVAL)."""

_FD_BYTES: Final = array.array("i").itemsize
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(SCM_FDS_MAX * _FD_BYTES)
_UCRED: Final = struct.Struct("3i")


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """What one recvmsg(2) brought.

    `data` is empty at end of stream. `files` is owned by the receiver of this value. When
    `too_many_files` is set, more than the limit came (or the kernel could not deliver all of
    them): every one is closed already and `files` is empty.
    """

    data: bytes
    files: FdBundle
    too_many_files: bool = False


class PeerCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """Who connected: as of connect(2) or socketpair(2), whatever became of the process since."""

    uid: int
    gid: int
    pid: int


def send_with_fds(sock: socket.socket, data: bytes | memoryview, fds: Sequence[int] = ()) -> int:
    """Send once, the descriptors on the first byte of `data`.

    Args:
        sock: A connected unix stream socket.
        data: At least 1 byte.
        fds: At most SCM_FDS_MAX numbers, lent: the caller stays their owner and may close them as
            soon as this returns.

    Returns:
        Bytes sent, >= 1; when there were descriptors, all of them went with the first byte. The
        rest of `data` is to be sent without them.

    Raises:
        BlockingIOError: The peer is slow; nothing was sent. Wait until writable.
        BrokenPipeError: The peer is gone.
        OSError: ETOOMANYREFS (too many in flight), EBADF, EINVAL (too many); nothing was sent.

    Source: unix(7), "Ancillary messages".
    """
    if not fds:
        return sock.send(data, socket.MSG_NOSIGNAL)
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
    return sock.sendmsg([data], [rights], socket.MSG_NOSIGNAL)


def recv_with_fds(
    sock: socket.socket, bytes_max: int = 1, *, files_max: int = MAX_FILES
) -> Received:
    """Receive once, with room for descriptors.

    Args:
        sock: A connected unix stream socket.
        bytes_max: Most bytes to read. 1 pins the descriptors to the byte they were sent on: with
            more, bytes of an earlier message without descriptors may come in the same read.
        files_max: Most descriptors to accept.

    Raises:
        BlockingIOError: Nothing there yet. Wait until readable.
        ConnectionResetError: The peer closed with our bytes unread.

    Source: recvmsg(2): MSG_CMSG_CLOEXEC, MSG_CTRUNC. socket.recv_fds() ignores its flags.
    """
    data, ancillary, flags, _ = sock.recvmsg(bytes_max, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
    numbers = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(payload[: len(payload) - len(payload) % _FD_BYTES])
    files = FdBundle.adopt(numbers)
    if len(files) > files_max or flags & socket.MSG_CTRUNC:
        files.close()
        return Received(data=data, files=files, too_many_files=True)
    return Received(data=data, files=files)


def peer_credentials(sock: socket.socket) -> PeerCredentials:
    """Ask the kernel who is at the other end.

    Source: unix(7), SO_PEERCRED.
    """
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    return PeerCredentials(uid=_id(uid), gid=_id(gid), pid=pid)


def own_credentials() -> PeerCredentials:
    """This process, as a peer would see it: the actor of a call that crosses no socket."""
    return PeerCredentials(uid=os.geteuid(), gid=os.getegid(), pid=os.getpid())


def _id(value: int) -> int:
    # uid_t and gid_t are unsigned; pid_t is not.
    return value & 0xFFFFFFFF
