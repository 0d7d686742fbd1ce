"""Messages cut out of a stream, envelopes read, replies written: no sockets."""

import os
from typing import Any

import pytest

from manager.urpc.errors import (
    DecodeError,
    MalformedMessage,
    RemoteError,
    TooManyFiles,
    TransportError,
)
from manager.urpc.fdpass import PeerCredentials, Received
from manager.urpc.fds import MAX_FILES, FdBundle, OwnedFd
from manager.urpc.gotypes import START_ARGS
from manager.urpc.protocol import (
    Message,
    MessageReader,
    Request,
    check_file_count,
    encode_failure,
    encode_request,
    encode_success,
    parse_reply,
    parse_request,
)

PEER = PeerCredentials(uid=0, gid=0, pid=1)
CALL = b'{"method":"A.B","arg":null}'


def open_count() -> int:
    return len(os.listdir("/proc/self/fd"))


def nulls(count: int) -> FdBundle:
    return FdBundle(OwnedFd(os.open("/dev/null", os.O_RDWR)) for _ in range(count))


def first(data: bytes, files: FdBundle | None = None, *, too_many: bool = False) -> Received:
    return Received(data=data, files=files or FdBundle(), too_many_files=too_many)


def request_of(raw: bytes) -> Request:
    return parse_request(Message(raw=raw, files=FdBundle()), PEER)


def test_the_first_byte_is_read_alone() -> None:
    reader = MessageReader()
    assert reader.awaiting_first
    assert reader.receive_first(first(b"{")) is None
    assert not reader.awaiting_first
    message = reader.receive_data(CALL[1:])
    assert message is not None
    assert message.raw == CALL
    assert reader.awaiting_first


def test_files_belong_to_the_message_whose_first_byte_carried_them() -> None:
    reader = MessageReader()
    reader.receive_first(first(CALL[:1], nulls(2)))
    message = reader.receive_data(CALL[1:])
    assert message is not None
    with message.files:
        assert len(message.files) == 2
    reader.receive_first(first(CALL[:1]))
    message = reader.receive_data(CALL[1:])
    assert message is not None
    assert len(message.files) == 0


def test_white_space_is_no_first_byte() -> None:
    before = open_count()
    reader = MessageReader()
    reader.receive_first(first(b"\n", nulls(1)))
    assert reader.awaiting_first
    reader.receive_first(first(b" "))
    reader.receive_first(first(b"{", nulls(2)))
    message = reader.receive_data(CALL[1:])
    assert message is not None
    with message.files:
        assert len(message.files) == 2
    assert open_count() == before


def test_what_follows_a_message_is_kept_for_the_next() -> None:
    reader = MessageReader()
    reader.receive_first(first(b"{"))
    message = reader.receive_data(CALL[1:] + b"\n" + CALL + b' {"met')
    assert message is not None
    assert not reader.awaiting_first
    message = reader.next_buffered()
    assert message is not None
    assert message.raw == CALL
    assert reader.next_buffered() is None
    message = reader.receive_data(b'hod":"X"}\n')
    assert message is not None
    assert message.raw == b'{"method":"X"}'
    assert reader.awaiting_first
    assert reader.next_buffered() is None


@pytest.mark.parametrize("end", [b"", b"{", CALL[:-1]])
def test_end_of_stream_within_a_message_closes_its_files(end: bytes) -> None:
    before = open_count()
    reader = MessageReader()
    if end:
        reader.receive_first(first(end[:1], nulls(3)))
        reader.receive_data(end[1:])
    assert reader.receive_eof() is None
    assert open_count() == before


def test_a_bare_null_ends_with_the_stream() -> None:
    reader = MessageReader()
    reader.receive_first(first(b"n"))
    assert reader.receive_data(b"ull") is None
    message = reader.receive_eof()
    assert message is not None
    assert parse_request(message, PEER).method == ""


def test_garbage_closes_the_files() -> None:
    before = open_count()
    with pytest.raises(MalformedMessage):
        MessageReader().receive_first(first(b"h", nulls(1)))
    assert open_count() == before


def test_too_many_files_are_refused_after_the_whole_message() -> None:
    reader = MessageReader()
    assert reader.receive_first(first(b"{", too_many=True)) is None
    message = reader.receive_data(CALL[1:])
    assert message is not None
    assert isinstance(message.refusal, TooManyFiles)
    assert str(message.refusal) == "too many files"
    assert message.raw == b""


