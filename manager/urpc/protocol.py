"""urpc without sockets: bytes and files in, requests or replies out; and the bytes to send back.

Message    one JSON value, no length, no delimiter; its files ride on its first byte.
Request    `{"method":"Type.Method","arg":ARG}`, at most one outstanding on a connection.
Reply      `{"success":true,"err":"","result":R}` or `{"success":false,"err":"TEXT","result":null}`.

A MessageReader is fed by a shell that reads one byte with room for files while `awaiting_first`,
and any number of bytes without after it. The table of a server's connection::

    idle ── first byte ──► reading ── value complete ──► calling ── reply sent ──► idle
    idle, reading ── end of stream, not JSON, not a request ──► closed, without a reply
    reading ── more than REQUEST_BYTES_MAX, or too many files ──► reading (to the end), then an
                                                                 error reply ──► idle
    reading ── more than DISCARD_BYTES_MAX ──► closed

Source: gVisor pkg/urpc, behaviour as measured; see docs/urpc.md.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from manager.urpc.errors import (
    DecodeError,
    MalformedMessage,
    RemoteError,
    TooManyFiles,
    UrpcError,
)
from manager.urpc.fdpass import PeerCredentials, Received
from manager.urpc.fds import MAX_FILES, FdBundle
from manager.urpc.gojson import Pairs, Shape, Tree, ValueScanner, decode_tree, encode, parse, plain
from manager.urpc.gojson.decode import ABSENT_TEXT
from manager.urpc.gojson.plain import TooDeep
from manager.urpc.gojson.structs import fold
from manager.urpc.load import Lease

REQUEST_BYTES_MAX: Final = 16 * 1024 * 1024
"""Longest request that is kept; a longer one is read to its end, dropped, and refused."""

DISCARD_BYTES_MAX: Final = 64 * 1024 * 1024
"""Where reading a too long request ends: the connection is closed."""

REPLY_BYTES_MAX: Final = 64 * 1024 * 1024
"""Longest reply that a client keeps."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One whole message. `files` belongs to whoever received it.

    `refusal` is set, and `raw` and `files` are empty, when it was read to its end but may not be
    acted upon.
    """

    raw: bytes
    files: FdBundle
    refusal: UrpcError | None = None


class MessageReader:
    """Cuts a stream into messages, one at a time. Owns files of what it has not delivered.

    Bytes that come with the end of one message and begin another are kept for it (gVisor loses
    them); files of such a message are not, they come on a byte that was not a first one.

    Args:
        bytes_max: Longest message that is kept.
        discard_max: Longest message that is read at all; bytes.
        lease: Is asked before anything is kept. It holds the bytes and files of a message until it
            is released, by this reader for a message that is never delivered, else by whoever has
            dealt with it.
    """

    def __init__(
        self,
        bytes_max: int = REQUEST_BYTES_MAX,
        discard_max: int = DISCARD_BYTES_MAX,
        lease: Lease | None = None,
    ) -> None:
        self._bytes_max = bytes_max
        self._discard_max = discard_max
        self._lease = lease
        self._early = b""
        self._files = FdBundle()
        self._reset()

    def _reset(self) -> None:
        self._scanner = ValueScanner()
        self._chunks: list[bytes] = []
        self._length = 0
        self._refusal: UrpcError | None = None

    @property
    def awaiting_first(self) -> bool:
        """Whether the next byte begins a message: read exactly one, with room for files."""
        return not self._scanner.started and not self._early

    def next_buffered(self) -> Message | None:
        """Deliver a message that came along with the one before, if it is whole.

        Raises:
            MalformedMessage: What came along is no message. Close.
        """
        early, self._early = self._early, b""
        return self.receive_data(early) if early else None

    def receive_first(self, received: Received) -> Message | None:
        """Take in the first byte with its files, which move in.

        Raises:
            MalformedMessage: No message begins like this. Close; the files are closed already.
        """
        if received.files:  # else keep those of a white-space byte just before
            self._files.close()
            self._files = received.files
        if received.too_many_files:
            self._refuse(TooManyFiles())
        elif received.files and (problem := self._hold(files=len(received.files))):
            self._refuse(UrpcError(problem))
        return self.receive_data(received.data)

    def receive_data(self, data: bytes) -> Message | None:
        """Take in bytes.

        Returns:
            The message that they complete; read no further until it is dealt with.

        Raises:
            MalformedMessage: Not JSON, or longer than `discard_max`. Close.
        """
        try:
            end = self._scanner.feed(data)
        except MalformedMessage:
            self.close()
            raise
        if not self._scanner.started:
            return None
        self._keep(data if end is None else data[:end])
        if end is None:
            return None
        self._early = data[end:].lstrip(b" \t\r\n")
        return self._deliver()

    def receive_eof(self) -> Message | None:
        """Take in the end of the stream: it may complete a bare literal, nothing else."""
        if self._scanner.finish():
            return self._deliver()
        self.close()
        return None

    def close(self) -> None:
        """Close the files of an unfinished message and forget it."""
        self._drop()
        self._early = b""
        self._reset()

    def _keep(self, data: bytes) -> None:
        self._length += len(data)
        if self._length > self._discard_max:
            self.close()
            raise MalformedMessage(f"a message longer than {self._discard_max} bytes")
        if self._length > self._bytes_max:
            self._refuse(UrpcError(f"message is longer than {self._bytes_max} bytes"))
        elif self._refusal is None:
            if problem := self._hold(data_bytes=len(data)):
                self._refuse(UrpcError(problem))
            else:
                self._chunks.append(data)

    def _hold(self, *, data_bytes: int = 0, files: int = 0) -> str:
        if self._lease is None:
            return ""
        return self._lease.hold(data_bytes=data_bytes, files=files)

    def _refuse(self, refusal: UrpcError) -> None:
        self._drop()
        self._refusal = refusal

    def _drop(self) -> None:
        self._chunks.clear()
        self._files.close()
        if self._lease is not None:
            self._lease.release()

    def _deliver(self) -> Message:
        raw, files, refusal = b"".join(self._chunks), self._files.take_all(), self._refusal
        self._reset()
        return Message(raw=raw, files=files, refusal=refusal)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One call, as a handler gets it.

    Attributes:
        method: `Type.Method`, as sent; look it up before looking at the argument.
        files: The client's files. The server closes what is left in it after the reply: a handler
            takes or duplicates what it keeps.
        peer: Who connected.
        caller_gone: Returns when nobody waits for the answer any more; `None` where that cannot
            be told. See `while_asked` of the server.
    """

    method: str
    files: FdBundle
    peer: PeerCredentials
    caller_gone: Callable[[], Awaitable[None]] | None = None
    argument: Tree = None
    has_argument: bool = True

    @property
    def arg(self) -> bytes | None:
        """The argument as compact JSON; None when the request has none.

        Written anew: what Go ignores about the text (space, earlier duplicates) is gone.

        Raises:
            DecodeError: It nests too deep to be written; `decode` may still accept it.
        """
        try:
            return encode(plain(self.argument)) if self.has_argument else None
        except TooDeep as error:
            raise DecodeError(f"json: argument is {error}") from error

    def decode(self, shape: Shape) -> Any:
        """Fit the argument to a Go type.

        Raises:
            DecodeError: It does not fit, or there is none; let it pass, it is the answer.
        """
        if not self.has_argument:
            raise DecodeError(ABSENT_TEXT)
        return decode_tree(shape, self.argument)


