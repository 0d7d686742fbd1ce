"""Messages that can be read, of a sender that means harm: made by changing them as JSON text.

A changed frame is hardly ever a message any more; changed JSON often is, with other ids, numbers,
and lists. What is none is sent as it is.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from manager.schema import worker as w

BODIES_MAX = 20


def sample(*messages: Any) -> bytes:
    """Messages as lines, to be changed."""
    return b"\n".join(msgspec.json.encode(each) for each in messages)


def bodies(data: bytes, kind: Any, read: Callable[[bytes], Any]) -> Iterator[tuple[bytes, bool]]:
    """The body of a frame for each line, and whether it can be read.

    Args:
        data: Changed lines.
        kind: What the lines are when nobody has changed them.
        read: The receiver's decoder.
    """
    for line in data.split(b"\n")[:BODIES_MAX]:
        try:
            body = w.encode(msgspec.json.decode(line, type=kind))
            read(body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            yield line, False
        else:
            yield body, True
