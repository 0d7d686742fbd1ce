"""A tree as plain Python values, for what no Go type describes."""

import math
import re
from typing import Any, Final, cast

from manager.urpc.gojson.parse import Number, Pairs, Tree

_INTEGRAL: Final = re.compile(r"-?[0-9]{1,20}")


def plain(node: Tree) -> Any:
    """Turn a tree into dicts, lists and Python numbers; a later duplicate key replaces.

    An integer literal of up to 20 digits stays an int; any other number becomes a float, at most
    the largest finite one, so that the result can always be written as JSON again. Not recursive:
    the text may nest NESTING_MAX deep.
    """
    root: list[Any] = []
    todo: list[tuple[Tree, Any, Any]] = [(node, root, None)]
    while todo:
        item, into, key = todo.pop()
        value: Any = item
        if isinstance(item, Pairs):
            value = {name: None for name, _ in item}
            todo.extend((member, value, name) for name, member in dict(item).items())
        elif isinstance(item, list):
            members = cast("list[Tree]", item)
            value = [None] * len(members)
            todo.extend((member, value, index) for index, member in enumerate(members))
        elif isinstance(item, Number):
            value = _number(item)
        if into is root:
            root.append(value)
        else:
            into[key] = value
    return root[0]


def _number(literal: Number) -> int | float:
    if _INTEGRAL.fullmatch(literal) is not None:
        return int(literal)
    value = float(literal)
    return value if math.isfinite(value) else math.copysign(_FLOAT_MAX, value)


_FLOAT_MAX: Final = 1.7976931348623157e308
