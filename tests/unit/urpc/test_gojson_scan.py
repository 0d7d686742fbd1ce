"""Where a value ends, found as the bytes come."""

import pytest

from manager.urpc.errors import MalformedMessage
from manager.urpc.gojson import NESTING_MAX, ValueScanner

REST = b' {"next'


def end_of(raw: bytes, size: int) -> int | None:
    """Feed `raw` in pieces of `size` bytes; return how many belong to the value."""
    scanner = ValueScanner()
    for start in range(0, len(raw), size):
        end = scanner.feed(raw[start : start + size])
        if end is not None:
            return start + end
    return None


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    "value",
    [
        b"{}",
        b"[]",
        b'{"a":[1,2,{"b":null}]}',
        b' \t\r\n{"a":1}',
        b'"text"',
        b'""',
        rb'"a \" quote and \\"',
        rb'{"k":"\\\"}]{["}',
        b'{"a":"}","b":"\\\\"}',
        b'[{"a":"]"},"["]',
        b"null",
        b"-12.5e+3",
        b"true",
        '{"é":"\u2028"}'.encode(),
        b'{"\xff\xfe":"\xc0"}',
    ],
)
def test_the_end_of_a_value(value: bytes, size: int) -> None:
    assert end_of(value + REST, size) == len(value)
    if value.endswith((b"}", b"]", b'"')):
        assert end_of(value, size) == len(value)
    assert end_of(value[:-1], size) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"hello",
        b"}",
        b"]",
        b",",
        b"\0",
        b"\xef\xbb\xbf{}",
        b"{garbage",
        b'{"a" : x',
        b"[\x01",
        b"GET /",
    ],
)
def test_what_cannot_be_json_is_refused_at_once(raw: bytes) -> None:
    with pytest.raises(MalformedMessage):
        end_of(raw, 1)


@pytest.mark.parametrize(
    "rest", [b"\0", b"}}}", b"garbage", b'"', b' "}"', b'"]" 1', b"[" * 10_001, b"\xff"]
)
@pytest.mark.parametrize("value", [b"{}", b'{"a":["}"]}', b'"x"', b'["\xff",1]'])
def test_what_follows_a_value_is_none_of_its_business(value: bytes, rest: bytes) -> None:
    assert end_of(value + rest, 100_000) == len(value)


@pytest.mark.parametrize("size", [1, 4096, 1 << 20])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_limit(opening: bytes, closing: bytes, size: int) -> None:
    deepest = opening * (NESTING_MAX - 1) + b"[]" + closing * (NESTING_MAX - 1)
    assert end_of(deepest, size) == len(deepest)
    with pytest.raises(MalformedMessage, match="nested deeper than 10000"):
        end_of(opening + deepest, size)


def test_only_a_bare_literal_ends_with_the_stream() -> None:
    for raw, ended in [(b"null", True), (b"{", False), (b'"a', False), (b"", False), (b" ", False)]:
        scanner = ValueScanner()
        assert scanner.feed(raw) is None
        assert scanner.finish() is ended


def test_started_means_more_than_white_space() -> None:
    scanner = ValueScanner()
    scanner.feed(b" \n")
    assert not scanner.started
    scanner.feed(b"{")
    assert scanner.started


@pytest.mark.parametrize(
    "raw",
    [
        b'{"env":[' + b'"NAME=a value of ordinary length, forty bytes",' * 110_000 + b"0]}",
        b"[" + b"[]," * 1_700_000 + b"0]",
        b'["' + b'\\"' * 2_600_000 + b'"]',
        b'["' + b"x" * 5_000_000 + b'"]',
        b"[" + b'"",' * 1_700_000 + b"0]",
    ],
    ids=["spec", "brackets", "escapes", "one string", "empty strings"],
)
def test_five_mebibytes_are_read_to_their_end(raw: bytes) -> None:
    assert end_of(raw, 64 * 1024) == len(raw)
