"""The calling side of urpc: one connection, one call at a time on it."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import anyio

from manager.urpc.errors import MalformedMessage, TooManyFiles, TransportError
from manager.urpc.fds import MAX_FILES, FdBundle, HasFileno
from manager.urpc.protocol import (
    REPLY_BYTES_MAX,
    Message,
    MessageReader,
    encode_request,
    parse_reply,
)
from manager.urpc.stream_aio import MessageStream
from manager.urpc.unix_address import connect_unix

CONNECT_ATTEMPTS_MAX: Final = 100
"""How often a full backlog is tried, CONNECT_RETRY_S apart."""

CONNECT_RETRY_S: Final = 0.02

CLOSED_TEXT: Final = "use of closed connection"


class UrpcClient:
    """A connection to a urpc server; concurrent calls wait for each other.

    Args:
        sock: A connected unix stream socket; ownership moves in. `connect` makes one.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._stream = MessageStream(sock, MessageReader(REPLY_BYTES_MAX, REPLY_BYTES_MAX))
        self._lock = anyio.Lock()

    @classmethod
    async def connect(cls, path: str | os.PathLike[str]) -> Self:
        """Connect to the server at a path of any length.

        Raises:
            OSError: ENOENT, ECONNREFUSED: no server there. EAGAIN: its backlog stayed full.
        """
        for attempt in range(1, CONNECT_ATTEMPTS_MAX + 1):
            try:
                return cls(connect_unix(Path(path)))
            except BlockingIOError:
                if attempt == CONNECT_ATTEMPTS_MAX:
                    raise
                await anyio.sleep(CONNECT_RETRY_S)
        raise AssertionError("CONNECT_ATTEMPTS_MAX is positive")

    async def call(
        self, method: str, arg: Any = None, files: Sequence[int | HasFileno] = ()
    ) -> Any:
        """Make a call; files that come with the reply are closed.

        Args:
            method: `Type.Method`.
            arg: Anything that JSON can hold, a msgspec struct included; None sends `null`.
            files: At most MAX_FILES, lent: the caller keeps its own and may close them after.

        Returns:
            The result as plain Python values.

        Raises:
            RemoteError: The server's error text.
            TooManyFiles: Refused here; nothing was sent.
            TransportError: No answer; the call may have been made. The connection is closed.
            OSError: EBADF, EMFILE: a file is not open, or cannot be duplicated; nothing was sent.

        Cancellation: while it waits for another call, nothing was sent. Afterwards the connection
        is closed, because the reply could no longer be told from the next one's; the call may
        have been made.
        """
        result, received = await self.call_with_files(method, arg, files)
        received.close()
        return result

    async def call_with_files(
        self, method: str, arg: Any = None, files: Sequence[int | HasFileno] = ()
    ) -> tuple[Any, FdBundle]:
        """Make a call like `call`; the files of the reply are the caller's."""
        if len(files) > MAX_FILES:
            raise TooManyFiles
        data = encode_request(method, arg)
        # Duplicates: while the call waits its turn, the caller's numbers may come to mean others.
        with FdBundle.dup_of(files) as sent:
            async with self._lock:
                message = await self._exchange(method, data, sent.numbers())
        try:
            return parse_reply(message.raw), message.files.take_all()
        except MalformedMessage as error:
            self._stream.close()
            raise TransportError(method, str(error)) from error
        finally:
            message.files.close()

    async def aclose(self) -> None:
        """Close the connection; a call that runs gets TransportError. Idempotent."""
        self._stream.close()

    async def _exchange(self, method: str, data: bytes, numbers: Sequence[int]) -> Message:
        if self._stream.closed:
            raise TransportError(method, CLOSED_TEXT)
        broken: ConnectionError | None = None
        try:
            try:
                await self._stream.send(data, numbers)
            except ConnectionError as error:
                # A server that turns a connection away says why before it hangs up.
                broken = error
            message = await self._stream.receive()
        except (OSError, MalformedMessage, anyio.ClosedResourceError) as error:
            self._stream.close()
            raise TransportError(method, _cause(error)) from error
        except BaseException:
            self._stream.close()
            raise
        if message is None:
            self._stream.close()
            cause = "EOF" if broken is None else _cause(broken)
            raise TransportError(method, cause) from broken
        if message.refusal is not None:
            self._stream.close()
            raise TransportError(method, message.refusal.text)
        return message

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _cause(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    return str(error) or CLOSED_TEXT
