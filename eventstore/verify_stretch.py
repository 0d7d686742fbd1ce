"""Checking a stretch of a log, without reading what lies before it.

A checkpoint keeps the roots of the complete subtrees below it, so the tree can go on from there: if
that, with the leaves up to a later checkpoint, gives what was signed then, the leaves between are
those that were. A stretch is therefore widened to the checkpoints around it.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from eventstore.merkle import HASH_BYTES, Frontier
from eventstore.note import Verifier
from eventstore.verification import (
    LOWEST,
    Evidence,
    Finding,
    Outcome,
    Progress,
    StoredCheckpoint,
    StoredEvent,
    Verification,
)
from eventstore.walk import Walk, decode_digests, has_peaks

PROGRESS_EVENTS: Final = 1024
STREAM, VERSION = 1, 2
"""Places in the fields of an event. Source: eventstore.canonical."""


def verify_stretch(
    evidence: Evidence,
    first: int,
    last: int,
    *,
    trusted: Sequence[Verifier] = (),
    progress: Progress | None = None,
) -> Verification:
    """Check some events of a log; see :func:`eventstore.verify_log_stretch`."""
    covering = evidence.checkpoint_from(last)
    before = evidence.checkpoint_before(first)
    tree = _tree_at(before)
    head = last if covering is None else max(covering.size, last)
    walk, seen = Walk(evidence, trusted, (), head, head, tree), _Seen()
    begun = tree.size
    for stored in evidence.events(head, begun or LOWEST):
        walk.take(stored)
        seen.take(stored)
        if progress is not None and stored.position % PROGRESS_EVENTS == 0:
            progress(stored.position - begun, head - begun)
    walk.finish(seen.wrong_versions, seen.documents(evidence))
    findings = [walk.sequence_finding(), walk.content_finding()]
    if walk.checkpoints:
        findings += [walk.tree_finding(), walk.signature_finding()]
    return Verification(
        findings=(
            *findings,
            *_unsealed(covering, first, max(walk.newest, begun), last),
            _range_finding(begun + 1, head),
        ),
        first=begun + 1,
        head=head,
        sealed=walk.sealed,
        unproven=(
            "That what was recorded is true.",
            f"Anything about events before #{begun + 1} and after #{head}.",
            "That nobody who has the signing key rewrote it.",
        ),
    )


def _tree_at(before: StoredCheckpoint | None) -> Frontier:
    """The tree that a checkpoint leaves; an empty one, to begin anew with, if it is no good."""
    if before is None or not has_peaks(before) or not isinstance(before.peaks, bytes):
        return Frontier()
    peaks = before.peaks
    parts = [peaks[at : at + HASH_BYTES] for at in range(0, len(peaks), HASH_BYTES)]
    return Frontier(before.size, parts)


def _unsealed(
    covering: StoredCheckpoint | None, first: int, newest: int, last: int
) -> tuple[Finding, ...]:
    if covering is not None:
        return ()
    text = f"#{max(first, newest + 1)} to #{last} are not sealed yet: nothing covers them"
    return (Finding(layer="tail", outcome=Outcome.SKIP, text=text),)


def _range_finding(first: int, last: int) -> Finding:
    text = (
        f"only #{first} to #{last}, from one checkpoint to the next, were looked at; not the file "
        "as a whole, not what else the log has, no history, no state"
    )
    return Finding(layer="range", outcome=Outcome.INFO, text=text)


class _Seen:
    """What a stretch says of its streams, and the documents that it names."""

    def __init__(self) -> None:
        self.wrong_versions: list[tuple[int, str]] = []
        self._versions: dict[bytes | None, int] = {}
        self._digests: dict[str, None] = {}

    def take(self, stored: StoredEvent) -> None:
        stream, told = stored.fields[STREAM], stored.fields[VERSION]
        version = int(told or 0)
        before = self._versions.get(stream, version - 1)
        if version != before + 1:
            text = f"#{stored.position} has version {version} after {before}"
            self.wrong_versions.append((stored.position, text))
        self._versions[stream] = version
        if stored.documents is not None:
            try:
                self._digests.update(dict.fromkeys(decode_digests(stored.documents)))
            except msgspec.MsgspecError:
                return  # which the walk has noted

    def documents(self, evidence: Evidence) -> Iterator[tuple[str, bytes]]:
        for digest in self._digests:
            body = evidence.document(digest)
            if body is not None:  # what is missing the walk has noted
                yield digest, body
