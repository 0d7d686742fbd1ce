"""The serving side of urpc: connections, one call at a time on each, many at once.

A call runs to its end even when its client is gone, unless it does nothing but wait; its files live
exactly as long as the call.
Only this shell logs; what a caller did wrong goes to the caller.
"""

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias, TypeVar

import anyio
import anyio.abc
import anyio.to_thread
from msgspec import structs

from manager.urpc.errors import (
    INTERNAL_ERROR_TEXT,
    CallerGone,
    MalformedMessage,
    TooManyFiles,
    UrpcError,
)
from manager.urpc.fdpass import PeerCredentials, peer_credentials
from manager.urpc.fds import FdBundle
from manager.urpc.load import Lease, Load
from manager.urpc.protocol import (
    Message,
    MessageReader,
    Reply,
    Request,
    check_file_count,
    encode_failure,
    encode_success,
    parse_request,
)
from manager.urpc.stream_aio import MessageStream
from manager.urpc.unix_address import AbstractListener, UnixListener

CONNECTIONS_MAX: Final = 256
"""Connections that one socket has at once; one more is told so and closed."""

PATIENCE_S: Final = 60.0
"""How long a request may take from its first byte to its last, and a client to read its reply."""

PARSE_INLINE_BYTES_MAX: Final = 256 * 1024
"""Longest request that is parsed in the event loop; a longer one goes to a thread."""

ACCEPT_RETRY_S: Final = 0.1
"""Pause after accept(2) failed for want of descriptors or memory."""

_ACCEPT_EXHAUSTED: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED}
)

Dispatch: TypeAlias = Callable[[Request], Awaitable[Reply]]
"""Answers a call. Raise UrpcError for an answer that is an error; UnknownMethod before looking at
the argument. Any other exception is answered with `internal error` and logged."""

logger = logging.getLogger(__name__)

T = TypeVar("T")


class _Connection:
    """One peer, from accept to close."""

    def __init__(
        self,
        sock: socket.socket,
        dispatch: Dispatch,
        peer: PeerCredentials,
        lease: Lease | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._lease = lease
        self._stream = MessageStream(sock, MessageReader(lease=lease), patience_s)
        self._dispatch = dispatch
        self._peer = peer
        self._idle: anyio.CancelScope | None = None
        self._waiting: anyio.CancelScope | None = None
        self._stopping = False
        self._gives_up_waits = False

    def stop(self, *, answer_waits: bool) -> None:
        """Close it now if no call runs, else once the reply is sent."""
        self._stopping = True
        self._gives_up_waits = not answer_waits
        if self._waiting is not None and self._gives_up_waits:
            self._waiting.cancel()
        if self._idle is not None:
            self._idle.cancel()

    async def run(self) -> None:
        try:
            while not self._stopping:
                message = await self._next_message()
                if message is None:
                    return
                await self._answer(message)
                if self._lease is not None:
                    self._lease.release()
        except CallerGone:
            logger.info("connection.left", extra={"peer": self._peer})
        except MalformedMessage as error:
            logger.info("connection.malformed", extra={"peer": self._peer, "detail": str(error)})
        except OSError as error:
            detail = os.strerror(error.errno) if error.errno else type(error).__name__
            logger.info("connection.broken", extra={"peer": self._peer, "detail": detail})
        finally:
            self._stream.close()
            if self._lease is not None:
                self._lease.close()

    async def _caller_gone(self) -> None:
        if self._gives_up_waits:
            return
        with anyio.CancelScope() as self._waiting:
            await self._stream.hung_up()

    async def _next_message(self) -> Message | None:
        message = None
        with anyio.CancelScope() as self._idle:
            message = await self._stream.receive()
        self._idle = None
        return message

    async def _answer(self, message: Message) -> None:
        if message.refusal is not None:
            await self._stream.send(encode_failure(message.refusal.text))
            return
        with message.files:
            if len(message.raw) <= PARSE_INLINE_BYTES_MAX:
                request = parse_request(message, self._peer)
            else:
                request = await anyio.to_thread.run_sync(parse_request, message, self._peer)
        with request.files:
            data, files = await self._call(structs.replace(request, caller_gone=self._caller_gone))
            with files:
                await self._stream.send(data, files.numbers())

    async def _call(self, request: Request) -> tuple[bytes, FdBundle]:
        try:
            reply = await self._dispatch(request)
        except UrpcError as error:
            return encode_failure(error.text), FdBundle()
        except CallerGone:
            raise
        except Exception:
            logger.exception("call.failed", extra={"method": request.method, "peer": self._peer})
            return encode_failure(INTERNAL_ERROR_TEXT), FdBundle()
        try:
            check_file_count(reply.files)
            return encode_success(reply.result), reply.files
        except TooManyFiles as error:
            reply.files.close()
            return encode_failure(error.text), FdBundle()
        except Exception:
            reply.files.close()
            logger.exception("reply.unencodable", extra={"method": request.method})
            return encode_failure(INTERNAL_ERROR_TEXT), FdBundle()


async def while_asked(request: Request, work: Callable[[], Awaitable[T]]) -> T:
    """Do what only the caller is interested in, for as long as there is a caller.

    Args:
        request: The call.
        work: May be cancelled at any of its waits, and leaves nothing undone then.

    Raises:
        CallerGone: The caller has hung up, or the server is to stop. Let it pass.
    """
    if request.caller_gone is None:
        return await work()
    done: list[T] = []
    failed: list[Exception] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_then_cancel, request.caller_gone, tasks.cancel_scope)
        try:
            done.append(await work())
        except Exception as error:
            failed.append(error)
        tasks.cancel_scope.cancel()
    if failed:
        raise failed[0]
    if not done:
        raise CallerGone
    return done[0]


