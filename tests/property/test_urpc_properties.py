"""Whatever way a stream is cut, the same messages come out; whatever the document, Go's reading."""

import json
import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from manager.urpc.errors import DecodeError, MalformedMessage
from manager.urpc.fdpass import PeerCredentials, Received
from manager.urpc.fds import FdBundle, OwnedFd
from manager.urpc.frames import Frame, FrameDecoder, encode_frame
from manager.urpc.gojson import NESTING_MAX, ValueScanner, decode, encode, parse, plain
from manager.urpc.gojson.parse import _parse_deep
from manager.urpc.gotypes import START_ARGS
from manager.urpc.protocol import Message, MessageReader, parse_request

PEER = PeerCredentials(uid=0, gid=0, pid=1)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=25,
)
containers = st.lists(documents, max_size=5) | st.dictionaries(st.text(), documents, max_size=5)
cuts = st.lists(st.integers(min_value=1, max_value=40), max_size=60)


def text_of(document: Any, *, ascii_only: bool = False, indent: int | None = None) -> bytes:
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent)
    return text.encode("utf-8", "replace")


def pieces(raw: bytes, sizes: list[int]) -> list[bytes]:
    cut, at = [], 0
    for size in sizes:
        cut.append(raw[at : at + size])
        at += size
    return [piece for piece in [*cut, raw[at:]] if piece]


@given(containers, st.binary(max_size=20), cuts, st.booleans(), st.sampled_from([None, 1]))
def test_the_scanner_finds_the_end_however_the_text_is_cut(
    document: Any, rest: bytes, sizes: list[int], ascii_only: bool, indent: int | None
) -> None:
    raw = text_of(document, ascii_only=ascii_only, indent=indent)
    scanner, fed = ValueScanner(), 0
    for piece in pieces(raw + rest, sizes):
        end = scanner.feed(piece)
        if end is not None:
            assert fed + end == len(raw)
            return
        fed += len(piece)
    raise AssertionError("the end was not found")


@given(st.binary(max_size=60), cuts)
def test_the_scanner_is_indifferent_to_cuts_in_any_bytes(raw: bytes, sizes: list[int]) -> None:
    def outcome(chunks: list[bytes]) -> int | str | None:
        scanner, fed = ValueScanner(), 0
        try:
            for chunk in chunks:
                end = scanner.feed(chunk)
                if end is not None:
                    return fed + end
                fed += len(chunk)
        except MalformedMessage:
            return "malformed"
        return None

    whole, cut = outcome([raw] if raw else []), outcome(pieces(raw, sizes))
    # In pieces an end may be seen before a later byte that the whole chunk is refused for.
    assert cut == whole or (whole == "malformed" and isinstance(cut, int))


@given(documents, st.booleans(), st.sampled_from([None, 2]))
def test_plain_values_are_those_of_the_standard_library(
    document: Any, ascii_only: bool, indent: int | None
) -> None:
    raw = text_of(document, ascii_only=ascii_only, indent=indent)
    assert plain(parse(raw)) == json.loads(raw)


@given(documents, st.booleans())
def test_both_parsers_agree_on_good_text(document: Any, ascii_only: bool) -> None:
    raw = text_of(document, ascii_only=ascii_only)
    assert _parse_deep(raw.decode()) == parse(raw)


@given(st.text(alphabet='{}[]:,"\\u0d8 1e.-tnrlfase', max_size=24))
def test_both_parsers_agree_on_any_text(text: str) -> None:
    def outcome(parser: Any, argument: Any) -> Any:
        try:
            return parser(argument)
        except MalformedMessage:
            return MalformedMessage

    if "\\ud" not in text:  # mended before the deep parser sees the text
        assert outcome(parse, text.encode()) == outcome(_parse_deep, text)


