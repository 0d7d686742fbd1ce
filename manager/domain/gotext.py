"""Go's ``%q`` and ``%v``: error texts quote as gVisor quotes, because callers match on them.

Source: Go's strconv.Quote and fmt documentation.
"""

from collections.abc import Iterable
from typing import Final

_ESCAPES: Final = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    '"': r"\"",
    "\\": r"\\",
}
_BMP_LAST: Final = 0xFFFF


def quote(text: str) -> str:
    """Quote as ``%q`` does: double quotes, Go escapes, what is not printable by its number."""
    return '"' + "".join(map(_escape, text)) + '"'


def slice_text(values: Iterable[object]) -> str:
    """Print a slice as ``%v`` does: ``[a b c]``."""
    return "[" + " ".join(map(str, values)) + "]"


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    number = ord(char)
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= _BMP_LAST else f"\\U{number:08x}"
