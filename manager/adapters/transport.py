"""How a client's calls reach a manager: over its sockets, or straight into this process."""

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import anyio
from typing_extensions import override

from manager.adapters.control_server import sandbox_socket
from manager.adapters.methods import Methods
from manager.application.errors import CallRefused, ServiceUnavailable
from manager.urpc.client_aio import UrpcClient
from manager.urpc.errors import RemoteError, TooManyFiles, TransportError, UrpcError
from manager.urpc.fdpass import PeerCredentials
from manager.urpc.fds import MAX_FILES, FdBundle, HasFileno
from manager.urpc.gojson import encode, parse
from manager.urpc.protocol import Request

PATIENCE_S: Final = 10.0
"""How long a call that can be repeated without harm is repeated while nobody answers."""

ABSENT_PATIENCE_S: Final = 0.3
"""The same while there is not even a socket: a service that starts makes it in a moment."""

RETRY_PAUSE_S: Final = 0.05

NOT_UNICODE: Final = "an argument holds text that is not Unicode: a lone surrogate"

CLOSED: Final = "the manager of this process is closed"

Files = Sequence[int | HasFileno]


class Transport(Protocol):
    """Carries one call and brings its result."""

    async def call(
        self, sandbox_id: str | None, method: str, arg: Any, files: Files = (), *, again: bool
    ) -> Any:
        """Make a call on a sandbox's socket, or on the node's (``None``).

        Args:
            sandbox_id: Whose socket.
            method: ``Type.Method``.
            arg: What JSON can hold.
            files: Lent; the caller keeps its own.
            again: Whether the call may be repeated when its answer was lost.

        Raises:
            CallRefused: The answer is an error; its text.
            ServiceUnavailable: No answer; whether the call was carried out is unknown.
        """
        ...

    @property
    def state_directory(self) -> Path:
        """Where the manager keeps its log."""
        ...


class SocketTransport(Transport):
    """A connection per call, as gVisor's own client makes them.

    Args:
        path: The node's socket.
    """

    def __init__(self, path: Path) -> None:
        self._state = path.parent
        self._path = path

    @property
    @override
    def state_directory(self) -> Path:
        return self._state

    @override
    async def call(
        self, sandbox_id: str | None, method: str, arg: Any, files: Files = (), *, again: bool
    ) -> Any:
        # Before there is a connection: the number of a closed file would come to mean that.
        with _lent(files) as lent:
            return await self._call(sandbox_id, method, arg, lent.numbers(), again=again)

    async def _call(
        self, sandbox_id: str | None, method: str, arg: Any, files: Files, *, again: bool
    ) -> Any:
        failing_since: float | None = None
        was_served = False
        while True:
            try:
                path = await self._socket(sandbox_id)
                return await self._call_once(path, method, arg, files)
            except ServiceUnavailable as error:
                # An answer that was lost after an hour of waiting is a new trouble, not an old one.
                now = anyio.current_time()
                if failing_since is None or error.was_connected:
                    failing_since = now
                was_served = was_served or error.was_connected
                # One that stopped in an orderly way has taken its socket along.
                absent = not was_served and not self._path.exists()
                patience = ABSENT_PATIENCE_S if absent else PATIENCE_S
                if not again or now >= failing_since + patience:
                    raise
                await anyio.sleep(RETRY_PAUSE_S)

    async def _socket(self, sandbox_id: str | None) -> Path:
        if sandbox_id is None:
            return self._path
        path = sandbox_socket(self._state, sandbox_id)
        if not path.exists():
            # There is no such sandbox, or the service is just making its socket anew: it knows.
            await self._call_once(self._path, "sandboxManager.State", sandbox_id, ())
        return path

    async def _call_once(self, path: Path, method: str, arg: Any, files: Files) -> Any:
        try:
            client = await UrpcClient.connect(path)
        except OSError as error:
            raise ServiceUnavailable(
                f"no service answers on {path}: {error.strerror}; is `sandtrail serve` running?"
            ) from error
        async with client:
            try:
                return await client.call(method, arg, files)
            except UnicodeEncodeError as error:
                raise CallRefused(NOT_UNICODE) from error
            except (RemoteError, TooManyFiles) as error:
                raise CallRefused(error.text) from error
            except TransportError as error:
                raise ServiceUnavailable(str(error), was_connected=True) from error
            except OSError as error:
                raise _not_donated(error) from error


class EmbeddedTransport(Transport):
    """The same methods without a socket; files are duplicated as SCM_RIGHTS would.

    Args:
        state: The manager's state directory.
        methods: Gives the methods of a sandbox's socket, or of the node's (``None``).
    """

    def __init__(self, state: Path, methods: Callable[[str | None], Methods]) -> None:
        self._state = state
        self._methods = methods
        self._peer = PeerCredentials(uid=os.geteuid(), gid=os.getegid(), pid=os.getpid())
        self._calls: set[anyio.CancelScope] = set()
        self._closed = False

    def close(self) -> None:
        """End: calls under way and to come raise ServiceUnavailable; what they began goes on."""
        self._closed = True
        for call in self._calls:
            call.cancel()

    @property
    @override
    def state_directory(self) -> Path:
        return self._state

    @override
    async def call(
        self, sandbox_id: str | None, method: str, arg: Any, files: Files = (), *, again: bool
    ) -> Any:
        if self._closed:
            raise ServiceUnavailable(CLOSED)
        with _lent(files) as bundle:
            request = Request(method=method, files=bundle, peer=self._peer, argument=_as_sent(arg))
            with anyio.CancelScope() as scope:
                self._calls.add(scope)
                try:
                    return (await self._methods(sandbox_id).dispatch(request)).result
                except UrpcError as error:
                    raise CallRefused(error.text) from error
                finally:
                    self._calls.discard(scope)
        raise ServiceUnavailable(CLOSED, was_connected=True)


def _lent(files: Files) -> FdBundle:
    """Duplicates of a caller's files, to be closed after the call."""
    if len(files) > MAX_FILES:
        raise CallRefused(TooManyFiles().text)
    try:
        return FdBundle.dup_of(files)
    except OSError as error:
        raise _not_donated(error) from error


def _not_donated(error: OSError) -> CallRefused:
    why = "is not open" if error.errno == errno.EBADF else "cannot be duplicated"
    return CallRefused(f"a file to be donated {why}: {error.strerror}")


def _as_sent(arg: Any) -> Any:
    """The argument as it would arrive over a socket."""
    try:
        return parse(encode(arg))
    except UnicodeEncodeError as error:
        raise CallRefused(NOT_UNICODE) from error
