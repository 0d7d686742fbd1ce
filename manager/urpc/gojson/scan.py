"""Find the end of one JSON value in a stream of bytes, in bounded memory and without recursion.

urpc has no framing: a message ends where its JSON value ends. Whole chunks are handled by compiled
expressions and byte translation; single brackets are looked at only in the chunk that may hold the
end. What cannot be JSON is refused as soon as a byte outside of strings shows it; the grammar
itself is checked by `parse`.
"""

import re
from itertools import accumulate
from typing import Final

from manager.urpc.errors import MalformedMessage

NESTING_MAX: Final = 10_000
"""Deepest nesting of arrays and objects (encoding/json's maxNestingDepth)."""

# No possessive quantifier stands on a group: before Python 3.11.5 such a group, when its last
# repetition fails half way, leaves the match where it failed (python/cpython issue 106052). What a
# greedy one may keep for backtracking is bounded by the size of a chunk.
_BODY: Final = rb'[^"\\]*+(?:\\.[^"\\]*+)*'
_STRING_BODY: Final = re.compile(_BODY, re.DOTALL)
_STRING: Final = re.compile(rb'"' + _BODY + rb'"', re.DOTALL)
_WHOLE_STRINGS: Final = re.compile(rb'(?:[^"]*+"' + _BODY + rb'")*', re.DOTALL)
_STRING_OR_BRACKET: Final = re.compile(rb'"' + _BODY + rb'"|[\[\]{}]', re.DOTALL)
_SPACE: Final = re.compile(rb"[ \t\r\n]*+")
_LITERAL: Final = re.compile(rb"[-+.0-9A-Za-z]*+")

_OPENING: Final = b"{["
_LITERAL_START: Final = b"-0123456789tfn"
_NOT_BRACKETS: Final = b" \t\r\n:,0123456789+-.eEtruefalsn"
_GARBAGE: Final = re.compile(b"[^{}\\[\\]" + re.escape(_NOT_BRACKETS) + b"]")
_DELTAS: Final = bytes.maketrans(b"{[}]", b"\x01\x01\xff\xff")


class ValueScanner:
    """Scans for the end of one value; a new one for each message."""

    def __init__(self) -> None:
        self._started = False
        self._depth = 0
        self._literal = False
        self._in_string = False
        self._escaped = False

    @property
    def started(self) -> bool:
        """Whether anything but white space has come."""
        return self._started

    def feed(self, chunk: bytes) -> int | None:
        """Take in the next bytes.

        Returns:
            How many bytes of `chunk` belong to the value, once it has ended; None before. A bare
            literal ends at the first byte that does not belong to it, so it may return 0.

        Raises:
            MalformedMessage: No JSON value begins like this, or it nests deeper than NESTING_MAX.
        """
        at = 0
        if not self._started:
            at = _end(_SPACE, chunk, 0)
            if at == len(chunk):
                return None
            at = self._start(chunk, at)
        if self._literal:
            end = _end(_LITERAL, chunk, at)
            return end if end < len(chunk) else None
        if self._in_string:
            at = self._skip_string(chunk, at)
            if self._in_string:
                return None
        if self._depth == 0 and chunk[at - 1 : at] == b'"':
            return at
        return self._scan_brackets(chunk[at:] if at else chunk, at)

    def finish(self) -> bool:
        """Take in the end of the stream; tells whether it ended a value (a bare literal)."""
        return self._literal

    def _start(self, chunk: bytes, at: int) -> int:
        self._started = True
        first = chunk[at]
        if first in _OPENING:
            return at
        if first == ord('"'):
            self._in_string = True
            return at + 1
        if first not in _LITERAL_START:
            raise MalformedMessage(f"no JSON value begins with byte {first:#04x}")
        self._literal = True
        return at

    def _skip_string(self, chunk: bytes, at: int) -> int:
        if self._escaped and at < len(chunk):
            self._escaped = False
            at += 1
        end = _end(_STRING_BODY, chunk, at)
        if end == len(chunk):
            return end
        if chunk[end] == ord("\\"):
            self._escaped = True
            return len(chunk)
        self._in_string = False
        return end + 1

    def _scan_brackets(self, rest: bytes, at: int) -> int | None:
        whole = rest
        open_quote = rest.find(b'"', _end(_WHOLE_STRINGS, rest, 0))
        if open_quote >= 0:
            whole = rest[:open_quote]
        skeleton = _STRING.sub(b"", whole)
        brackets = skeleton.translate(None, _NOT_BRACKETS)
        opened = brackets.count(b"{") + brackets.count(b"[")
        closed = brackets.count(b"}") + brackets.count(b"]")
        if opened + closed != len(brackets):
            return at + self._end_before_garbage(whole, skeleton)
        if self._depth > closed and self._depth + opened <= NESTING_MAX:
            self._depth += opened - closed
        else:
            ordinal = self._count_levels(brackets)
            if ordinal is not None:
                return at + _bracket_end(whole, ordinal, last=ordinal == len(brackets))
        if open_quote >= 0:
            self._in_string = True
            self._skip_string(rest, open_quote + 1)
        return None

    def _end_before_garbage(self, text: bytes, skeleton: bytes) -> int:
        """Return where the value ends in a text with bytes that no JSON has outside of strings.

        What follows a value is none of its business; within the value such a byte is fatal.
        """
        garbage = _GARBAGE.search(skeleton)
        assert garbage is not None, "counted by the caller"
        brackets = skeleton[: garbage.start()].translate(None, _NOT_BRACKETS)
        ordinal = self._count_levels(brackets)
        if ordinal is None:
            raise MalformedMessage(f"byte {garbage[0][0]:#04x} outside of a JSON string")
        return _bracket_end(text, ordinal, last=False)

    def _count_levels(self, brackets: bytes) -> int | None:
        """Return the ordinal (from 1) of the bracket that closes the value, if it is there."""
        deltas = memoryview(brackets.translate(_DELTAS)).cast("b")
        levels = list(accumulate(deltas, initial=self._depth))
        ordinal = None
        if 0 in levels[1:]:
            ordinal = levels.index(0, 1)
            del levels[ordinal + 1 :]
        if max(levels) > NESTING_MAX:
            raise MalformedMessage(f"nested deeper than {NESTING_MAX}")
        self._depth = levels[-1]
        return ordinal


def _end(pattern: re.Pattern[bytes], chunk: bytes, at: int) -> int:
    match = pattern.match(chunk, at)
    assert match is not None, "every one of these patterns matches the empty string"
    return match.end()


def _bracket_end(text: bytes, ordinal: int, *, last: bool) -> int:
    """Return the offset just past the ordinal-th bracket outside of strings."""
    if last:
        at = max(text.rfind(b"}"), text.rfind(b"]"))
        if b'"' not in text[at:]:  # else it may stand in a string
            return at + 1
    for match in _STRING_OR_BRACKET.finditer(text):
        if match[0][0] != ord('"'):
            ordinal -= 1
            if ordinal == 0:
                return match.end()
    raise AssertionError("the bracket was counted in this very text")
