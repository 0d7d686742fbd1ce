"""Server and client over real sockets with real descriptors, and peers that do not behave.

Every test ends with this process's descriptor count where it began.
"""

import contextlib
import errno
import json
import os
import resource
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.lowlevel
import pytest

from manager.urpc import client_aio, server_aio, stream_aio, unix_address
from manager.urpc.client_aio import UrpcClient
from manager.urpc.errors import (
    RemoteError,
    TooManyFiles,
    TransportError,
    UnknownMethod,
    UrpcError,
)
from manager.urpc.fdpass import PeerCredentials, own_credentials, peer_credentials, recv_with_fds
from manager.urpc.fds import MAX_FILES, FdBundle, OwnedFd
from manager.urpc.gotypes import START_ARGS
from manager.urpc.protocol import (
    DISCARD_BYTES_MAX,
    REQUEST_BYTES_MAX,
    MessageReader,
    Reply,
    Request,
)
from manager.urpc.server_aio import Dispatch, UrpcServer, serve_connection, while_asked
from manager.urpc.stream_aio import MessageStream
from manager.urpc.unix_address import UnixListener, connect_unix
from tests.patience import PATIENCE_S

OK = {"success": True, "err": "", "result": {}}


def failure(text: str) -> dict[str, Any]:
    return {"success": False, "err": text, "result": None}


def open_count() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def descriptors_back_to_baseline() -> Iterator[None]:
    before = open_count()
    yield
    assert open_count() == before


