"""Text to tree by Go's rules, and back."""

import pytest

from manager.urpc.errors import MalformedMessage
from manager.urpc.gojson import NESTING_MAX, Number, Pairs, encode, parse, plain
from manager.urpc.gojson.parse import _parse_deep

GOOD = [
    (b"null", None),
    (b" true ", True),
    (b"-0.5e+7", "-0.5e+7"),
    (b"123456789012345678901234567890", "123456789012345678901234567890"),
    (b'"a"', "a"),
    (b"[]", []),
    (b"{}", []),
    (b'[1,[2],{"a":[]}]', ["1", ["2"], [("a", [])]]),
    (b'{"a":1,"A":2,"a":3}', [("a", "1"), ("A", "2"), ("a", "3")]),
    (b' { "a" : [ 1 , 2 ] , "b" : { } } ', [("a", ["1", "2"]), ("b", [])]),
    (rb'"\" \\ \/ \b \f \n \r \t \u0041"', '" \\ / \b \f \n \r \t A'),
    (rb'"\ud83d\ude00"', "\U0001f600"),
    (rb'"\uD83D\uDE00"', "\U0001f600"),
    (rb'"\ud800"', "\ufffd"),
    (rb'"\udc00x"', "\ufffdx"),
    (rb'"\ud800\ud83d\ude00\udfff"', "\ufffd\U0001f600\ufffd"),
    (rb'"\ud800\u0041"', "\ufffdA"),
    (rb'"\\ud800"', "\\ud800"),
    (rb'{"\ud800":1}', [("\ufffd", "1")]),
    (b'"\xff"', "\ufffd"),
    (b'"a\xe2\x82b"', "a\ufffd\ufffdb"),
    (b'"\xed\xa0\x80"', "\ufffd\ufffd\ufffd"),
    (b'"\xf0\x9f\x98"', "\ufffd\ufffd\ufffd"),
    (b'"\xc0\xaf"', "\ufffd\ufffd"),
    (b'"\x7f\xc2\x85"', "\x7f\x85"),
]

BAD = [
    b"",
    b" ",
    b"nope",
    b"nulll",
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"[1,]",
    b'{"a":1,}',
    b"{,}",
    b"[,1]",
    b"{1:2}",
    b'{"a"}',
    b'{"a":}',
    b'{"a" 1}',
    b"[1 2]",
    b"[1}",
    b'{"a":1]',
    b"[",
    b'{"a":1',
    b'"a',
    b"'a'",
    b"01",
    b"1.",
    b".5",
    b"+1",
    b"1e",
    b"-",
    b"0x1",
    b'"\x01"',
    b'"a\nb"',
    rb'"\x"',
    rb'"\u12"',
    rb'"\ud8"',
    b"{} {}",
    b"[]x",
    b"\xef\xbb\xbf{}",
    b"\xff",
    b"\xc2\xa0{}",
    b"/* */ 1",
    b"True",
]


@pytest.mark.parametrize(("raw", "tree"), GOOD)
def test_good_text(raw: bytes, tree: object) -> None:
    assert parse(raw) == tree


@pytest.mark.parametrize("raw", BAD)
def test_bad_text(raw: bytes) -> None:
    with pytest.raises(MalformedMessage, match="not JSON"):
        parse(raw)


@pytest.mark.parametrize("raw", [raw for raw, _ in GOOD])
def test_the_parser_without_recursion_reads_the_same(raw: bytes) -> None:
    deep = b"[" * 3000 + raw + b"]" * 3000
    tree = parse(deep)
    for _ in range(3000):
        assert isinstance(tree, list)
        assert not isinstance(tree, Pairs)
        (tree,) = tree
    assert tree == parse(raw)
    assert type(tree) is type(parse(raw))


@pytest.mark.parametrize("raw", BAD)
def test_the_parser_without_recursion_refuses_the_same(raw: bytes) -> None:
    with pytest.raises(MalformedMessage, match="not JSON"):
        parse(b"[" * 3000 + raw + b"]" * 3000 if raw not in {b"", b" "} else b"[" * 3000)
    with pytest.raises(MalformedMessage, match="not JSON"):
        _parse_deep(raw.decode("utf-8", "replace"))


def test_nesting() -> None:
    assert parse(b"[" * 9_990 + b"]" * 9_990)
    assert parse(b"[" * NESTING_MAX + b"]" * NESTING_MAX)
    with pytest.raises(MalformedMessage, match="nested deeper than 10000"):
        parse(b"[" * (NESTING_MAX + 1) + b"]" * (NESTING_MAX + 1))


def test_numbers_are_not_strings() -> None:
    number, text = parse(b'[1,"1"]')  # type: ignore[misc]  # two, as the text has
    assert isinstance(number, Number)
    assert not isinstance(text, Number)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"a":1,"b":[true,null,"x",{"c":-2}]}', {"a": 1, "b": [True, None, "x", {"c": -2}]}),
        (b'{"a":{"b":1},"a":{"c":2}}', {"a": {"c": 2}}),
        (b"1.5", 1.5),
        (b"1.0", 1.0),
        (b"1e999", 1.7976931348623157e308),
        (b"-1e999", -1.7976931348623157e308),
        (b"18446744073709551615", 18446744073709551615),
        (b"9" * 5000, 1.7976931348623157e308),
        (b"[]", []),
        (b"{}", {}),
        (b"null", None),
    ],
)
def test_plain_values(raw: bytes, value: object) -> None:
    assert plain(parse(raw)) == value


def test_plain_keeps_the_order_of_keys() -> None:
    assert list(plain(parse(b'{"b":1,"a":2,"c":3}'))) == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, b"{}"),
        (None, b"null"),
        ({"a": [1, True, "x"]}, b'{"a":[1,true,"x"]}'),
        ("<a & b>", rb'"\u003ca \u0026 b\u003e"'),
        ("\u2028\u2029", rb'"\u2028\u2029"'),
        ("é\U0001f600", '"é\U0001f600"'.encode()),
        ('a\x01\n"\\', rb'"a\u0001\n\"\\"'),
        ("\ud800", '"\ufffd"'.encode()),
        ({"\ud800": ("\udfff",)}, '{"\ufffd":["\ufffd"]}'.encode()),
        (b"\x00\xff", b'"AP8="'),
    ],
)
def test_encode_as_go_does(value: object, text: bytes) -> None:
    assert encode(value) == text
