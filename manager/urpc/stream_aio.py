"""A urpc message at a time over a unix socket: what server and client have in common."""

import select
import socket
from collections.abc import Sequence
from typing import Final

import anyio
import anyio.lowlevel

from manager.urpc.errors import MalformedMessage
from manager.urpc.fdpass import Received, recv_with_fds, send_with_fds
from manager.urpc.fds import FdBundle
from manager.urpc.protocol import Message, MessageReader

READ_BYTES: Final = 64 * 1024
HANG_UP_POLL_S: Final = 0.5
"""How often to look whether a peer that has sent more, or its last, is still there."""


class MessageStream:
    """Whole messages with their files, in and out. One task reads, one writes.

    Args:
        sock: A connected unix stream socket; ownership moves in, it is made non-blocking.
        reader: Its limits.
        patience_s: How long a message may take from its first byte to its last, and how long the
            peer may go without reading; no limit if absent.
    """

    def __init__(
        self, sock: socket.socket, reader: MessageReader, patience_s: float | None = None
    ) -> None:
        sock.setblocking(False)
        self._patience_s = patience_s
        self._sock = sock
        self._reader = reader

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._sock.fileno() < 0

    async def receive(self) -> Message | None:
        """Wait for the next message; None at end of stream, also amid a message.

        Raises:
            MalformedMessage: The peer does not speak the protocol, or not in time. Close.

        Cancellation: safe; what has come of a message stays for the next call.
        """
        if not self._reader.awaiting_first:  # a peer that pipelines must not starve the others
            await anyio.lowlevel.checkpoint()
        message = self._reader.next_buffered()
        while message is None and self._reader.awaiting_first:
            received = await self._recv_first()
            if not received.data:
                return self._reader.receive_eof()
            message = self._reader.receive_first(received)
        if message is None:
            data = self._recv_now()  # nearly always all of it: no clock need be set for it
            if data == b"":
                return self._reader.receive_eof()
            message = self._reader.receive_data(data) if data else None
        return await self._receive_rest() if message is None else message

    async def _receive_rest(self) -> Message | None:
        message = None
        with anyio.move_on_after(self._patience_s) as patience:
            while message is None:
                data = await self._recv()
                if not data:
                    return self._reader.receive_eof()
                message = self._reader.receive_data(data)
        if patience.cancelled_caught:
            raise MalformedMessage(f"a message that is not whole after {self._patience_s:g} s")
        return message

    async def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send one message, `fds` (lent) on its first byte.

        Raises:
            ConnectionError: The peer is gone. Close.
            TimeoutError: The peer reads nothing. Close.
            OSError: The kernel refused the descriptors (ETOOMANYREFS). Nothing was sent.

        Cancellation: part of the message may be sent. Close.
        """
        rest = memoryview(data)
        while rest:
            try:
                sent = send_with_fds(self._sock, rest, fds)
            except BlockingIOError:
                with anyio.fail_after(self._patience_s):
                    await anyio.wait_writable(self._sock)
            else:
                rest, fds = rest[sent:], ()

    async def hung_up(self) -> None:
        """Wait until the peer has closed the connection; one that only sends no more still reads.

        Cancellation: safe. What the peer has sent stays unread.
        """
        poll = select.poll()
        poll.register(self._sock, 0)
        await anyio.wait_readable(self._sock)
        while not poll.poll(0):  # noqa: ASYNC110 - see below
            # It is readable for as long as something is unread: there is nothing to wait for.
            await anyio.sleep(HANG_UP_POLL_S)

    def close(self) -> None:
        """Close the socket and the files of a message that is not whole; idempotent.

        A task that waits here gets anyio.ClosedResourceError.
        """
        self._reader.close()
        if not self.closed:
            anyio.notify_closing(self._sock)
        self._sock.close()

    async def _recv_first(self) -> Received:
        while True:
            try:
                return recv_with_fds(self._sock)
            except BlockingIOError:
                await anyio.wait_readable(self._sock)
            except ConnectionError:
                return Received(data=b"", files=FdBundle())

    async def _recv(self) -> bytes:
        while (data := self._recv_now()) is None:
            await anyio.wait_readable(self._sock)
        return data

    def _recv_now(self) -> bytes | None:
        """What is there; empty at end of stream, `None` if nothing is there yet."""
        try:
            return self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""
