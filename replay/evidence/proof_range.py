"""Ranges of events as people write them."""

import re
from typing import Final

DASHED: Final = re.compile(r"(#?[0-9]+)-(#?[0-9]+)")
DOTS: Final = ".."


def split_range(text: str) -> tuple[str, ...]:
    """The two ends of a range, or the one point that a text names, as they are written.

    ``A..B`` of any two points, ``#A-#B`` of two positions.
    """
    if found := DASHED.fullmatch(text.strip()):
        return found.groups()
    begin, dots, end = text.partition(DOTS)
    return (begin, end) if dots else (text,)
