"""JSON text to a tree that keeps what a Go decoder looks at: every key in order, numbers as text.

The standard library's C parser does the work. What it does otherwise than Go is bent before it
(invalid UTF-8, lone surrogates), through its hooks (NaN, numbers, duplicate keys), or done by a
slow parser of our own (nesting beyond the interpreter's recursion limit).
"""

import codecs
import contextlib
import gc
import json
import re
from collections.abc import Iterator
from typing import Final, TypeAlias

from manager.urpc.errors import MalformedMessage
from manager.urpc.gojson.scan import NESTING_MAX


class Number(str):
    """A number's literal text: Go tells 1 from 1.0 and prints the text in its errors."""

    __slots__ = ()


class Pairs(list["tuple[str, Tree]"]):
    """An object's members in the order of the text, duplicates included."""

    __slots__ = ()


Tree: TypeAlias = "bool | str | Number | list[Tree] | Pairs | None"


def parse(raw: bytes) -> Tree:
    """Parse one JSON value with nothing but white space around it.

    Raises:
        MalformedMessage: Not JSON by Go's rules, or nested deeper than NESTING_MAX.

    Source: Go's encoding/json: invalid UTF-8 and lone surrogates become U+FFFD.
    """
    text = raw.decode("utf-8", _GO_ERRORS)
    if _SURROGATE_HINT.search(text) is not None:
        text = _ESCAPE.sub(_mend_escape, text)
    with _collector_paused(len(raw)):
        try:
            tree: Tree = _DECODER.decode(text)
        except RecursionError:
            return _parse_deep(text)
        except ValueError as error:
            raise MalformedMessage(f"not JSON: {error}") from None
    return tree


_COLLECT_BYTES_MAX: Final = 64 * 1024
"""Longest text that is parsed with the cycle collector running: on millions of small containers,
none of them in a cycle, it costs six times the parsing itself."""


@contextlib.contextmanager
def _collector_paused(length: int) -> Iterator[None]:
    if length <= _COLLECT_BYTES_MAX or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _refuse_constant(literal: str) -> Tree:
    raise ValueError(f"{literal} is not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=Pairs,
    parse_int=Number,
    parse_float=Number,
    parse_constant=_refuse_constant,
)

# One U+FFFD for each bad byte: Go replaces byte by byte, Python's "replace" by maximal subparts.
_GO_ERRORS: Final = "manager.urpc.go-utf8"


def _replace_each_byte(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error(_GO_ERRORS, _replace_each_byte)

_SURROGATE_HINT: Final = re.compile(r"\\u[dD][89a-fA-F]")
_ESCAPE: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(u[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|.)",
    re.DOTALL,
)


def _mend_escape(match: re.Match[str]) -> str:
    return match[0] if match[1] is None else "\\ufffd"


_TOKEN: Final = re.compile(
    r"""
    [ \t\r\n]*+ (?:
      ([\[{]) | ([\]}]) | (,)
      | ("[^"\\]*+ (?: \\. [^"\\]*+ )* ")
      | (-? (?: 0 | [1-9][0-9]*+ ) (?: \.[0-9]++ )? (?: [eE][-+]?[0-9]++ )? )
      | (true|false|null)
    )""",
    re.DOTALL | re.VERBOSE,
)
_COLON: Final = re.compile(r"[ \t\r\n]*+:")
_SPACE: Final = re.compile(r"[ \t\r\n]*+")
_LITERALS: Final[dict[str, Tree]] = {"true": True, "false": False, "null": None}


def _parse_deep(text: str) -> Tree:
    """Parse without recursion, a token at a time: for nesting that the C parser refuses."""
    try:
        return _DeepParser(text).parse()
    except ValueError as error:
        raise MalformedMessage(f"not JSON: {error}") from None


class _DeepParser:
    """One value, with a stack of our own. Raises ValueError for what is not JSON."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._stack: list[list[Tree] | Pairs] = []
        self._keys: list[str] = []

    def parse(self) -> Tree:
        while True:
            value = self._open_or_scalar()
            while self._stack:
                self._attach(value)
                if not self._close_or_comma():
                    break
                value = self._stack.pop()
            else:
                if _SPACE.fullmatch(self._text, self._at) is None:
                    raise ValueError(f"extra data at {self._at}")
                return value

    def _open_or_scalar(self) -> Tree:
        """Go down to the next scalar or empty container, opening what is on the way."""
        while True:
            opening, closing, comma, string, number, literal = self._token()
            if string:
                return _string(string)
            if number:
                return Number(number)
            if literal:
                return _LITERALS[literal]
            if closing or comma:
                raise ValueError(f"no value at {self._at}")
            if len(self._stack) == NESTING_MAX:
                raise ValueError(f"nested deeper than {NESTING_MAX}")
            container: list[Tree] | Pairs = Pairs() if opening == "{" else []
            if self._closes(opening):
                return container
            self._stack.append(container)
            if opening == "{":
                self._key()

    def _attach(self, value: Tree) -> None:
        container = self._stack[-1]
        if isinstance(container, Pairs):
            container.append((self._keys.pop(), value))
        else:
            container.append(value)

    def _close_or_comma(self) -> bool:
        """Read what follows a member: tells whether the innermost container ends here."""
        _, closing, comma, *_ = self._token()
        is_object = isinstance(self._stack[-1], Pairs)
        if comma:
            if is_object:
                self._key()
            return False
        if closing != ("}" if is_object else "]"):
            raise ValueError(f"wrong bracket at {self._at}")
        return True

    def _closes(self, opening: str) -> bool:
        end = _SPACE.match(self._text, self._at)
        at = self._at if end is None else end.end()
        if self._text[at : at + 1] != ("}" if opening == "{" else "]"):
            return False
        self._at = at + 1
        return True

    def _key(self) -> None:
        _, _, _, string, *_ = self._token()
        if not string:
            raise ValueError(f"no key at {self._at}")
        colon = _COLON.match(self._text, self._at)
        if colon is None:
            raise ValueError(f"no colon at {self._at}")
        self._at = colon.end()
        self._keys.append(_string(string))

    def _token(self) -> tuple[str, str, str, str, str, str]:
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            raise ValueError(f"no token at {self._at}")
        self._at = match.end()
        opening, closing, comma, string, number, literal = match.groups("")
        return opening, closing, comma, string, number, literal


def _string(token: str) -> str:
    value = _DECODER.decode(token)
    assert isinstance(value, str), "the token is in quotes"
    return value
