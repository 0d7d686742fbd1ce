"""Write JSON as Go's json.Marshal does: compact, with its escapes."""

import re
from typing import Any, Final

import msgspec

_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_ESCAPES: Final = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


def encode(value: Any) -> bytes:
    """Encode plain values and msgspec structs; bytes become base64, as in Go.

    Raises:
        TypeError: A type that JSON does not know. A programming error.

    Source: encoding/json, HTML escaping in strings; the five characters stand nowhere else.
    """
    try:
        raw = msgspec.json.encode(value)
    except UnicodeEncodeError:
        raw = msgspec.json.encode(_mend(value))
    for character, escape in _ESCAPES:
        if character in raw:
            raw = raw.replace(character, escape)
    return raw


def _mend(value: Any) -> Any:
    # Go strings hold bytes; what is not UTF-8 leaves as U+FFFD.
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_mend(key): _mend(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mend(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return _mend(msgspec.structs.asdict(value))
    return value