class Reply(msgspec.Struct, kw_only=True):
    """A successful answer. `files` moves to the server, which closes it once sent."""

    result: Any = msgspec.field(default_factory=dict)
    files: FdBundle = msgspec.field(default_factory=FdBundle)


def parse_request(message: Message, peer: PeerCredentials) -> Request:
    """Read the envelope of a message that was not refused; its files move into the request.

    Raises:
        MalformedMessage: Not JSON, not an object, or a method that is not a string: close without
            a reply. The files are closed.
    """
    try:
        method, argument, has_argument = _envelope(parse(message.raw))
    except MalformedMessage:
        message.files.close()
        raise
    return Request(
        method=method,
        argument=argument,
        has_argument=has_argument,
        files=message.files.take_all(),
        peer=peer,
    )


def _envelope(tree: Tree) -> tuple[str, Tree, bool]:
    method: str = ""
    argument: Tree = None
    has_argument = False
    if tree is not None and not isinstance(tree, Pairs):
        raise MalformedMessage("a request is an object")
    for key, value in tree or ():
        match fold(key):
            case "method" if type(value) is str:
                method = value
            case "method" if value is not None:
                raise MalformedMessage("a method is a string")
            case "arg":
                argument, has_argument = value, True
    return method, argument, has_argument


def encode_success(result: Any) -> bytes:
    """Write the reply of a call that succeeded; a result of None stands for `null`."""
    return b'{"success":true,"err":"","result":' + encode(result) + b"}"


def encode_failure(text: str) -> bytes:
    """Write the reply of a call that failed, for whatever reason."""
    return b'{"success":false,"err":' + encode(text) + b',"result":null}'


def encode_request(method: str, arg: Any) -> bytes:
    """Write a request, keys in Go's order; an `arg` of None stands for `null`."""
    return b'{"method":' + encode(method) + b',"arg":' + encode(arg) + b"}"


def check_file_count(files: FdBundle) -> None:
    """Refuse more files than one message may carry.

    Raises:
        TooManyFiles: More than MAX_FILES. Nothing was sent; the files are still the caller's.
    """
    if len(files) > MAX_FILES:
        raise TooManyFiles


def parse_reply(raw: bytes) -> Any:
    """Read a reply.

    Returns:
        The result as plain Python values.

    Raises:
        RemoteError: The server says that the call failed.
        MalformedMessage: Not a reply. Close.
    """
    tree = parse(raw)
    if not isinstance(tree, Pairs):
        raise MalformedMessage("a reply is an object")
    try:
        values = {fold(key): plain(value) for key, value in tree}
    except TooDeep as error:
        raise MalformedMessage(f"a result {error}") from error
    success, text = values.get("success") or False, values.get("err") or ""
    if not isinstance(success, bool) or not isinstance(text, str):
        raise MalformedMessage("a reply has a bool `success` and a string `err`")
    if not success:
        raise RemoteError(text)
    return values.get("result")
