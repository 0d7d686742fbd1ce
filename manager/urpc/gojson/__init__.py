"""JSON as Go's encoding/json reads and writes it, because gVisor's clients are Go.

Python's json differs: it accepts NaN, refuses invalid UTF-8, stops at a nesting that Go accepts,
replaces where Go merges, and minds the case of keys. `scan` finds where a value ends in a byte
stream, `parse` makes a tree of it, `shapes` and `decode` fit the tree to a Go type with Go's error
texts, `encode` writes what Go would.
"""

from manager.urpc.gojson.decode import decode, decode_tree
from manager.urpc.gojson.encode import encode
from manager.urpc.gojson.parse import Number, Pairs, Tree, parse
from manager.urpc.gojson.plain import plain
from manager.urpc.gojson.scan import NESTING_MAX, ValueScanner
from manager.urpc.gojson.shapes import GoBool, GoInt, GoMap, GoPointer, GoSlice, GoString, Shape
from manager.urpc.gojson.structs import GoOpaque, GoStringOr, GoStruct, field

__all__ = [
    "NESTING_MAX",
    "GoBool",
    "GoInt",
    "GoMap",
    "GoOpaque",
    "GoPointer",
    "GoSlice",
    "GoString",
    "GoStringOr",
    "GoStruct",
    "Number",
    "Pairs",
    "Shape",
    "Tree",
    "ValueScanner",
    "decode",
    "decode_tree",
    "encode",
    "field",
    "parse",
    "plain",
]
