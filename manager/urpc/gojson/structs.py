"""Go structs: fields by name, in whatever case, and the parts that stay unchecked."""

from collections.abc import Sequence
from typing import NamedTuple

from manager.urpc.gojson.encode import encode
from manager.urpc.gojson.parse import Number, Pairs, Tree
from manager.urpc.gojson.plain import TooDeep, plain
from manager.urpc.gojson.shapes import Context, GoPointer, Shape, Value, kind_of


class Field(NamedTuple):
    """One field of a struct: its key, its type, and whether an empty one is left out."""

    key: str
    shape: Shape
    omit_empty: bool


def field(key: str, shape: Shape, *, omit_empty: bool = False) -> Field:
    """Describe a field, in the order of the Go struct.

    Args:
        key: The key as Go writes it.
        shape: The field's type.
        omit_empty: Leave it out of the result when Go's `omitempty` would.
    """
    return Field(key, shape, omit_empty)


class GoStruct:
    """A struct, as a dict with the canonical keys in the order of the fields.

    Args:
        name: As Go prints it, with its package: `boot.StartArgs`.
        fields: In order. Keys match exactly first, then without regard to case.
    """

    def __init__(self, name: str, fields: Sequence[Field]) -> None:
        self.name = name
        self.fields = tuple(fields)
        self._short_name = name.rpartition(".")[2]
        self._exact = {each.key: each for each in self.fields}
        self._folded = {fold(each.key): each for each in reversed(self.fields)}

    def decode(self, node: Tree, current: Value, context: Context) -> Value:
        """Decode; see Shape."""
        if not isinstance(node, Pairs):
            if node is not None:
                context.misfit(kind_of(node), self.name)
            return current
        values = {} if current is None else current
        outer = context.struct
        for key, item in node:
            found = self._exact.get(key) or self._folded.get(fold(key))
            if found is None:
                continue
            context.struct = self._short_name
            context.path.append(found.key)
            values[found.key] = found.shape.decode(item, values.get(found.key), context)
            context.path.pop()
        context.struct = outer
        return values

    def export(self, value: Value) -> Value:
        """Export; see Shape."""
        present = value or {}
        exported = {}
        for key, shape, omit_empty in self.fields:
            result = shape.export(present.get(key))
            if not (omit_empty and _is_empty(result, shape)):
                exported[key] = result
        return exported


def _is_empty(value: Value, shape: Shape) -> bool:
    # encoding/json: false, 0, a nil pointer, an empty slice, map or string. A struct never is.
    if isinstance(shape, GoPointer):
        return value is None
    return not value and not isinstance(shape, GoStruct)


class GoOpaque:
    """A pointer to a struct of which only the outside is checked: any member is accepted.

    Args:
        name: The struct's name as Go prints it.
        canonical: Keys whose spelling is restored when they come in another case.

    The value is None or a dict of plain JSON values; a later duplicate key replaces. A member that
    nests too deep to be written again is an error, ours, not Go's.
    """

    def __init__(self, name: str, canonical: Sequence[str] = ()) -> None:
        self.name = name
        self._canonical = {fold(key): key for key in canonical}

    def decode(self, node: Tree, current: Value, context: Context) -> Value:
        """Decode; see Shape."""
        if node is None:
            return None
        if not isinstance(node, Pairs):
            context.misfit(kind_of(node), self.name)
            return current
        merged = {} if current is None else current
        for key, item in node:
            try:
                merged[self._canonical.get(fold(key), key)] = plain(item)
            except TooDeep as error:
                context.fail(f"json: {self.name} member {encode(key).decode()} is {error}")
        return merged

    def export(self, value: Value) -> Value:
        """Export; see Shape."""
        return value


class GoStringOr:
    """A bare string where a struct is also accepted: the string is the struct's field `key`."""

    def __init__(self, key: str, struct: GoStruct) -> None:
        self.name = struct.name
        self._key = key
        self._struct = struct

    def decode(self, node: Tree, current: Value, context: Context) -> Value:
        """Decode; see Shape."""
        if isinstance(node, str) and not isinstance(node, Number):
            node = Pairs([(self._key, node)])
        return self._struct.decode(node, current, context)

    def export(self, value: Value) -> Value:
        """Export; see Shape."""
        return self._struct.export(value)


def fold(key: str) -> str:
    """Fold a key as Go does to match an ASCII field name.

    Letter case, and the two other letters that Unicode's simple folding maps to ASCII ones: long s
    and the Kelvin sign.
    """
    if not key.isascii():
        key = key.replace("\u017f", "s").replace("\u212a", "k")
        return key.lower() if key.isascii() else key
    return key.lower()
