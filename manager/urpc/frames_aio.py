"""Frames for an event loop: the manager's end of the socket to its worker."""

import socket
from collections import deque
from typing import Self

import anyio

from manager.urpc.errors import PeerClosed
from manager.urpc.fds import FdBundle
from manager.urpc.frame_socket import FrameSocket
from manager.urpc.frames import Frame


class AsyncFrameSocket:
    """Send from any number of tasks, receive from one.

    Args:
        sock: A connected unix stream socket; ownership moves in.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._frames = FrameSocket(sock)
        self._received: deque[Frame] = deque()
        self._drain = anyio.Lock()

    def fileno(self) -> int:
        """Return the socket's number; -1 once closed."""
        return self._frames.fileno()

    @property
    def pending(self) -> int:
        """Frames that have come and that `receive` will give without waiting."""
        return len(self._received)

    async def send(self, body: bytes, fds: FdBundle | None = None) -> None:
        """Send one frame; frames leave in the order of the calls.

        Args:
            body: At most FRAME_BYTES_MAX bytes.
            fds: At most FRAME_FDS_MAX descriptors. Ownership moves in, also when this raises; they
                are closed here once the kernel has them.

        Raises:
            FrameError: Over a limit; nothing was sent.
            PeerClosed: The peer is gone, or this end was closed.

        Cancellation: the frame counts as sent; what the peer has not taken leaves before the next
        frame, never half of it.
        """
        if self._frames.closed:
            if fds is not None:
                fds.close()
            raise PeerClosed("this end is closed")
        self._frames.send(body, fds)
        if not self._frames.wants_write:
            return
        async with self._drain:
            while self._frames.wants_write:
                try:
                    await anyio.wait_writable(self._frames)
                except anyio.ClosedResourceError as error:
                    raise PeerClosed("this end was closed") from error
                self._frames.flush()

    async def receive(self) -> Frame:
        """Wait for the next frame; its descriptors are the caller's.

        Raises:
            PeerClosed: End of stream, or this end was closed.
            FrameError: The peer broke the protocol. Close.

        Cancellation: safe, no frame is lost.
        """
        while not self._received:
            if self._frames.closed:
                raise PeerClosed("this end is closed")
            self._received.extend(self._frames.receive())
            if not self._received:
                try:
                    await anyio.wait_readable(self._frames)
                except anyio.ClosedResourceError as error:
                    raise PeerClosed("this end was closed") from error
        return self._received.popleft()

    async def aclose(self) -> None:
        """Close the socket, what waits to be sent and what was received but not read; idempotent.

        A task that waits in `send` or `receive` gets PeerClosed.
        """
        if not self._frames.closed:
            anyio.notify_closing(self._frames)
        self._frames.close()
        while self._received:
            self._received.pop().fds.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
