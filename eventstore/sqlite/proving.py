"""Proofs made from a log's file, by reading leaf hashes in order."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from eventstore.envelope import Document
from eventstore.errors import (
    CheckpointStale,
    LimitExceeded,
    LogCorrupt,
    NoteRejected,
    SignatureAbsent,
)
from eventstore.merkle import (
    HASH_BYTES,
    consistency_holds,
    consistency_ranges,
    prove,
    selection_ranges,
    selection_root,
)
from eventstore.note import Checkpoint, read_checkpoint
from eventstore.proof import Consistency, EventProof, ProvedEvent
from eventstore.sqlite.evidence import FileEvidence
from eventstore.sqlite.reading import read_log_file

PROVED_EVENTS_MAX: Final = 100_000
"""Events of one proof: all of them are in memory, and in one text."""
CHUNK_LEAVES: Final = 16_384
SELECT_LEAVES: Final = (
    "SELECT position, leaf_hash FROM event_record WHERE position > ? AND position <= ? "
    "ORDER BY position LIMIT ?"
)
SELECT_EVENT: Final = (
    "SELECT position, stream, version, type, event_id, recorded_at_ns, correlation_id, causation, "
    "actor, data FROM events WHERE position = ?"
)
SELECT_DIGESTS: Final = "SELECT digest FROM event_documents WHERE position = ? ORDER BY ordinal"
SELECT_DOCUMENT: Final = "SELECT media_type, body FROM documents WHERE digest = ?"


def prove_events(
    path: str | os.PathLike[str],
    positions: Sequence[int],
    *,
    since: Checkpoint | None = None,
    documents: bool = False,
) -> EventProof:
    """Show to somebody without the log that events are in it, under its newest checkpoint.

    Args:
        path: The file; also while it is being written.
        positions: Rising, 1 to PROVED_EVENTS_MAX of them. If they leave nothing out, the proof
            also shows that these are all events between the first and the last.
        since: An older checkpoint, which the newest one is shown to extend.
        documents: With the bodies of the documents that the events name.

    Raises:
        LimitExceeded: Too many events. Prove them in parts.
        ValueError: No positions, or they do not rise from 1 on.
        SignatureAbsent: The log was never sealed. Have a service with a key run on it.
        CheckpointStale: The last position is not sealed yet. Wait for the next seal.
        NoteRejected: ``since`` is of another history.
        LogCorrupt: What is stored does not give the checkpoint's root: verify the log.
        LogNotFound: No such file.
        LogUnusable: It cannot be read.
        StoreBusy: Another program holds the file. Try again.

    Runs on the caller's thread for about 1.5 s for each million events of the log.
    """
    if len(positions) > PROVED_EVENTS_MAX:
        raise LimitExceeded("the events of a proof", len(positions), PROVED_EVENTS_MAX)
    if not positions or positions[0] < 1 or any(one >= two for one, two in pairwise(positions)):
        raise ValueError("a proof is of one position or more, which rise from 1 on")
    name = os.path.realpath(path)
    return read_log_file(name, lambda raw: _Prover(raw, name).make(positions, since, documents))


class _Prover:
    def __init__(self, raw: sqlite3.Connection, path: str) -> None:
        self._raw = raw
        self._path = path

    def make(
        self, positions: Sequence[int], since: Checkpoint | None, documents: bool
    ) -> EventProof:
        note = FileEvidence(self._raw, self._path).newest_note()
        if note is None:
            raise SignatureAbsent
        head = read_checkpoint(note)
        head.require(positions[-1])
        ranges = selection_ranges([position - 1 for position in positions], head.size)
        events = tuple(map(self._event, positions))
        hashes = prove(ranges, self._leaves)
        leaves = {each.position - 1: each.leaf_hash() for each in events}
        if selection_root(leaves, head.size, hashes) != head.root:
            raise LogCorrupt(
                self._path, f"its events do not give the root of checkpoint #{head.size}: verify it"
            )
        return EventProof(
            events=events,
            size=head.size,
            hashes=hashes,
            note=note.decode(),
            consistency=None if since is None else self._consistency(since, head),
            documents=self._documents(events) if documents else (),
        )

    def _consistency(self, since: Checkpoint, head: Checkpoint) -> Consistency:
        if since.size > head.size:
            raise CheckpointStale(head.size, since.size)
        if since.size == 0:
            return Consistency(size=0, hashes=())
        hashes = prove(consistency_ranges(since.size, head.size), self._leaves)
        if not consistency_holds(
            old_size=since.size, old_root=since.root, size=head.size, root=head.root, proof=hashes
        ):
            raise NoteRejected(
                f"the log does not extend the given checkpoint #{since.size}: its history was "
                "rewritten, or the checkpoint is of another log"
            )
        return Consistency(size=since.size, hashes=hashes)

    def _leaves(self, begin: int, end: int) -> Iterator[bytes]:
        expected = begin + 1
        while expected <= end:
            rows = self._raw.execute(SELECT_LEAVES, (expected - 1, end, CHUNK_LEAVES)).fetchall()
            if not rows:
                raise LogCorrupt(self._path, f"#{expected} is missing")
            for position, leaf in rows:
                if position != expected or not isinstance(leaf, bytes) or len(leaf) != HASH_BYTES:
                    raise LogCorrupt(self._path, f"#{expected} is missing, or has no leaf hash")
                yield leaf
                expected += 1

    def _event(self, position: int) -> ProvedEvent:
        row = self._raw.execute(SELECT_EVENT, (position,)).fetchone()
        if row is None:
            raise LogCorrupt(self._path, f"#{position} is missing")
        digests = tuple(row[0] for row in self._raw.execute(SELECT_DIGESTS, (position,)))
        columns = dict(zip(ProvedEvent.__struct_fields__, (*row, digests), strict=True))
        return ProvedEvent(**columns)

    def _documents(self, events: Sequence[ProvedEvent]) -> tuple[Document, ...]:
        digests = dict.fromkeys(digest for event in events for digest in event.documents)
        return tuple(map(self._document, digests))

    def _document(self, digest: str) -> Document:
        row = self._raw.execute(SELECT_DOCUMENT, (digest,)).fetchone()
        found = None if row is None else Document(media_type=row[0], body=bytes(row[1]))
        if found is None or found.digest != digest:
            raise LogCorrupt(self._path, f"document {digest} is missing or was changed")
        return found
