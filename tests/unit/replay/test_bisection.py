"""Halving by a command that judges."""

import pytest

from replay.bisection import Answer, Bisection, bisect_by
from replay.trail import Window


async def search(
    first: int, last: int, bad: set[int], skip: frozenset[int] = frozenset()
) -> Bisection:
    asked: list[int] = []

    async def probe(at: int) -> Answer:
        asked.append(at)
        return "skip" if at in skip else "bad" if at in bad else "good"

    found = await bisect_by(Window(first=first, last=last), probe)
    assert len(asked) == len(set(asked)) == found.looked_at
    return found


@pytest.mark.parametrize("first_bad", range(1, 34))
async def test_the_first_bad_one(first_bad: int) -> None:
    found = await search(1, 33, set(range(first_bad, 34)))
    assert found.first_bad == first_bad
    assert found.looked_at <= 2 + 6


async def test_what_cannot_be_judged() -> None:
    found = await search(1, 10, set(range(5, 11)), frozenset({4, 5, 6}))
    assert found.first_bad == 7
    assert found.skipped == (4, 5, 6)
    found = await search(1, 10, {10}, frozenset(range(1, 10)))
    assert (found.first_bad, found.skipped) == (10, tuple(range(1, 10)))


async def test_nothing_to_find() -> None:
    assert (await search(1, 10, set())).first_bad is None
    found = await search(5, 10, set(range(11)))
    assert (found.first_bad, found.bad_before) == (None, True)
