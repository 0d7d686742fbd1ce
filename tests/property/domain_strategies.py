"""Hypothesis strategies made from the types themselves: whatever an event may hold, it will."""

import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from hypothesis import strategies as st

IDS = ("s1", "c1", "c2", "L-1", "L-2", "K-1", "H-1", "r-1", "")
"""Ids come from a small pool, so that events meet each other."""

INT64 = st.integers(min_value=-(2**63), max_value=2**64 - 1)

T = TypeVar("T")


def any_of(kind: Any) -> st.SearchStrategy[Any]:
    """Anything of a type: structs, unions, literals, tuples, dicts and plain values."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        return st.one_of([any_of(each) for each in arguments])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return st.lists(any_of(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*(any_of(each) for each in arguments))
    if origin is dict:
        return st.dictionaries(any_of(arguments[0]), any_of(arguments[1]), max_size=3)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return struct(kind)
    return _PLAIN[kind]


_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: st.sampled_from(IDS) | st.text(max_size=5),
    int: st.integers(min_value=-1, max_value=3) | INT64,
    bool: st.booleans(),
    type(None): st.none(),
}


def struct(kind: type[T]) -> st.SearchStrategy[T]:
    """Any value of a struct type, every member given."""
    members: Any = msgspec.structs.fields(kind)  # type: ignore[arg-type]  # any Struct
    return st.builds(kind, **{each.name: st.deferred(_lazy(each.type)) for each in members})


def _lazy(kind: Any) -> Any:
    return lambda: any_of(kind)