@given(st.binary(max_size=40))
def test_invalid_utf8_becomes_replacement_characters_byte_by_byte(body: bytes) -> None:
    clean = bytes(byte for byte in body if byte >= 0x20 and byte not in b'"\\')
    expected, at = "", 0
    while at < len(clean):
        for length in (1, 2, 3, 4):
            try:
                expected += clean[at : at + length].decode()
            except UnicodeDecodeError:
                continue
            at += length
            break
        else:
            expected += "\ufffd"
            at += 1
    assert parse(b'"' + clean + b'"') == expected


@given(documents)
def test_what_is_encoded_is_read_back(document: Any) -> None:
    raw = encode(document)
    assert plain(parse(raw)) == plain(parse(text_of(document)))
    assert not set(raw) & set(b"<>&")


@given(documents)
def test_any_document_decodes_or_is_refused_with_gos_words(document: Any) -> None:
    for value in (document, {"Spec": document}, {"Spec": {"process": document}, "Conf": document}):
        try:
            args = decode(START_ARGS, text_of(value))
        except DecodeError as error:
            assert error.text.startswith("json: cannot unmarshal ")  # noqa: PT017  # it may be read, too
        else:
            assert list(args) == [each.key for each in START_ARGS.fields]
            assert decode(START_ARGS, encode(args)) == args


@given(
    st.integers(min_value=1, max_value=NESTING_MAX),
    st.sampled_from([(b"[", b"]"), (b'{"a":', b"}")]),
)
@settings(max_examples=20)
def test_any_nesting_up_to_the_limit_is_read(depth: int, brackets: tuple[bytes, bytes]) -> None:
    raw = brackets[0] * (depth - 1) + b"[]" + brackets[1] * (depth - 1)
    parse(raw)
    assert ValueScanner().feed(raw) == len(raw)


@given(st.lists(st.dictionaries(st.text(), documents, max_size=3), max_size=4), cuts, st.booleans())
def test_requests_come_out_in_order_however_the_stream_is_cut(
    arguments: list[dict[str, Any]], sizes: list[int], spaced: bool
) -> None:
    stream = (b"\n" if spaced else b"").join(
        b'{"method":"M.%d","arg":%s}' % (index, text_of(argument))
        for index, argument in enumerate(arguments)
    )
    reader, seen = MessageReader(), []

    def take(message: Message | None) -> None:
        while message is not None:
            request = parse_request(message, PEER)
            seen.append((request.method, plain(request.argument)))
            message = reader.next_buffered()

    for piece in pieces(stream, sizes):
        rest = piece
        while rest and reader.awaiting_first:
            take(reader.receive_first(Received(data=rest[:1], files=FdBundle())))
            rest = rest[1:]
        if rest:
            take(reader.receive_data(rest))
    assert seen == [
        (f"M.{index}", json.loads(text_of(argument))) for index, argument in enumerate(arguments)
    ]
    assert reader.receive_eof() is None


frames = st.lists(
    st.tuples(st.binary(max_size=50), st.integers(min_value=0, max_value=3)), max_size=6
)


@given(frames, cuts)
def test_frames_come_out_whole_however_the_stream_is_cut(
    sent: list[tuple[bytes, int]], sizes: list[int]
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    stream, first_bytes = b"", {}
    inodes: list[list[int]] = []
    for body, count in sent:
        first_bytes[len(stream)] = FdBundle(OwnedFd(os.memfd_create("f")) for _ in range(count))
        inodes.append([os.fstat(number).st_ino for number in first_bytes[len(stream)].numbers()])
        stream += encode_frame(body, count)
    decoder, received, at = FrameDecoder(), list[Frame](), 0
    for piece in pieces(stream, sizes):
        come = FdBundle()
        for offset in range(at, at + len(piece)):
            if offset in first_bytes:
                come.extend(first_bytes[offset])
        received += decoder.receive_data(piece, come)
        at += len(piece)
    assert [frame.body for frame in received] == [body for body, _ in sent]
    assert [
        [os.fstat(number).st_ino for number in frame.fds.numbers()] for frame in received
    ] == inodes
    assert not decoder.mid_frame
    for frame in received:
        frame.fds.close()
    assert len(os.listdir("/proc/self/fd")) == before
