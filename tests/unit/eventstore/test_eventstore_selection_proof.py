"""Selection proofs: any leaves at once, against the definition of the tree."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.merkle import (
    inclusion_ranges,
    prove,
    selection_ranges,
    selection_root,
    tree_root,
)

LEAVES = [hashlib.sha256(b"\x00%d" % number).digest() for number in range(40)]


def proof_of(indices: list[int], size: int) -> tuple[bytes, ...]:
    return prove(selection_ranges(indices, size), lambda begin, end: LEAVES[begin:end])


@st.composite
def selections(draw: st.DrawFn) -> tuple[list[int], int]:
    size = draw(st.integers(1, len(LEAVES)))
    return sorted(draw(st.sets(st.integers(0, size - 1), min_size=1))), size


@given(selections())
def test_it_gives_the_root(case: tuple[list[int], int]) -> None:
    indices, size = case
    root = selection_root({at: LEAVES[at] for at in indices}, size, proof_of(indices, size))
    assert root == tree_root(LEAVES[:size])


@given(selections(), st.data())
def test_nothing_else_does(case: tuple[list[int], int], data: st.DataObject) -> None:
    indices, size = case
    leaves, proof = {at: LEAVES[at] for at in indices}, list(proof_of(indices, size))
    wrong = hashlib.sha256(b"wrong").digest()
    match data.draw(st.sampled_from(["leaf", "hash", "shorter", "longer", "index"])):
        case "leaf":
            leaves[data.draw(st.sampled_from(indices))] = wrong
        case "hash" if proof:
            proof[data.draw(st.integers(0, len(proof) - 1))] = wrong
        case "shorter" if proof:
            proof.pop()
        case "index" if len(indices) < size:
            moved = data.draw(st.sampled_from(sorted(set(range(size)) - set(indices))))
            leaves[moved] = leaves.pop(indices[0])
        case _:
            proof.append(wrong)
    assert selection_root(leaves, size, proof) != tree_root(LEAVES[:size])


@pytest.mark.parametrize("size", [1, 2, 7, 8, 40])
def test_of_one_leaf_it_is_its_inclusion_proof_in_order(size: int) -> None:
    for index in range(size):
        assert selection_ranges([index], size) == sorted(inclusion_ranges(index, size))


@pytest.mark.parametrize("indices", [[], [3, 2], [2, 2], [-1], [5]])
def test_what_is_no_selection(indices: list[int]) -> None:
    with pytest.raises(ValueError, match="leaves"):
        selection_ranges(indices, 5)
    assert selection_root(dict.fromkeys(indices, b""), 2, ()) is None
