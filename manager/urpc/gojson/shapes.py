"""A small language to write down Go types, and what Go's decoder does with each.

A shape decodes a tree *into* what an earlier duplicate of the same key left, as Go does: objects
and maps merge, slices reuse their elements, `null` leaves scalars alone and resets pointers, maps
and slices. A type error is noted (the first one wins) and decoding goes on.

Values: str, bool, int; list for slices; dict for maps and structs; None for a nil pointer. A nil
slice or map and an empty one are the same here, as they are after Go's `omitempty`.
"""

from typing import Any, Final, Protocol, TypeAlias

from manager.urpc.gojson.parse import Number, Pairs, Tree

Value: TypeAlias = Any
"""A decoded value: what the shape says; static types end at this edge."""


class Context:
    """Where the decoder is, and the first thing that did not fit."""

    __slots__ = ("error", "path", "struct")

    def __init__(self) -> None:
        self.error: str | None = None
        self.path: list[str] = []
        self.struct = ""

    def misfit(self, what: str, type_name: str) -> None:
        """Note that `what` cannot become a `type_name`, unless something was noted before.

        Source: encoding/json UnmarshalTypeError: the innermost struct's name, then the keys from
        the outermost struct down, without slice indices and map keys.
        """
        into = "value"
        if self.path:
            into = f"struct field {self.struct}.{'.'.join(self.path)}"
        self.fail(f"json: cannot unmarshal {what} into Go {into} of type {type_name}")

    def fail(self, text: str) -> None:
        """Note an error, unless one was noted before."""
        if self.error is None:
            self.error = text


class Shape(Protocol):
    """One Go type."""

    @property
    def name(self) -> str:
        """The type's name as Go prints it."""

    def decode(self, node: Tree, current: Value, context: Context) -> Value:
        """Decode `node` over `current` (None: nothing was there) and return the result."""

    def export(self, value: Value) -> Value:
        """Turn a result of `decode` (None: the zero value) into what the caller gets."""


def kind_of(node: Tree) -> str:
    """Name a value's JSON kind as Go's errors do."""
    if isinstance(node, Pairs):
        return "object"
    if isinstance(node, list):
        return "array"
    if isinstance(node, bool):
        return "bool"
    if isinstance(node, Number):
        return "number"
    return "string"


class GoString:
    """A string, or a named type of that kind."""

    def __init__(self, name: str = "string") -> None:
        self.name = name

    def decode(self, node: Tree, current: Value, context: Context) -> Value:
        """Decode; see Shape."""
        if isinstance(node, str) and not isinstance(node, Number):
            return node
        if node is not None:
            context.misfit(kind_of(node), self.name)
        return current

    def export(self, value: Value) -> Value:
        """Export; see Shape."""
        return value or ""


class GoBool:
    """A bool; 0 and 1 are numbers, not bools."""

    name = "bool"

    def decode(self, node: Tree, current: Value, context: Context) -> Value:
        """Decode; see Shape."""
        if isinstance(node, bool):
            return node
        if node is not None:
            context.misfit(kind_of(node), self.name)
        return current

    def export(self, value: Value) -> Value:
        """Export; see Shape."""
        return value or False


_INTEGER_CHARACTERS_MAX: Final = 20
"""Longest literal that can fit 64 bits: a sign and 19 digits, or 20 digits."""


class GoInt:
    """An integer of a given width. `1.0` and `1e0` are not integers to Go.

    Args:
        bits: 8, 16, 32 or 64.
        signed: int or uint.
        name: The type's name, when it is neither intN nor uintN (int, uint, a named type).
    """

    def __init__(self, bits: int, *, signed: bool, name: str | None = None) -> None:
        self.name = name or f"{'' if signed else 'u'}int{bits}"
        self._signed = signed
        self._least = -(1 << (bits - 1)) if signed else 0
        self._most = (1 << (bits - 1 if signed else bits)) - 1

    def decode(self, node: Tree, current: Value, context: Context) -> Value:
        """Decode; see Shape."""
        if not isinstance(node, Number):
            if node is not None:
                context.misfit(kind_of(node), self.name)
            return current
        number = self._integer(node)
        if number is None:
            context.misfit(f"number {node}", self.name)
            return current
        return number

    def export(self, value: Value) -> Value:
        """Export; see Shape."""
        return value or 0

    def _integer(self, literal: Number) -> int | None:
        digits = literal[1:] if self._signed and literal[0] == "-" else literal
        if not digits.isdigit() or len(literal) > _INTEGER_CHARACTERS_MAX:
            return None
        number = int(literal)
        return number if self._least <= number <= self._most else None


class GoSlice:
    """A slice. A later duplicate reuses the elements that an earlier one left."""

    def __init__(self, element: Shape) -> None:
        self.name = f"[]{element.name}"
        self._element = element

    def decode(self, node: Tree, current: Value, context: Context) -> Value:
        """Decode; see Shape."""
        if node is None:
            return None
        if not isinstance(node, list) or isinstance(node, Pairs):
            context.misfit(kind_of(node), self.name)
            return current
        decode = self._element.decode
        if not current:
            return [decode(item, None, context) for item in node]
        stale = current + [None] * (len(node) - len(current))
        return [decode(item, old, context) for item, old in zip(node, stale, strict=False)]

    def export(self, value: Value) -> Value:
        """Export; see Shape."""
        export = self._element.export
        return [export(item) for item in value or ()]


class GoMap:
    """A map with string keys. A later duplicate adds to it; its values do not merge."""

    def __init__(self, element: Shape) -> None:
        self.name = f"map[string]{element.name}"
        self._element = element

    def decode(self, node: Tree, current: Value, context: Context) -> Value:
        """Decode; see Shape."""
        if node is None:
            return None
        if not isinstance(node, Pairs):
            context.misfit(kind_of(node), self.name)
            return current
        decode = self._element.decode
        merged = {} if current is None else current
        for key, item in node:
            merged[key] = decode(item, None, context)
        return merged

    def export(self, value: Value) -> Value:
        """Export; see Shape."""
        export = self._element.export
        return {key: export(item) for key, item in (value or {}).items()}


class _Allocated:
    """What a non-nil Go pointer points to; None inside is the type's zero value."""

    __slots__ = ("value",)

    def __init__(self, value: Value) -> None:
        self.value = value


class GoPointer:
    """A pointer: None when nil, so that a zero can be told from nothing."""

    def __init__(self, target: Shape) -> None:
        self.name = target.name
        self._target = target

    def decode(self, node: Tree, current: Value, context: Context) -> Value:
        """Decode; see Shape."""
        if node is None:
            return None
        old = None if current is None else current.value
        return _Allocated(self._target.decode(node, old, context))

    def export(self, value: Value) -> Value:
        """Export; see Shape."""
        return None if value is None else self._target.export(value.value)
