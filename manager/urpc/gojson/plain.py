"""A tree as plain Python values, for what no Go type describes."""

import math
import re
from typing import Any, Final

from manager.urpc.gojson.parse import Number, Pairs, Tree

_INTEGRAL: Final = re.compile(r"-?[0-9]{1,20}")


PLAIN_NESTING_MAX: Final = 200
"""Deepest nesting of a plain value: whoever writes it as JSON again recurses that deep."""


class TooDeep(ValueError):  # noqa: N818 - a property of the text
    """The text nests deeper than PLAIN_NESTING_MAX."""


def plain(node: Tree) -> Any:
    """Turn a tree into dicts, lists and Python numbers; a later duplicate key replaces.

    An integer literal of up to 20 digits stays an int; any other number becomes a float, at most
    the largest finite one, so that the result can always be written as JSON again.

    Raises:
        TooDeep: Nested deeper than PLAIN_NESTING_MAX; the tree may be, a value may not.
    """
    return _plain(node, PLAIN_NESTING_MAX)


def _plain(node: Tree, levels: int) -> Any:
    if isinstance(node, Number):
        return _number(node)
    if not isinstance(node, list):
        return node
    if levels == 0:
        raise TooDeep(f"nested deeper than {PLAIN_NESTING_MAX}")
    if isinstance(node, Pairs):
        return {key: _plain(member, levels - 1) for key, member in node}
    return [_plain(member, levels - 1) for member in node]


def _number(literal: Number) -> int | float:
    if _INTEGRAL.fullmatch(literal) is not None:
        return int(literal)
    value = float(literal)
    return value if math.isfinite(value) else math.copysign(_FLOAT_MAX, value)


_FLOAT_MAX: Final = 1.7976931348623157e308
