"""Frames over a non-blocking unix socket, for a selectors loop: no thread, no event loop."""

import contextlib
import socket
from collections import deque
from typing import Final, Self

from manager.urpc.errors import FrameError, PeerClosed
from manager.urpc.fdpass import recv_with_fds, send_with_fds
from manager.urpc.fds import FdBundle
from manager.urpc.frames import FRAME_FDS_MAX, Frame, FrameDecoder, encode_frame

RECEIVE_BYTES: Final = 64 * 1024
"""Read size; a frame of a start is a few KiB."""

PENDING_BYTES_MAX: Final = 128 * 1024 * 1024
"""Most bytes that wait for a slow peer; beyond, the peer is taken for dead."""


class _Outgoing:
    __slots__ = ("fds", "rest")

    def __init__(self, data: bytes, fds: FdBundle) -> None:
        self.rest = memoryview(data)
        self.fds = fds


class FrameSocket:
    """Send and receive frames without ever blocking.

    Args:
        sock: A connected unix stream socket; ownership moves in, it is made non-blocking.

    Register `fileno()` for reading always, and for writing while `wants_write`.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._decoder = FrameDecoder()
        self._outgoing: deque[_Outgoing] = deque()
        self._pending_bytes = 0

    @classmethod
    def adopt(cls, fd: int) -> "FrameSocket":
        """Wrap an inherited descriptor number; ownership moves in."""
        return cls(socket.socket(fileno=fd))

    @property
    def wants_write(self) -> bool:
        """Whether frames wait for the peer: call `flush()` when the socket is writable."""
        return bool(self._outgoing)

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._sock.fileno() < 0

    def fileno(self) -> int:
        """Return the socket's number, for a selector; -1 once closed."""
        return self._sock.fileno()

    def send(self, body: bytes, fds: FdBundle | None = None) -> None:
        """Send a frame, or queue what the peer does not take yet.

        Args:
            body: At most FRAME_BYTES_MAX bytes.
            fds: At most FRAME_FDS_MAX descriptors. Ownership moves in, also when this raises; they
                are closed here once the kernel has them.

        Raises:
            FrameError: Over a limit, or more than PENDING_BYTES_MAX wait. Nothing was queued.
            PeerClosed: The peer is gone. Close.
        """
        owned = FdBundle() if fds is None else fds.take_all()
        try:
            data = encode_frame(body, len(owned))
            self._check_room(len(data))
        except FrameError:
            owned.close()
            raise
        self._outgoing.append(_Outgoing(data, owned))
        self._pending_bytes += len(data)
        self.flush()

    def flush(self) -> None:
        """Send as much as the peer takes now.

        Raises:
            PeerClosed: The peer is gone. Close.
        """
        while self._outgoing:
            head = self._outgoing[0]
            try:
                sent = send_with_fds(self._sock, head.rest, head.fds.numbers())
            except BlockingIOError:
                return
            except ConnectionError as error:
                raise PeerClosed("the peer is gone, frames to it are lost") from error
            head.fds.close()
            head.rest = head.rest[sent:]
            self._pending_bytes -= sent
            if not head.rest:
                self._outgoing.popleft()

    def receive(self) -> list[Frame]:
        """Read once.

        Returns:
            The frames completed by it, oldest first, possibly none; their descriptors are the
            caller's. A selector is level-triggered: call again when readable again.

        Raises:
            PeerClosed: End of stream. Close.
            FrameError: The peer broke the protocol, or this process is out of descriptors. Close.
        """
        try:
            received = recv_with_fds(self._sock, RECEIVE_BYTES, files_max=FRAME_FDS_MAX)
        except BlockingIOError:
            return []
        except ConnectionError as error:
            raise PeerClosed("the peer is gone") from error
        if received.too_many_files:
            raise FrameError("descriptors were cut off: too many, or no room for them here")
        if not received.data:
            lost = " in the middle of a frame" if self._decoder.mid_frame else ""
            raise PeerClosed(f"end of stream{lost}")
        return self._decoder.receive_data(received.data, received.files)

    def _check_room(self, length: int) -> None:
        if self._pending_bytes + length > PENDING_BYTES_MAX:
            raise FrameError(
                f"{self._pending_bytes} bytes wait for the peer, no room for {length} more "
                f"(at most {PENDING_BYTES_MAX})"
            )

    def close(self) -> None:
        """Close the socket and every descriptor that waits here; idempotent."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._sock.close)
            stack.callback(self._decoder.close)
            while self._outgoing:
                stack.callback(self._outgoing.pop().fds.close)
        self._pending_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