class Service:
    """What the tests call: one handler for each thing that a handler may do."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.peers: list[PeerCredentials] = []
        self.entered = anyio.Event()
        self.release = anyio.Event()
        self.finished = anyio.Event()
        self._handlers: dict[str, Dispatch] = {
            "Echo.Null": self.echo_null,
            "Echo.Arg": self.echo_arg,
            "Start": self.start,
            "Files.Need": self.files_need,
            "Files.Return": self.files_return,
            "Slow": self.slow,
            "Wait": self.wait,
            "Bug": self.bug,
            "Unencodable": self.unencodable,
        }

    async def dispatch(self, request: Request) -> Reply:
        self.requests.append(request.method)
        self.peers.append(request.peer)
        if request.method not in self._handlers:
            raise UnknownMethod
        return await self._handlers[request.method](request)

    async def echo_null(self, request: Request) -> Reply:
        return Reply()

    async def wait(self, request: Request) -> Reply:
        async def work() -> Reply:
            self.entered.set()
            await self.release.wait()
            if request.arg == b'"refuse"':
                raise UrpcError("refused")
            return Reply(result=1)

        try:
            return await while_asked(request, work)
        finally:
            self.finished.set()

    async def echo_arg(self, request: Request) -> Reply:
        assert request.arg is not None
        return Reply(result=json.loads(request.arg))

    async def start(self, request: Request) -> Reply:
        args = request.decode(START_ARGS)
        if args["Spec"] is None:
            raise UrpcError("start arguments missing spec")
        return Reply(result=len(request.files))

    async def files_need(self, request: Request) -> Reply:
        if not request.files:
            raise UrpcError("no file <sent>")
        assert not any(os.get_inheritable(number) for number in request.files.numbers())
        return Reply(result=[os.fstat(number).st_ino for number in request.files.numbers()])

    async def files_return(self, request: Request) -> Reply:
        assert request.arg is not None
        with request.files.take_all() as given:
            return Reply(files=FdBundle(given[0].dup() for _ in range(int(request.arg))))

    async def slow(self, request: Request) -> Reply:
        self.entered.set()
        await self.release.wait()
        self.finished.set()
        return Reply(result=len(request.files))

    async def bug(self, request: Request) -> Reply:
        raise ZeroDivisionError

    async def unencodable(self, request: Request) -> Reply:
        return Reply(result=object(), files=request.files.take_all())


class Peer:
    """A client written byte by byte."""

    def __init__(self, path: Path) -> None:
        self.sock = connect_unix(path)

    async def send(self, data: bytes, fds: Iterable[int] = ()) -> None:
        rest, numbers = memoryview(data), list(fds)
        while rest:
            try:
                if numbers:
                    sent = socket.send_fds(self.sock, [rest], numbers)
                else:
                    sent = self.sock.send(rest)
            except BlockingIOError:
                await anyio.wait_writable(self.sock)
            else:
                rest, numbers = rest[sent:], []

    async def reply(self) -> Any:
        """Read one reply; None at end of stream (reset or not: one behaviour)."""
        text = b""
        while True:
            await anyio.wait_readable(self.sock)
            try:
                data = self.sock.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            text += data
            if not data:
                assert text == b""
                return None
            try:
                return json.loads(text)
            except ValueError:
                continue

    async def call(self, method: str, arg: Any = None, fds: Iterable[int] = ()) -> Any:
        await self.send(json.dumps({"method": method, "arg": arg}).encode(), fds)
        return await self.reply()

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


class Running:
    def __init__(self, path: Path, service: Service, server: UrpcServer) -> None:
        self.path = path
        self.service = service
        self.server = server

    async def serves_on(self) -> None:
        """A new connection is served: nothing that a peer does ends the service."""
        async with await UrpcClient.connect(self.path) as client:
            assert await client.call("Echo.Null") == {}


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    service = Service()
    server = UrpcServer(service.dispatch)
    async with anyio.create_task_group() as group:
        await group.start(server.serve, UnixListener.bind(tmp_path / "control.sock"))
        result = Running(tmp_path / "control.sock", service, server)
        yield result
        service.release.set()
        server.stop(answer_waits=True)


@pytest.fixture
def null() -> Iterator[OwnedFd]:
    with OwnedFd(os.open("/dev/null", os.O_RDWR)) as fd:
        yield fd


# --- calls that succeed or fail in an orderly way -------------------------------------------------


async def test_many_calls_on_one_connection(running: Running) -> None:
    async with await UrpcClient.connect(running.path) as client:
        assert await client.call("Echo.Arg") is None
        assert await client.call("Echo.Arg", "text <&> \u2028 é") == "text <&> \u2028 é"
        assert await client.call("Echo.Arg", 7) == 7
        assert await client.call("Echo.Arg", {"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}


async def test_errors_arrive_verbatim_and_the_connection_lives(
    running: Running, null: OwnedFd
) -> None:
    async with await UrpcClient.connect(running.path) as client:
        for method, arg, text in [
            ("Nope", None, "unknown method"),
            ("echo.null", None, "unknown method"),
            ("", {"a": "ignored"}, "unknown method"),
            ("Files.Need", None, "no file <sent>"),
            ("Start", None, "start arguments missing spec"),
            ("Start", "x", "json: cannot unmarshal string into Go value of type boot.StartArgs"),
            ("Bug", None, "internal error"),
        ]:
            with pytest.raises(RemoteError) as caught:
                await client.call(method, arg, [null] if method == "Nope" else [])
            assert caught.value.text == text
        with pytest.raises(RemoteError, match=r"^internal error$"):
            await client.call("Unencodable", None, [null])
        assert await client.call("Echo.Null") == {}


async def test_files_arrive_in_order_close_on_exec_and_only_for_the_call(
    running: Running,
) -> None:
    with FdBundle(OwnedFd(os.memfd_create(f"f{index}")) for index in range(3)) as files:
        inodes = [os.fstat(number).st_ino for number in files.numbers()]
        async with await UrpcClient.connect(running.path) as client:
            assert await client.call("Echo.Null") == {}
            before = open_count()
            assert await client.call("Files.Need", None, list(files)) == inodes
            assert await client.call("Files.Need", None, files.numbers()) == inodes
            assert open_count() == before


async def test_files_come_back(running: Running, null: OwnedFd) -> None:
    async with await UrpcClient.connect(running.path) as client:
        result, files = await client.call_with_files("Files.Return", 3, [null])
        with files:
            assert (result, len(files)) == ({}, 3)
            assert os.fstat(files[2].number).st_rdev == os.fstat(null.number).st_rdev
        assert await client.call("Files.Return", 3, [null]) == {}
        assert await client.call("Files.Return", MAX_FILES, [null]) == {}
        with pytest.raises(RemoteError, match=r"^too many files$"):
            await client.call("Files.Return", MAX_FILES + 1, [null])


async def test_the_client_refuses_129_files_and_sends_nothing(
    running: Running, null: OwnedFd
) -> None:
    async with await UrpcClient.connect(running.path) as client:
        with pytest.raises(TooManyFiles, match=r"^too many files$"):
            await client.call("Start", {"Spec": {}}, [null] * (MAX_FILES + 1))
        assert await client.call("Start", {"Spec": {}}, [null] * MAX_FILES) == MAX_FILES
    assert running.service.requests == ["Start"]


@pytest.mark.parametrize("count", [MAX_FILES + 1, 200, 253])
async def test_the_server_refuses_more_than_128_files(
    running: Running, null: OwnedFd, count: int
) -> None:
    with Peer(running.path) as peer:
        assert await peer.call("Nope") == failure("unknown method")
        before = open_count()
        assert await peer.call("Start", {"Spec": {}}, [null.number] * count) == failure(
            "too many files"
        )
        assert open_count() == before
        assert await peer.call("Start", {"Spec": {}}, [null.number] * MAX_FILES) == {
            **OK,
            "result": MAX_FILES,
        }
    assert running.service.requests == ["Nope", "Start"]


async def test_a_file_that_is_not_open_is_refused_before_anything_is_sent(
    running: Running, null: OwnedFd
) -> None:
    async with await UrpcClient.connect(running.path) as client:
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            await client.call("Start", {"Spec": {}}, [null, 999_999])
        assert await client.call("Echo.Null") == {}
    assert running.service.requests == ["Echo.Null"]


async def test_calls_on_one_client_take_turns_and_connections_do_not_wait(
    running: Running,
) -> None:
    results: list[Any] = []
    async with await UrpcClient.connect(running.path) as client:
        async with anyio.create_task_group() as group:

            async def call(method: str, arg: Any) -> None:
                results.append(await client.call(method, arg))

            group.start_soon(call, "Slow", None)
            await running.service.entered.wait()
            group.start_soon(call, "Echo.Arg", 2)
            await running.serves_on()
            assert results == []
            running.service.release.set()
        assert results == [0, 2]


async def test_the_peer_is_known(running: Running) -> None:
    await running.serves_on()
    assert running.service.peers == [own_credentials()]


# --- the argument, byte for byte ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_text", "reply"),
    [
        ('{"method":"Start","arg":null}', failure("start arguments missing spec")),
        ('{"method":"Start","arg":{}}', failure("start arguments missing spec")),
        ('{"method":"Start"}', failure("unexpected end of JSON input")),
        ('{"method":"Nope"}', failure("unknown method")),
        ("{}", failure("unknown method")),
        ('{"method":null}', failure("unknown method")),
        ('{"METHOD":"Start","Arg":{"sPEC":{}}}', {**OK, "result": 0}),
        ('{"arg":{"Spec":{}},"x":[1],"method":"Start"}', {**OK, "result": 0}),
        (
            '{"method":"Start","arg":{"Spec":{},"Spec":null}}',
            failure("start arguments missing spec"),
        ),
        (
            '{"method":"Start","arg":{"CID":15}}',
            failure(
                "json: cannot unmarshal number into Go struct field StartArgs.CID of type string"
            ),
        ),
        ('\n {"method":"Echo.Null","arg":null}\n', OK),
        ('{"method":"Echo.Arg","arg":"\\ud800"}', {**OK, "result": "\ufffd"}),
        (b'{"method":"Echo.Arg","arg":"\xff\xfe"}', {**OK, "result": "\ufffd\ufffd"}),
        (
            '{"method":"Echo.Null","arg":' + "[" * 9_990 + "]" * 9_990 + "}",
            OK,
        ),
    ],
)
async def test_requests_that_are_answered(
    running: Running, request_text: str | bytes, reply: Any
) -> None:
    raw = request_text if isinstance(request_text, bytes) else request_text.encode()
    with Peer(running.path) as peer:
        await peer.send(raw)
        assert await peer.reply() == reply
        assert await peer.call("Echo.Null") == OK


async def test_success_and_failure_byte_for_byte(running: Running) -> None:
    with Peer(running.path) as peer:
        for method, raw in [
            ("Echo.Null", b'{"success":true,"err":"","result":{}}'),
            ("Files.Need", rb'{"success":false,"err":"no file \u003csent\u003e","result":null}'),
        ]:
            await peer.send(b'{"method":"%s","arg":null}' % method.encode())
            await anyio.wait_readable(peer.sock)
            assert peer.sock.recv(1000) == raw


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00",
        b"\xff\xfe",
        b"[]",
        b'"text"',
        b"{]",
        b'{"method":5,"arg":null}',
        b'{"method":"Echo.Null","arg":NaN}',
        b'{"method":"Echo.Null","arg":[1,]}',
        b'{"method":"Echo.Null","arg":null,}',
        b'{"method":"Echo.Null" oops',
        b'{"method":"Echo.Null","arg":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
    ],
    ids=lambda raw: repr(raw[:24]),
)
async def test_garbage_is_closed_without_a_reply(
    running: Running, null: OwnedFd, garbage: bytes
) -> None:
    with Peer(running.path) as peer:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await peer.send(garbage, [null.number])
        assert await peer.reply() is None
    await running.serves_on()
    assert running.service.requests == ["Echo.Null"]


# --- where files ride -----------------------------------------------------------------------------


async def test_byte_by_byte_with_files_on_the_first(running: Running, null: OwnedFd) -> None:
    raw = b'{"method":"Start","arg":{"Spec":{}}}'
    with Peer(running.path) as peer:
        await peer.send(raw[:1], [null.number] * 4)
        for index in range(1, len(raw)):
            await peer.send(raw[index : index + 1])
            await anyio.lowlevel.checkpoint()
        assert await peer.reply() == {**OK, "result": 4}


async def test_files_on_a_later_byte_are_dropped(running: Running, null: OwnedFd) -> None:
    raw = b'{"method":"Start","arg":{"Spec":{}}}'
    with Peer(running.path) as peer:
        await peer.send(raw[:1], [null.number])
        await peer.send(raw[1:10], [null.number] * 5)
        await peer.send(raw[10:], [null.number] * 2)
        assert await peer.reply() == {**OK, "result": 1}
        await peer.send(raw[:1])
        await peer.send(raw[1:], [null.number] * 3)
        assert await peer.reply() == {**OK, "result": 0}


async def test_a_newline_between_calls_costs_no_files(running: Running, null: OwnedFd) -> None:
    with Peer(running.path) as peer:
        assert await peer.call("Echo.Null") == OK
        await peer.send(b"\n")
        await anyio.wait_all_tasks_blocked()
        assert await peer.call("Start", {"Spec": {}}, [null.number] * 2) == {**OK, "result": 2}


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5 * 1024 * 1024, REQUEST_BYTES_MAX - 1000])
async def test_big_requests_and_replies(running: Running, null: OwnedFd, size: int) -> None:
    text = "x" * size
    async with await UrpcClient.connect(running.path) as client:
        assert await client.call("Echo.Arg", text, [null] * 4) == text
        assert await client.call("Start", {"Spec": {"hostname": text}}, [null] * 4) == 4


async def test_a_request_over_the_limit_is_read_and_refused(
    running: Running, null: OwnedFd
) -> None:
    with Peer(running.path) as peer:
        reply = await peer.call("Echo.Arg", "x" * REQUEST_BYTES_MAX, [null.number])
        assert reply == failure(f"message is longer than {REQUEST_BYTES_MAX} bytes")
        assert await peer.call("Echo.Null") == OK
    assert running.service.requests == ["Echo.Null"]


async def test_a_request_without_end_is_closed(running: Running) -> None:
    with Peer(running.path) as peer:
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await peer.send(b'{"method":"' + b"x" * (DISCARD_BYTES_MAX + (1 << 20)))
        assert await peer.reply() is None
    await running.serves_on()


# --- peers that go away ---------------------------------------------------------------------------


async def test_half_close_after_a_request_is_answered(running: Running) -> None:
    with Peer(running.path) as peer:
        await peer.send(b'{"method":"Slow","arg":null}')
        await running.service.entered.wait()
        peer.half_close()
        running.service.release.set()
        assert await peer.reply() == {**OK, "result": 0}
        assert await peer.reply() is None


@pytest.mark.parametrize("raw", [b"", b" ", b"{", b'{"method":"Echo.Null","arg":nul'])
async def test_half_close_within_a_request_is_closed(
    running: Running, null: OwnedFd, raw: bytes
) -> None:
    with Peer(running.path) as peer:
        await peer.send(raw, [null.number])
        peer.half_close()
        assert await peer.reply() is None
    assert running.service.requests == []


async def test_a_bare_null_is_answered_at_half_close(running: Running) -> None:
    with Peer(running.path) as peer:
        await peer.send(b"null")
        peer.half_close()
        assert await peer.reply() == failure("unknown method")


async def test_a_client_that_leaves_a_reply_unread(running: Running) -> None:
    with Peer(running.path) as peer:
        await peer.send(json.dumps({"method": "Echo.Arg", "arg": "x" * 4_000_000}).encode())
        await anyio.wait_readable(peer.sock)
        await running.serves_on()
    await running.serves_on()


@pytest.mark.parametrize("raw", [b"", b"{", b'{"method":"Start","arg":{"Spec":{'])
async def test_a_client_that_vanishes_within_a_request(
    running: Running, null: OwnedFd, raw: bytes
) -> None:
    with Peer(running.path) as peer:
        await peer.send(raw, [null.number] * 3)
        await anyio.wait_all_tasks_blocked()
    await running.serves_on()
    assert running.service.requests == ["Echo.Null"]


async def test_a_call_runs_to_its_end_without_its_client(running: Running, null: OwnedFd) -> None:
    with Peer(running.path) as peer:
        await peer.send(b'{"method":"Slow","arg":null}', [null.number])
        await running.service.entered.wait()
    await running.serves_on()
    running.service.release.set()
    await running.service.finished.wait()
    await running.serves_on()


async def test_pipelined_requests_are_answered_in_order(running: Running) -> None:
    with Peer(running.path) as peer:
        await peer.send(b'{"method":"Slow","arg":null}{"method":"Nope"}\n{"method":"Echo.Null"}')
        await running.service.entered.wait()
        assert running.service.requests == ["Slow"]
        running.service.release.set()
        text = b""
        while text.count(b"success") < 3:
            await anyio.wait_readable(peer.sock)
            text += peer.sock.recv(1000)
    assert text == (
        b'{"success":true,"err":"","result":0}'
        b'{"success":false,"err":"unknown method","result":null}'
        b'{"success":true,"err":"","result":{}}'
    )


async def test_serving_a_connection_whose_peer_is_gone() -> None:
    left, right = socket.socketpair()
    right.close()
    await serve_connection(left, Service().dispatch)
    assert left.fileno() == -1


# --- the client's view of a bad server ------------------------------------------------------------


async def answer_with(sock: socket.socket, raw: bytes, fds: Iterable[int] = ()) -> None:
    with sock:
        await anyio.wait_readable(sock)
        sock.recv(1 << 16)
        if raw:
            socket.send_fds(sock, [raw], list(fds))


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        (b"", "EOF"),
        (b'{"success":tr', "EOF"),
        (b"hello", "no JSON value begins with byte 0x68"),
        (b"[]", "a reply is an object"),
        (b'{"success":1}', "a reply has a bool `success` and a string `err`"),
    ],
)
async def test_no_answer_is_a_transport_error(raw: bytes, cause: str, null: OwnedFd) -> None:
    left, right = socket.socketpair()
    right.setblocking(False)
    async with UrpcClient(left) as client, anyio.create_task_group() as group:
        group.start_soon(answer_with, right, raw, [null.number])
        with pytest.raises(TransportError) as caught:
            await client.call("A.B")
        assert str(caught.value) == f'urpc method "A.B" failed: {cause}'
        with pytest.raises(TransportError, match="use of closed connection"):
            await client.call("A.B")


async def test_files_of_a_reply_are_closed_when_nobody_wants_them(null: OwnedFd) -> None:
    answers = {
        b'{"success":true}': contextlib.nullcontext(),
        b'{"success":false,"err":"no"}': pytest.raises(RemoteError, match=r"^no$"),
    }
    for raw, told in answers.items():
        left, right = socket.socketpair()
        async with UrpcClient(left) as client, anyio.create_task_group() as group:
            group.start_soon(answer_with, right, raw, [null.number] * 3)
            before = open_count()
            with told:
                await client.call("A.B")
        assert open_count() < before


async def test_a_reply_with_too_many_files(null: OwnedFd) -> None:
    left, right = socket.socketpair()
    async with UrpcClient(left) as client, anyio.create_task_group() as group:
        group.start_soon(answer_with, right, b'{"success":true}', [null.number] * 129)
        with pytest.raises(TransportError, match="too many files"):
            await client.call("A.B")


async def test_a_server_that_is_gone_before_the_call() -> None:
    left, right = socket.socketpair()
    right.close()
    async with UrpcClient(left) as client:
        with pytest.raises(TransportError, match=r'urpc method "A\.B" failed: broken pipe'):
            await client.call("A.B")


async def test_a_cancelled_call_closes_the_connection(running: Running) -> None:
    async with await UrpcClient.connect(running.path) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.call, "Slow")
            await running.service.entered.wait()
            group.cancel_scope.cancel()
        with pytest.raises(TransportError, match="use of closed connection"):
            await client.call("Echo.Null")
    running.service.release.set()
    await running.service.finished.wait()


async def test_a_call_cancelled_while_it_waits_its_turn_costs_nothing(running: Running) -> None:
    async with await UrpcClient.connect(running.path) as client, anyio.create_task_group() as group:
        group.start_soon(client.call, "Slow")
        await running.service.entered.wait()
        with anyio.move_on_after(0) as scope:
            await client.call("Nope")
        assert scope.cancelled_caught
        running.service.release.set()
        assert await client.call("Echo.Null") == {}
    assert running.service.requests == ["Slow", "Echo.Null"]


async def test_closing_a_client_ends_its_call(running: Running) -> None:
    client = await UrpcClient.connect(running.path)
    async with anyio.create_task_group() as group:

        async def call() -> None:
            with pytest.raises(TransportError, match="use of closed connection"):
                await client.call("Slow")

        group.start_soon(call)
        await running.service.entered.wait()
        await client.aclose()


# --- listening ------------------------------------------------------------------------------------


def test_socket_file_is_for_its_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with UnixListener.bind(tmp_path / "s") as listener:
            assert stat.S_IMODE(listener.path.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert list(tmp_path.iterdir()) == []


def test_a_live_socket_is_not_replaced_and_a_stale_one_is(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = UnixListener.bind(path)
    with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
        UnixListener.bind(path)
    first.sock.close()  # as SIGKILL would: the file stays
    with UnixListener.bind(path):
        first.close()  # not its file any more
        connect_unix(path).close()
    (tmp_path / "file").write_text("no socket")
    with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
        UnixListener.bind(tmp_path / "file")


def test_closing_leaves_a_file_that_is_not_its_own(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with UnixListener.bind(path):
        path.rename(tmp_path / "moved")
        path.write_text("another's")
    assert path.read_text() == "another's"


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda path: None, FileNotFoundError),
        (lambda path: UnixListener.bind(path).sock.close(), ConnectionRefusedError),
    ],
)
async def test_connecting_where_nobody_listens(
    tmp_path: Path, make: Callable[[Path], None], error: type[OSError]
) -> None:
    make(tmp_path / "s")
    with pytest.raises(error):
        await UrpcClient.connect(tmp_path / "s")


async def test_paths_longer_than_an_address(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    server = UrpcServer(Service().dispatch)
    async with anyio.create_task_group() as group:
        await group.start(server.serve, UnixListener.bind(directory / "control.sock"))
        async with await UrpcClient.connect(directory / "control.sock") as client:
            assert await client.call("Echo.Null") == {}
        server.stop(answer_waits=True)
    assert list(directory.iterdir()) == []


async def test_connecting_waits_while_the_backlog_is_full(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = [BlockingIOError(errno.EAGAIN, "full")] * 2

    def connect(path: Path) -> socket.socket:
        if full:
            raise full.pop()
        return connect_unix(path)

    monkeypatch.setattr(client_aio, "connect_unix", connect)
    monkeypatch.setattr(client_aio, "CONNECT_RETRY_S", 0)
    await running.serves_on()
    full += [BlockingIOError(errno.EAGAIN, "full")] * 2
    monkeypatch.setattr(client_aio, "CONNECT_ATTEMPTS_MAX", 2)
    with pytest.raises(BlockingIOError):
        await UrpcClient.connect(running.path)


async def test_a_live_socket_with_a_full_backlog_is_not_taken_for_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_address, "BACKLOG_CONNECTIONS", 0)
    with UnixListener.bind(tmp_path / "s") as listener:
        waiting = [connect_unix(listener.path)]
        with pytest.raises(BlockingIOError):
            waiting.append(connect_unix(listener.path))
        with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
            UnixListener.bind(listener.path)
        waiting[0].close()


async def test_many_connections_at_once(running: Running) -> None:
    async def call(number: int) -> None:
        async with await UrpcClient.connect(running.path) as client:
            assert await client.call("Echo.Arg", number) == number

    async with anyio.create_task_group() as group:
        for number in range(200):
            group.start_soon(call, number)


async def test_connections_over_the_limit_are_told_so(tmp_path: Path) -> None:
    server = UrpcServer(Service().dispatch, connections_max=2)
    async with anyio.create_task_group() as group:
        await group.start(server.serve, UnixListener.bind(tmp_path / "s"))
        with Peer(tmp_path / "s") as first, Peer(tmp_path / "s") as second:
            assert await first.call("Echo.Null") == OK
            assert await second.call("Echo.Null") == OK
            with Peer(tmp_path / "s") as third:
                text = "too many connections: this socket has 2 at most"
                assert await third.reply() == failure(text)
            with pytest.raises(RemoteError, match="too many connections"):
                async with await UrpcClient.connect(tmp_path / "s") as client:
                    await client.call("Echo.Null")
            assert await first.call("Echo.Null") == OK
            assert server.connection_count == 2
        server.stop(answer_waits=True)


async def test_another_users_connection_is_closed_at_once(tmp_path: Path) -> None:
    service = Service()
    server = UrpcServer(service.dispatch, uids=frozenset({os.geteuid() + 1}))
    async with anyio.create_task_group() as group:
        await group.start(server.serve, UnixListener.bind(tmp_path / "s"))
        with Peer(tmp_path / "s") as peer:
            assert await peer.reply() is None
        server.stop(answer_waits=True)
    assert service.requests == []


async def test_stop_closes_idle_ones_now_and_busy_ones_after_their_reply(tmp_path: Path) -> None:
    service = Service()
    server = UrpcServer(service.dispatch)
    async with anyio.create_task_group() as group:
        await group.start(server.serve, UnixListener.bind(tmp_path / "s"))
        with Peer(tmp_path / "s") as idle, Peer(tmp_path / "s") as busy:
            assert await idle.call("Echo.Null") == OK
            await busy.send(b'{"method":"Slow","arg":null}')
            await service.entered.wait()
            server.stop(answer_waits=True)
            assert await idle.reply() is None
            with pytest.raises(FileNotFoundError):
                connect_unix(tmp_path / "s")
            service.release.set()
            assert await busy.reply() == {**OK, "result": 0}
            assert await busy.reply() is None


async def test_accept_goes_on_after_running_out_of_descriptors(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError(errno.EMFILE, "out of descriptors")]
    real = socket.socket.accept

    def accept(self: socket.socket) -> tuple[socket.socket, Any]:
        if failures:
            raise failures.pop()
        return real(self)

    monkeypatch.setattr(server_aio, "ACCEPT_RETRY_S", 0)
    monkeypatch.setattr(socket.socket, "accept", accept)
    await running.serves_on()
    await running.serves_on()
    assert failures == []


# --- descriptors through the kernel ---------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3, 10, MAX_FILES])
def test_sent_and_received_are_the_same_files(count: int) -> None:
    left, right = socket.socketpair()
    with left, right, FdBundle(OwnedFd(os.memfd_create("f")) for _ in range(count)) as sent:
        before = open_count()
        socket.send_fds(left, [b"{x"], sent.numbers())
        received = recv_with_fds(right)
        with received.files as files:
            assert open_count() == before + count
            assert received.data == b"{"
            assert not set(files.numbers()) & set(sent.numbers())
            assert all(map(os.path.sameopenfile, files.numbers(), sent.numbers()))
        assert open_count() == before
        assert recv_with_fds(right).data == b"x"


def test_files_that_find_no_room_here_are_noticed(null: OwnedFd) -> None:
    left, right = socket.socketpair()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with left, right:
        socket.send_fds(left, [b"{"], [null.number] * 5)
        used = {
            int(name) for name in os.listdir("/proc/self/fd") if Path(f"/dev/fd/{name}").exists()
        }
        free = [number for number in range(len(used) + 2) if number not in used]
        room_for_two = free[1] + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (room_for_two, hard))
        try:
            received = recv_with_fds(right)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (received.data, received.too_many_files, len(received.files)) == (b"{", True, 0)


async def test_files_go_with_the_first_byte_only(null: OwnedFd) -> None:
    left, right = socket.socketpair()
    stream = MessageStream(left, MessageReader())
    received = [0, 0]

    async def read_everything() -> None:
        with right:
            right.setblocking(False)
            while received[0] < 2_000_000:
                await anyio.wait_readable(right)
                some = recv_with_fds(right, 100_000)
                with some.files:
                    received[0] += len(some.data)
                    received[1] += len(some.files)

    async with anyio.create_task_group() as group:
        group.start_soon(read_everything)
        await stream.send(bytes(2_000_000), [null.number] * 2)
    stream.close()
    assert received == [2_000_000, 2]


def test_credentials_of_a_peer() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert peer_credentials(left) == own_credentials()


@pytest.mark.parametrize("half_closed", [False, True])
async def test_a_wait_is_answered_for_as_long_as_somebody_asks(
    running: Running, half_closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_aio, "HANG_UP_POLL_S", 0)
    with Peer(running.path) as peer:
        await peer.send(b'{"method":"Wait","arg":null}')
        await running.service.entered.wait()
        if half_closed:
            peer.half_close()
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        running.service.release.set()
        assert await peer.reply() == {**OK, "result": 1}


async def test_an_error_of_a_wait_is_its_answer(running: Running) -> None:
    running.service.release.set()
    with Peer(running.path) as peer:
        answer = await peer.call("Wait", "refuse")
        assert answer == {"success": False, "err": "refused", "result": None}


@pytest.mark.parametrize("before", ["nothing", "half a close", "another request"])
async def test_a_wait_ends_when_its_caller_hangs_up(
    running: Running, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_aio, "HANG_UP_POLL_S", 0)
    with Peer(running.path) as peer:
        await peer.send(b'{"method":"Wait","arg":null}')
        await running.service.entered.wait()
        if before == "half a close":
            peer.half_close()
        elif before == "another request":
            await peer.send(b'{"method":"Echo.Null"}')
    with anyio.fail_after(PATIENCE_S):
        await running.service.finished.wait()
        while running.server.connection_count:
            await anyio.lowlevel.checkpoint()


async def test_a_stop_need_not_wait_for_those_who_wait(tmp_path: Path) -> None:
    service = Service()
    server = UrpcServer(service.dispatch)
    async with anyio.create_task_group() as group:
        await group.start(server.serve, UnixListener.bind(tmp_path / "s"))
        with Peer(tmp_path / "s") as waiting:
            await waiting.send(b'{"method":"Wait","arg":null}')
            await service.entered.wait()
            server.stop(answer_waits=False)
            assert await waiting.reply() is None
