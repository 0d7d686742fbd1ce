"""One pass over the rows of a log in order, in memory that does not grow with the log.

Nothing in the file is believed because the file says so: leaf hashes are computed from the stored
columns, roots from the leaf hashes, and only a signature by a key that the *caller* brought makes a
root count.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from eventstore.canonical import encode_fields, hash_leaf
from eventstore.envelope import DIGEST_PREFIX
from eventstore.errors import NoteRejected, SignatureUntrusted
from eventstore.merkle import EMPTY_ROOT, HASH_BYTES, Frontier
from eventstore.note import Checkpoint, Verifier, open_checkpoint, read_checkpoint
from eventstore.verification import (
    LOWEST,
    Evidence,
    Finding,
    Outcome,
    StoredCheckpoint,
    StoredEvent,
)

decode_digests: Final = msgspec.json.Decoder(tuple[str, ...]).decode
"""Reads the list of documents that a row has."""
_encode: Final = msgspec.json.Encoder().encode


class _Faults:
    """What is wrong in one layer."""

    def __init__(self) -> None:
        self.first: str = ""
        self.first_bad: int | None = None
        self.count = 0

    def add(self, position: int, text: str) -> None:
        if not self.count or (self.first_bad is not None and position < self.first_bad):
            self.first, self.first_bad = text, position
        self.count += 1

    def finding(self, layer: str, passed: str) -> Finding:
        if not self.count:
            return Finding(layer=layer, outcome=Outcome.PASS, text=passed)
        text = self.first + (f" (first of {self.count})" if self.count > 1 else "")
        return Finding(layer=layer, outcome=Outcome.FAIL, text=text, first_bad=self.first_bad)


class Walk:
    """The pass over the rows, with the checkpoints beside them.

    Args:
        evidence: The log.
        trusted: Keys whose checkpoints count.
        pinned: Checkpoints that were kept elsewhere.
        newest: The size of the last checkpoint that is looked at.
        head: The last position that is.
        before: The tree before the first one; empty if absent.

    Attributes:
        checkpoints: How many were looked at.
        newest: The size of the last of them.
        sealed: The size of the last one that is right and signed by a key that is trusted.
    """

    def __init__(
        self,
        evidence: Evidence,
        trusted: Sequence[Verifier],
        pinned: Sequence[Checkpoint],
        newest: int,
        head: int,
        before: Frontier | None = None,
    ) -> None:
        self._evidence = evidence
        self._trusted = trusted
        self._pinned = pinned
        self._sizes_pinned = {each.size for each in pinned}
        self._roots_at: dict[int, bytes] = {0: EMPTY_ROOT}
        self._head = head
        self._frontier = before or Frontier()
        begun = self._frontier.size
        self._first = begun + 1
        self._left = evidence.checkpoints(newest, begun or LOWEST)
        self._next = next(self._left, None)
        self._whole = True  # no position is missing so far, so there is a tree
        self._expected = begun + 1
        self._good = begun  # size of the last checkpoint whose root was right
        self._sequence, self._content, self._tree, self._signature = (_Faults() for _ in range(4))
        self._signed = self._foreign = 0
        self.checkpoints = 0
        self.newest = 0
        self._origins: set[str] = set()
        self.sealed = 0

    def take(self, stored: StoredEvent) -> None:
        """Look at the next row, and at the checkpoints that end with it."""
        position = stored.position
        if position != self._expected:
            self._sequence.add(self._expected, f"#{self._expected} is missing, #{position} follows")
            self._whole = False
        self._expected = position + 1
        self._check_content(stored)
        leaf = stored.leaf_hash
        if not isinstance(leaf, bytes) or len(leaf) != HASH_BYTES:
            self._tree.add(position, f"#{position} has no leaf hash of {HASH_BYTES} bytes")
            self._whole = False
        elif self._whole:
            self._frontier.append(leaf)
        if position in self._sizes_pinned:
            self._roots_at[position] = self._frontier.root()
        while self._next is not None and self._next.size <= position:
            self._check_checkpoint(self._next)
            self._next = next(self._left, None)

    def finish(
        self, wrong_versions: Iterable[tuple[int, str]], documents: Iterable[tuple[str, bytes]]
    ) -> None:
        """Look at what needs no rows: later checkpoints, versions, document bodies.

        Args:
            wrong_versions: Where they are not one after the other, and in which way.
            documents: Digests and bodies.
        """
        while self._next is not None:
            self._check_checkpoint(self._next)
            self._next = next(self._left, None)
        for position, text in wrong_versions:
            self._sequence.add(position, text)
        for digest, body in documents:
            found = DIGEST_PREFIX + hashlib.sha256(body).hexdigest()
            if found != digest:
                position = self._evidence.first_with_document(digest) or 1
                self._content.add(
                    position, f"the body of document {digest}, first of #{position}, is {found}"
                )

    def _check_content(self, stored: StoredEvent) -> None:
        position = stored.position
        digests: tuple[str, ...] = ()
        if stored.documents is not None:
            try:
                digests = decode_digests(stored.documents)
            except msgspec.MsgspecError:
                self._content.add(position, f"#{position}: its list of documents is not one")
                return
            if not digests or _encode(digests) != stored.documents:
                self._content.add(position, f"#{position}: its list of documents was rewritten")
        found = hash_leaf(encode_fields((*stored.fields, *(each.encode() for each in digests))))
        if found != stored.leaf_hash:
            self._content.add(
                position,
                f"#{position}: the stored columns hash to {_short(found)}, its leaf is "
                f"{_short(stored.leaf_hash)}",
            )
        for digest in digests:
            if not self._evidence.has_document(digest):
                self._content.add(position, f"#{position}: its document {digest} is missing")

    def _check_checkpoint(self, stored: StoredCheckpoint) -> None:
        self.checkpoints += 1
        self.newest = stored.size
        origin = ""
        right_root = self._check_root(stored)
        try:
            origin = read_own_note(stored).origin
            self._origins.add(origin)
            if self._trusted:
                open_checkpoint(stored.note, self._trusted)
                self._signed += 1
                if right_root:
                    self.sealed = stored.size
        except SignatureUntrusted as error:
            self._foreign += 1
            if origin in {key.name for key in self._trusted}:
                text = f"checkpoint #{stored.size} has a trusted key's name, but: {error}"
                self._signature.add(stored.size, text)
        except NoteRejected as error:
            self._signature.add(stored.size, f"checkpoint #{stored.size}: {error}")
        if not has_peaks(stored):
            self._tree.add(self._good + 1, f"the peaks of checkpoint #{stored.size} are wrong")

    def _check_root(self, stored: StoredCheckpoint) -> bool:
        where = f"checkpoint #{stored.size}"
        if stored.size > self._head:
            self._tree.add(
                self._head + 1,
                f"{where} covers events after #{self._head}, where the log ends: events were cut",
            )
        elif not self._whole or self._frontier.size != stored.size:
            self._tree.add(
                self._good + 1, f"the root of {where} cannot be computed: rows are missing"
            )
        elif self._frontier.root() != stored.root:
            self._tree.add(
                self._good + 1,
                f"the events do not give the root of {where}: something in #{self._good + 1} "
                f"to #{stored.size} was changed since",
            )
        else:
            self._good = stored.size
            return True
        return False

    def sequence_finding(self) -> Finding:
        """Positions and versions."""
        passed = f"#{self._first} to #{self._head} without gaps" if self._head else "no events"
        return self._sequence.finding("sequence", passed)

    def content_finding(self) -> Finding:
        """Columns and documents against leaf hashes."""
        count = f"{self._head - self._first + 1:,}"
        return self._content.finding("content", f"{count} of {count} events hash to their leaves")

    def tree_finding(self) -> Finding:
        """Leaf hashes against roots."""
        passed = f"the roots of all {self.checkpoints:,} checkpoints, to #{self._good}"
        if self.checkpoints or self._tree.count:
            return self._tree.finding("tree", passed)
        return Finding(layer="tree", outcome=Outcome.SKIP, text="the log was never sealed")

    def signature_finding(self) -> Finding:
        """Roots against keys."""
        if self._signature.count:
            return self._signature.finding("signature", "")
        names = ", ".join(map(str, self._trusted))
        if not self.checkpoints:
            text = "there is no checkpoint"
        elif not self._trusted:
            text = "no verifier key was given: anybody can have made the checkpoints"
        elif not self._signed:
            text = (
                f"none of {self.checkpoints:,} checkpoints is signed by {names}: it is the wrong "
                "key, or the log was made anew"
            )
        else:
            others = f"; {self._foreign:,} by other keys" if self._foreign else ""
            text = f"{self._signed:,} of {self.checkpoints:,} checkpoints signed by {names}{others}"
            return Finding(layer="signature", outcome=Outcome.PASS, text=text)
        return Finding(layer="signature", outcome=Outcome.SKIP, text=text)

    def history_finding(self) -> Finding:
        """The tree against checkpoints from outside."""
        if not self._pinned:
            text = (
                "no checkpoint from elsewhere was given: whoever has the signing key could have "
                "rewritten everything, anybody could have put back an older copy"
            )
            return Finding(layer="history", outcome=Outcome.SKIP, text=text)
        found = [self._extends(each) for each in self._pinned]
        for outcome in (Outcome.FAIL, Outcome.SKIP):
            if worst := [each for each in found if each.outcome is outcome]:
                return min(worst, key=lambda each: each.first_bad or self._head + 1)
        given = ", ".join(f"#{size}" for size in sorted(self._sizes_pinned))
        text = f"extends the given checkpoint {given}"
        return Finding(layer="history", outcome=Outcome.PASS, text=text)

    def _extends(self, pinned: Checkpoint) -> Finding:
        given = f"the given checkpoint #{pinned.size}"
        if self._roots_at.get(pinned.size) == pinned.root:
            return Finding(layer="history", outcome=Outcome.PASS, text=f"extends {given}")
        if self._origins and pinned.origin not in self._origins:
            text = f"{given} is of log {pinned.origin!r}, this one is {sorted(self._origins)}"
            return Finding(layer="history", outcome=Outcome.SKIP, text=text)
        if pinned.size > self._head:
            text, bad = f"ends at #{self._head}, before {given}: cut or rolled back", self._head + 1
        else:
            text, bad = f"does not extend {given}: its history was rewritten", None
        return Finding(layer="history", outcome=Outcome.FAIL, text=text, first_bad=bad)


def read_own_note(stored: StoredCheckpoint) -> Checkpoint:
    """What the note of a stored checkpoint says, whoever signed it.

    Raises:
        NoteRejected: It is no checkpoint, or one of another tree than its row says.
    """
    told = read_checkpoint(stored.note)
    if (told.size, told.root) != (stored.size, stored.root):
        raise NoteRejected("its note is about another tree")
    return told


def has_peaks(stored: StoredCheckpoint) -> bool:
    """Whether the peaks of a checkpoint give its root."""
    peaks = stored.peaks
    if not isinstance(peaks, bytes) or stored.size < 1:
        return False
    try:
        parts = [peaks[at : at + HASH_BYTES] for at in range(0, len(peaks), HASH_BYTES)]
        return Frontier(stored.size, parts).root() == stored.root
    except ValueError:
        return False


def _short(digest: object) -> str:
    return f"{digest.hex()[:8]}…" if isinstance(digest, bytes) else repr(digest)
