"""The tree of RFC 6962: known roots, and every proof against the recursive definitions."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_holds,
    consistency_ranges,
    inclusion_holds,
    inclusion_ranges,
    prove,
    tree_root,
)

# The leaves and roots that implementations of Certificate Transparency test themselves with.
KNOWN_LEAVES = [
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]  # fmt: skip
KNOWN_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def leaf(content: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + content).digest()


def leaves_of(count: int) -> list[bytes]:
    return [leaf(b"%d" % index) for index in range(count)]


def split(count: int) -> int:
    power = 1
    while power * 2 < count:
        power *= 2
    return power


def mth(leaves: list[bytes]) -> bytes:
    """Section 2.1 of the RFC, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return hashlib.sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """Section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """Section 2.1.2."""
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


@pytest.mark.parametrize(("size", "root"), list(enumerate(KNOWN_ROOTS)))
def test_known_roots(size: int, root: str) -> None:
    leaves = [leaf(bytes.fromhex(content)) for content in KNOWN_LEAVES[:size]]
    assert tree_root(leaves).hex() == root


def test_known_proofs() -> None:
    """Values published in RFC 6962, section 2.1.3, by their names: leaves d0 to d6."""
    d = leaves_of(7)
    a, b, c, e, f, j = d[0], d[1], d[2], d[3], d[4], d[6]
    g, h, i = mth([a, b]), mth([c, e]), mth([f, d[5]])
    k = mth(d[:4])
    assert prove(inclusion_ranges(0, 7), lambda x, y: d[x:y]) == (b, h, mth(d[4:]))
    assert prove(inclusion_ranges(3, 7), lambda x, y: d[x:y]) == (c, g, mth(d[4:]))
    assert prove(inclusion_ranges(6, 7), lambda x, y: d[x:y]) == (i, k)
    assert prove(consistency_ranges(3, 7), lambda x, y: d[x:y]) == (c, e, g, mth(d[4:]))
    assert prove(consistency_ranges(4, 7), lambda x, y: d[x:y]) == (mth(d[4:]),)
    assert prove(consistency_ranges(6, 7), lambda x, y: d[x:y]) == (i, j, k)


@given(st.integers(0, 300))
def test_growing_gives_the_root_of_the_definition(size: int) -> None:
    leaves = leaves_of(size)
    frontier = Frontier()
    for index, each in enumerate(leaves):
        assert frontier.size == index
        frontier.append(each)
    assert frontier.root() == mth(leaves)
    assert Frontier(size, frontier.peaks).root() == mth(leaves)


@given(st.data(), st.integers(1, 130))
def test_inclusion(data: st.DataObject, size: int) -> None:
    leaves, index = leaves_of(size), data.draw(st.integers(0, size - 1))
    proof = prove(inclusion_ranges(index, size), lambda begin, end: leaves[begin:end])
    assert list(proof) == path(index, leaves)
    root = mth(leaves)

    def holds(**changed: object) -> bool:
        told = {"leaf": leaves[index], "index": index, "size": size, "root": root, "proof": proof}
        return inclusion_holds(**(told | changed))  # type: ignore[arg-type]  # as its caller gave it

    assert holds()
    assert not holds(leaf=leaf(b"another"))
    assert not holds(root=leaf(b"another"))
    assert not holds(proof=(*proof, root))
    assert not holds(index=-1)
    assert not holds(index=size)
    other = data.draw(st.integers(0, size - 1))
    assert holds(index=other) is (other == index)
    if proof:
        assert not holds(proof=proof[:-1])
        cut = data.draw(st.integers(0, len(proof) - 1))
        assert not holds(proof=(*proof[:cut], leaf(b"x"), *proof[cut + 1 :]))


@given(st.data(), st.integers(1, 130))
def test_consistency(data: st.DataObject, size: int) -> None:
    leaves, old_size = leaves_of(size), data.draw(st.integers(1, size))
    proof = prove(consistency_ranges(old_size, size), lambda begin, end: leaves[begin:end])
    assert list(proof) == subproof(old_size, leaves, True)
    old_root, root = mth(leaves[:old_size]), mth(leaves)

    def holds(**changed: object) -> bool:
        told = {"old_size": old_size, "old_root": old_root, "size": size, "root": root}
        return consistency_holds(**({**told, "proof": proof} | changed))  # type: ignore[arg-type]  # as its caller gave it

    assert holds()
    assert not holds(old_root=leaf(b"another"))
    assert not holds(root=leaf(b"another"))
    assert not holds(proof=(*proof, root))
    assert not holds(old_size=0)
    assert not holds(old_size=size + 1)
    if proof:
        assert not holds(proof=proof[:-1])
        assert not holds(proof=())
        cut = data.draw(st.integers(0, len(proof) - 1))
        assert not holds(proof=(*proof[:cut], leaf(b"x"), *proof[cut + 1 :]))


@pytest.mark.parametrize(("index", "size"), [(0, 0), (-1, 3), (3, 3)])
def test_no_such_leaf(index: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"has no leaf {index}"):
        inclusion_ranges(index, size)


@pytest.mark.parametrize(("old_size", "size"), [(0, 0), (0, 3), (4, 3)])
def test_no_such_tree(old_size: int, size: int) -> None:
    with pytest.raises(ValueError, match="no proof leads"):
        consistency_ranges(old_size, size)


def test_peaks_must_fit_the_size() -> None:
    assert Frontier().root() == EMPTY_ROOT
    with pytest.raises(ValueError, match="a tree of 3 leaves has 2 peaks, not 1"):
        Frontier(3, [leaf(b"")])
