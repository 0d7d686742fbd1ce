"""The Merkle tree over the leaf hashes: roots, and proofs that need only a few of its hashes.

::

    root({})   = SHA-256()
    root({d})  = d                                  d is a leaf hash already
    root(D)    = SHA-256(0x01 ‖ root(D[0:k]) ‖ root(D[k:n]))    k: largest power of two below n

An *inclusion proof* shows that a leaf is in a tree, a *consistency proof* that a tree begins with
all leaves of a smaller one, in the same order. Both are lists of roots of ranges of leaves; what
ranges those are depends on sizes alone, so a log of any length makes a proof by reading leaf hashes
in order and keeps no more than 64 of them.

A *selection proof* shows of any number of leaves at once that they are in a tree, each at its
index: the roots of all that lies beside them, left to right. For one leaf these are the hashes of
its inclusion proof in another order; for neighbours they are no more than for one.

Source: RFC 6962, section 2.1; RFC 9162, sections 2.1.3 and 2.1.4, for the verification.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

HASH_BYTES: Final = 32
NODE_PREFIX: Final = b"\x01"
"""Keeps an inner node from being taken for a leaf. Source: RFC 6962, section 2.1."""
EMPTY_ROOT: Final = hashlib.sha256().digest()

LeafRange: TypeAlias = tuple[int, int]
"""Leaves ``begin`` to ``end - 1``, counted from 0: the event at position n is leaf n - 1."""


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(NODE_PREFIX + left + right).digest()


class Frontier:
    """A tree that grows at its end, by the roots of its complete subtrees: at most 64 hashes.

    Args:
        size: Leaves so far.
        peaks: Roots of the complete subtrees, widest first: one for each bit that is set in size.

    Raises:
        ValueError: The number of peaks is not that of ``size``'s set bits.
    """

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self._size = size
        self._peaks = list(peaks)
        if len(self._peaks) != size.bit_count():
            raise ValueError(
                f"a tree of {size} leaves has {size.bit_count()} peaks, not {len(self._peaks)}"
            )

    @property
    def size(self) -> int:
        """Leaves so far."""
        return self._size

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """What the constructor takes."""
        return tuple(self._peaks)

    def append(self, leaf: bytes) -> None:
        """Add one leaf, by its leaf hash."""
        carried = self._size
        while carried & 1:
            leaf = node_hash(self._peaks.pop(), leaf)
            carried >>= 1
        self._peaks.append(leaf)
        self._size += 1

    def root(self) -> bytes:
        """The root as of now, 32 bytes."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


def tree_root(leaves: Iterable[bytes]) -> bytes:
    """The root of the tree over these leaf hashes."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def inclusion_ranges(index: int, size: int) -> list[LeafRange]:
    """The ranges whose roots prove that leaf ``index`` is in the tree of ``size`` leaves.

    Raises:
        ValueError: There is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    ranges: list[LeafRange] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin = middle
    return ranges[::-1]


def consistency_ranges(old_size: int, size: int) -> list[LeafRange]:
    """The ranges whose roots prove that a tree of ``size`` leaves extends that of ``old_size``.

    Raises:
        ValueError: The old tree is larger, or empty: everything extends an empty tree.
    """
    if not 0 < old_size <= size:
        raise ValueError(f"no proof leads from a tree of {old_size} leaves to one of {size}")
    ranges: list[LeafRange] = []
    begin, end = 0, size
    while end != old_size:
        middle = begin + _split(end - begin)
        if old_size <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin = middle
    if begin:
        ranges.append((begin, end))  # else it is the old root, which the verifier has
    return ranges[::-1]


def prove(
    ranges: Iterable[LeafRange], leaves: Callable[[int, int], Iterable[bytes]]
) -> tuple[bytes, ...]:
    """Make a proof of its ranges.

    Args:
        ranges: Of :func:`inclusion_ranges` or :func:`consistency_ranges`.
        leaves: Gives the leaf hashes of a range.
    """
    return tuple(tree_root(leaves(begin, end)) for begin, end in ranges)


def inclusion_holds(
    *, leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether a proof shows that ``leaf`` is at ``index`` in the tree with that size and root.

    Source: RFC 9162, section 2.1.3.2.
    """
    if not 0 <= index < size:
        return False
    node, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            node, last = _skip_to_left_child(node, last)
        else:
            found = node_hash(found, sibling)
        node >>= 1
        last >>= 1
    return last == 0 and found == root


def consistency_holds(
    *, old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether a proof shows that the new tree begins with all leaves of the old one.

    Source: RFC 9162, section 2.1.4.2.
    """
    if not 0 < old_size <= size:
        return False
    if old_size == size:
        return not proof and old_root == root
    path = list(proof)
    if old_size.bit_count() == 1:
        path.insert(0, old_root)
    if not path:
        return False
    node, last = old_size - 1, size - 1
    while node & 1:
        node >>= 1
        last >>= 1
    old_found = found = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old_found = node_hash(sibling, old_found)
            found = node_hash(sibling, found)
            node, last = _skip_to_left_child(node, last)
        else:
            found = node_hash(found, sibling)
        node >>= 1
        last >>= 1
    return last == 0 and old_found == old_root and found == root


def selection_ranges(indices: Sequence[int], size: int) -> list[LeafRange]:
    """The ranges whose roots prove that these leaves are in the tree of ``size`` leaves.

    Args:
        indices: At least one, rising.
        size: Leaves in the tree.

    Raises:
        ValueError: There is no such leaf, or they do not rise.
    """
    if not indices or list(indices) != sorted(set(indices)):
        raise ValueError("a selection names each of its leaves once, in order")
    if indices[0] < 0 or indices[-1] >= size:
        raise ValueError(f"a tree of {size} leaves has no leaves {indices[0]} to {indices[-1]}")
    return list(_beside(indices, 0, size))


def _beside(indices: Sequence[int], begin: int, end: int) -> Iterator[LeafRange]:
    first = bisect_left(indices, begin)
    if first == len(indices) or indices[first] >= end:
        yield (begin, end)
    elif bisect_left(indices, end) - first < end - begin:  # else all of them are selected
        middle = begin + _split(end - begin)
        yield from _beside(indices, begin, middle)
        yield from _beside(indices, middle, end)


def selection_root(leaves: Mapping[int, bytes], size: int, proof: Sequence[bytes]) -> bytes | None:
    """The root that selected leaves, by index, and a selection proof give; None if they do not fit.

    Whoever compares it with the root of a checkpoint knows that each leaf is at its index.
    """
    try:
        ranges = selection_ranges(sorted(leaves), size)
    except ValueError:
        return None
    if len(ranges) != len(proof):
        return None
    given = dict(zip(ranges, proof, strict=True))

    def root(begin: int, end: int) -> bytes:
        if (begin, end) in given:
            return given[begin, end]
        if end - begin == 1:
            return leaves[begin]
        middle = begin + _split(end - begin)
        return node_hash(root(begin, middle), root(middle, end))

    return root(0, size)


def _split(count: int) -> int:
    """The largest power of two that is smaller than ``count``, which is 2 or more."""
    return 1 << ((count - 1).bit_length() - 1)


def _skip_to_left_child(node: int, last: int) -> tuple[int, int]:
    """Go up from a right edge to where a sibling on the left is next."""
    while node and not node & 1:
        node >>= 1
        last >>= 1
    return node, last
