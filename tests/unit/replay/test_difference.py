"""Differences of JSON objects, and the patches made of them."""

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from replay.difference import ABSENT, as_patch, differences

scalars = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["", "a", "b/c", "~"])
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b/c", "~d", ""]), inner, max_size=3)
    ),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from(["a", "b", "c~/"]), values, max_size=3)


def apply(patch: list[dict[str, Any]], subject: Any) -> Any:
    """As RFC 6902 has it, for the three operations that are used here."""
    whole = {"": copy.deepcopy(subject)}
    for operation in patch:
        *parents, last = [
            step.replace("~1", "/").replace("~0", "~")
            for step in ("" + operation["path"]).split("/")
        ]
        place: Any = whole
        for step in parents:
            place = place[int(step)] if isinstance(place, list) else place[step]
        if isinstance(place, list):
            if operation["op"] == "add":
                place.insert(int(last), operation["value"])
            elif operation["op"] == "remove":
                del place[int(last)]
            else:
                place[int(last)] = operation["value"]
        elif operation["op"] == "remove":
            del place[last]
        else:
            place[last] = operation["value"]
    return whole[""]


@given(objects, objects)
def test_a_patch_makes_the_one_of_the_other(before: Any, after: Any) -> None:
    found = list(differences(before, after))
    assert apply(as_patch(found), before) == after
    assert bool(found) is (repr(sorted_json(before)) != repr(sorted_json(after)))


def sorted_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: sorted_json(value[name]) for name in sorted(value)}
    return [sorted_json(each) for each in value] if isinstance(value, list) else value


def test_each_is_as_deep_as_it_goes() -> None:
    before = {"a": {"x": 1, "y": [1, {"z": 2}]}, "gone": 1}
    after = {"a": {"x": 1, "y": [1, {"z": 3}, 4]}, "new": True}
    found = [(each.path, each.kind, each.before, each.after) for each in differences(before, after)]
    assert found == [
        (("a", "y", "1", "z"), "changed", 2, 3),
        (("a", "y", "2"), "added", ABSENT, 4),
        (("new",), "added", ABSENT, True),
        (("gone",), "removed", 1, ABSENT),
    ]
    assert list(differences(True, 1)) != []
