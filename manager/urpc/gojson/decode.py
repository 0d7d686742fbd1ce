"""Fit JSON to a Go type: the door to `shapes`."""

from typing import Final

from manager.urpc.errors import DecodeError
from manager.urpc.gojson.parse import Tree, parse
from manager.urpc.gojson.shapes import Context, Shape, Value

ABSENT_TEXT: Final = "unexpected end of JSON input"


def decode(shape: Shape, raw: bytes | None) -> Value:
    """Decode one JSON text, as Go's json.Unmarshal into a new value of the type.

    Args:
        shape: The Go type.
        raw: One JSON value; None stands for an absent one (Go then decodes no bytes at all).

    Returns:
        What the shape says; zero values where the text has nothing.

    Raises:
        DecodeError: A value of another type, or `raw` is None. Go's text; answer with it.
        MalformedMessage: `raw` is not JSON.
    """
    if raw is None:
        raise DecodeError(ABSENT_TEXT)
    return decode_tree(shape, parse(raw))


def decode_tree(shape: Shape, tree: Tree) -> Value:
    """Decode a parsed text; otherwise like `decode`.

    Raises:
        DecodeError: A value of another type: the first one in the text.
    """
    context = Context()
    value = shape.decode(tree, None, context)
    if context.error is not None:
        raise DecodeError(context.error)
    return shape.export(value)