async def _then_cancel(wait: Callable[[], Awaitable[None]], scope: anyio.CancelScope) -> None:
    await wait()
    scope.cancel()


async def serve_connection(
    sock: socket.socket, dispatch: Dispatch, *, peer: PeerCredentials | None = None
) -> None:
    """Serve one connection until the peer closes it or breaks the protocol.

    Args:
        sock: A connected unix stream socket; ownership moves in.
        dispatch: Answers the calls.
        peer: Who is there; asked from the kernel when None.

    Cancellation: cancels the call that runs and closes the connection.
    """
    await _Connection(sock, dispatch, peer or peer_credentials(sock)).run()


class UrpcServer:
    """Serves what connects to a listener.

    Args:
        dispatch: Answers the calls of every connection; runs once per connection at a time.
        uids: Who may connect; by default this process's effective uid and root. Anyone else is
            closed at once.
        connections_max: Most connections at once.
        load: What servers of one process hold together; its limits count, too.
        patience_s: As :data:`PATIENCE_S`.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        *,
        uids: frozenset[int] | None = None,
        connections_max: int = CONNECTIONS_MAX,
        load: Load | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._dispatch = dispatch
        self._load = load or Load()
        self._patience_s = patience_s
        self._uids = frozenset({0, os.geteuid()}) if uids is None else uids
        self._connections_max = connections_max
        self._connections: set[_Connection] = set()
        self._accepting = anyio.CancelScope()

    @property
    def connection_count(self) -> int:
        """Connections that are open now."""
        return len(self._connections)

    async def serve(
        self,
        listener: UnixListener | AbstractListener,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept and serve until `stop()`; returns when the last running call is answered.

        Args:
            listener: Ownership moves in: closed, its file removed, when accepting ends.
            task_status: Told once calls are accepted.

        Cancellation: cancels the calls that run; `stop()` first to let them end.
        """
        async with anyio.create_task_group() as group:
            with listener, self._accepting:
                task_status.started()
                while True:
                    sock = await _accept(listener.sock)
                    self._admit(sock, group)

    def stop(self, *, answer_waits: bool) -> None:
        """Accept no more; close idle connections now and busy ones after their reply.

        Args:
            answer_waits: Whether calls that only wait (:func:`while_asked`) are among the busy
                ones. If not they are given up: their callers see the connection end, and ask again
                whoever serves then.
        """
        self._accepting.cancel()
        for connection in self._connections:
            connection.stop(answer_waits=answer_waits)

    def _admit(self, sock: socket.socket, group: anyio.abc.TaskGroup) -> None:
        peer = peer_credentials(sock)
        if peer.uid not in self._uids:
            logger.warning("connection.refused", extra={"peer": peer, "reason": "uid"})
            sock.close()
            return
        if len(self._connections) >= self._connections_max:
            lease: Lease | str = (
                f"too many connections: this socket has {self._connections_max} at most"
            )
        else:
            lease = self._load.admit()
        if isinstance(lease, str):
            logger.warning("connection.refused", extra={"peer": peer, "reason": "limit"})
            _turn_away(sock, lease)
            return
        connection = _Connection(sock, self._dispatch, peer, lease, self._patience_s)
        self._connections.add(connection)
        group.start_soon(self._run, connection)

    async def _run(self, connection: _Connection) -> None:
        try:
            await connection.run()
        except Exception:
            logger.exception("connection.failed")
        finally:
            self._connections.discard(connection)


def _turn_away(sock: socket.socket, text: str) -> None:
    """Answer the call that has not been made yet, if the kernel takes it at once; then close."""
    with sock, contextlib.suppress(OSError):
        sock.setblocking(False)
        sock.send(encode_failure(text), socket.MSG_NOSIGNAL)


async def _accept(listener: socket.socket) -> socket.socket:
    while True:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            await anyio.wait_readable(listener)
        except OSError as error:
            if error.errno not in _ACCEPT_EXHAUSTED:
                raise
            logger.warning("accept.failed", extra={"errno": error.errno})
            await anyio.sleep(ACCEPT_RETRY_S)
        else:
            return sock