def test_a_long_message_is_read_dropped_and_refused() -> None:
    before = open_count()
    reader = MessageReader(bytes_max=100, discard_max=200)
    reader.receive_first(first(b"{", nulls(1)))
    assert reader.receive_data(b'"a":"' + b"x" * 100) is None
    assert open_count() == before
    message = reader.receive_data(b'"}' + CALL)
    assert message is not None
    assert str(message.refusal) == "message is longer than 100 bytes"
    assert message.raw == b""
    following = reader.next_buffered()
    assert following is not None
    assert following.refusal is None


def test_a_message_without_end_is_closed() -> None:
    reader = MessageReader(bytes_max=100, discard_max=200)
    with pytest.raises(MalformedMessage, match="a message longer than 200 bytes"):
        reader.receive_data(b"[" + b"1," * 101)


@pytest.mark.parametrize(
    ("raw", "method", "arg"),
    [
        (CALL, "A.B", b"null"),
        (b'{"arg":{"a": 1},"method":"A.B"}', "A.B", b'{"a":1}'),
        (b'{"METHOD":"A.B","Arg":"x"}', "A.B", b'"x"'),
        (b'{"method":"A.B"}', "A.B", None),
        (b'{"method":"a","method":"b","arg":1,"arg":2,"x":3}', "b", b"2"),
        (b'{"method":"a","method":null}', "a", None),
        (b"{}", "", None),
        (b"null", "", None),
        (b'{"method":null,"arg":[]}', "", b"[]"),
    ],
)
def test_envelopes(raw: bytes, method: str, arg: bytes | None) -> None:
    request = request_of(raw)
    assert (request.method, request.arg) == (method, arg)
    assert request.peer == PEER


@pytest.mark.parametrize(
    "raw",
    [b"[]", b'"x"', b"1", b"true", b'{"method":1}', b'{"method":["A.B"]}', b"{,}", b"nul", b"{]"],
)
def test_what_is_no_request(raw: bytes) -> None:
    before = open_count()
    with pytest.raises(MalformedMessage):
        parse_request(Message(raw=raw, files=nulls(1)), PEER)
    assert open_count() == before


def test_arguments_fit_to_types() -> None:
    assert request_of(b'{"method":"A.B","arg":{"cid":"c"}}').decode(START_ARGS)["CID"] == "c"
    assert request_of(CALL).decode(START_ARGS)["Spec"] is None
    with pytest.raises(DecodeError, match=r"^unexpected end of JSON input$"):
        request_of(b'{"method":"A.B"}').decode(START_ARGS)


def test_an_argument_that_nests_too_deep_to_show() -> None:
    request = request_of(b'{"method":"A.B","arg":' + b"[" * 5000 + b"]" * 5000 + b"}")
    with pytest.raises(DecodeError, match="json: argument is nested deeper than 200"):
        _ = request.arg


def test_messages_are_written_as_go_writes_them() -> None:
    assert encode_request("A.B", None) == CALL
    assert encode_request("A.B", "<c>") == rb'{"method":"A.B","arg":"\u003cc\u003e"}'
    assert encode_success({}) == b'{"success":true,"err":"","result":{}}'
    assert encode_success(None) == b'{"success":true,"err":"","result":null}'
    assert encode_failure("no") == b'{"success":false,"err":"no","result":null}'


@pytest.mark.parametrize(
    ("raw", "result"),
    [
        (encode_success({"a": 1}), {"a": 1}),
        (encode_success(None), None),
        (b'{"Success":true}', None),
        (b'{"success":true,"err":"odd","result":2}', 2),
        (b'{"success":true,"err":null}', None),
    ],
)
def test_replies(raw: bytes, result: Any) -> None:
    assert parse_reply(raw) == result


@pytest.mark.parametrize(
    ("raw", "text"),
    [(encode_failure("no such"), "no such"), (encode_failure(""), ""), (b"{}", "")],
)
def test_failures(raw: bytes, text: str) -> None:
    with pytest.raises(RemoteError, match=f"^{text}$"):
        parse_reply(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b"null",
        b"{",
        b'{"success":1}',
        b'{"err":5}',
        b'{"result":' + b"[" * 300 + b"]" * 300 + b"}",
    ],
)
def test_what_is_no_reply(raw: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_reply(raw)


def test_file_count_limit() -> None:
    with nulls(1) as one:
        source = one[0]
        with FdBundle(source.dup() for _ in range(MAX_FILES)) as most:
            check_file_count(most)
            most.append(source.dup())
            with pytest.raises(TooManyFiles):
                check_file_count(most)


def test_transport_errors_read_as_gvisors() -> None:
    assert str(TransportError("A.B", "EOF")) == 'urpc method "A.B" failed: EOF'
