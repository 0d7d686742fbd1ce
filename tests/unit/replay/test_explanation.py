"""Values, their causes, and the smallest part of a history that gives them."""

from hypothesis import given
from hypothesis import strategies as st

from manager.domain.state import Container, Sandbox
from replay.explanation import MISSING, shown, smallest, value_at

STATE = Sandbox(
    id="sb", phase="started", containers={"web": Container(cid="web", status="running")}
)


def test_values() -> None:
    assert value_at(STATE, ("phase",)) == "started"
    assert value_at(STATE, ("containers", "web", "status")) == "running"
    assert value_at(STATE, ("containers", "web", "exit")) is None
    assert value_at(STATE, ("savings_ns", "1")) == 0
    for path in (
        ("x",),
        ("containers", "db"),
        ("savings_ns", "2"),
        ("savings_ns", "x"),
        ("id", "x"),
    ):
        assert value_at(STATE, path) == MISSING
    assert value_at(STATE, ("containers", "web"))["cid"] == "web"


def test_values_as_somebody_writes_them() -> None:
    assert [shown(each) for each in (True, False, None, 3, "x")] == [
        "true", "false", "null", "3", "x"
    ]  # fmt: skip


@given(st.sets(st.integers(0, 60), max_size=6), st.integers(61, 90))
def test_the_smallest_part_is_found(needed: set[int], count: int) -> None:
    asked = 0

    def holds(part: list[int]) -> bool:
        nonlocal asked
        asked += 1
        return needed <= set(part)

    assert smallest(list(range(count)), holds) == sorted(needed)
    assert asked < 40 * (len(needed) + 1)


def test_of_several_parts_one_that_is_minimal() -> None:
    found = smallest(list(range(10)), lambda part: sum(part) >= 15)
    assert sum(found) >= 15
    assert all(sum(found) - each < 15 for each in found)


def test_nothing_may_be_needed() -> None:
    assert smallest([], lambda _: True) == []
    assert smallest([1, 2], lambda _: True) == []
