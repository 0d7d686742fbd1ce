"""Growing the tree over stored leaf hashes and storing signed checkpoints of it.

Everything here runs on the thread of the log's one writing connection, between two batches.
"""

import logging
import sqlite3
from collections.abc import Sequence
from typing import Final

from eventstore.errors import LogCorrupt, NoteRejected, SignatureUntrusted
from eventstore.merkle import HASH_BYTES, Frontier
from eventstore.note import Checkpoint, Signer, open_checkpoint

logger = logging.getLogger(__name__)

GROW_EVENTS_MAX: Final = 1024
"""Leaves added in one visit to the connection: some two milliseconds that an append may wait."""

SELECT_NEWEST: Final = "SELECT size, root, peaks, note FROM checkpoints ORDER BY size DESC LIMIT 1"
SELECT_LEAVES: Final = (
    "SELECT leaf_hash FROM event_record WHERE position > ? ORDER BY position LIMIT ?"
)
SELECT_HEAD: Final = "SELECT coalesce(max(position), 0) FROM event_record"
INSERT: Final = (
    "INSERT INTO checkpoints (size, root, peaks, note, sealed_at_ns) VALUES (?, ?, ?, ?, ?)"
)


class Sealer:
    """The tree of one log, as far as it has been looked at.

    It goes on from the peaks of the newest checkpoint, never from older rows: so what it signs
    always extends what was signed before, whatever happened to the rows in between.

    Args:
        raw: The log's writing connection.
        path: The log's file.
        signer: The key.

    Raises:
        LogCorrupt: The newest checkpoint contradicts itself or its signature, or covers more events
            than there are: the file was rolled back or altered.
    """

    def __init__(self, raw: sqlite3.Connection, path: str, signer: Signer) -> None:
        self._raw = raw
        self._path = path
        self._signer = signer
        self._frontier = self._resume()
        self.sealed = self._frontier.size

    def advance(self, at_ns: int, extensions: Sequence[str] = (), *, durable: bool) -> bool:
        """Take in what was stored since, and store a signed checkpoint once all of it is.

        Args:
            at_ns: Wall clock, nanoseconds since 1970.
            extensions: Further lines of the note.
            durable: Wait for the disk. Without, a power cut may lose the checkpoint, though never
                an event: what it covers is durable, and the next one covers it again.

        Returns:
            Whether there was too much for one visit: come again.

        Raises:
            sqlite3.Error: The checkpoint was not stored.
        """
        rows = self._raw.execute(SELECT_LEAVES, (self._frontier.size, GROW_EVENTS_MAX)).fetchall()
        for (leaf,) in rows:
            self._frontier.append(leaf)
        if len(rows) == GROW_EVENTS_MAX:
            return True
        if self._frontier.size > self.sealed:
            self._store(at_ns, extensions, durable)
        return False

    def _store(self, at_ns: int, extensions: Sequence[str], durable: bool) -> None:
        frontier = self._frontier
        root = frontier.root()
        note = self._signer.sign(
            Checkpoint(
                origin=self._signer.name,
                size=frontier.size,
                root=root,
                extensions=tuple(extensions),
            )
        )
        row = (frontier.size, root, b"".join(frontier.peaks), note, at_ns)
        if durable:
            self._raw.execute(INSERT, row)
        else:
            self._insert_without_sync(row)
        self.sealed = frontier.size

    def _insert_without_sync(self, row: tuple[object, ...]) -> None:
        # An append that comes now must not wait for a sync that nobody needs. The WAL stays in
        # order, so the next append's sync makes this row durable too.
        # Source: sqlite.org/pragma.html, synchronous: NORMAL in WAL mode.
        self._raw.execute("PRAGMA synchronous = NORMAL")
        try:
            self._raw.execute(INSERT, row)
        finally:
            self._raw.execute("PRAGMA synchronous = FULL")

    def _resume(self) -> Frontier:
        row = self._raw.execute(SELECT_NEWEST).fetchone()
        if row is None:
            return Frontier()
        size, root, peaks, note = row
        head = int(self._raw.execute(SELECT_HEAD).fetchone()[0])
        if head < size:
            raise LogCorrupt(
                self._path, f"is sealed up to position {size}, but ends at {head}: events were lost"
            )
        self._check_note(note, size, root)
        try:
            frontier = Frontier(
                size, [peaks[at : at + HASH_BYTES] for at in range(0, len(peaks), HASH_BYTES)]
            )
        except ValueError as error:
            raise self._broken(size, str(error)) from error
        if frontier.root() != root:
            raise self._broken(size, "its peaks do not give its root")
        return frontier

    def _check_note(self, note: str, size: int, root: bytes) -> None:
        try:
            told = open_checkpoint(note, [self._signer.verifier])
        except SignatureUntrusted as error:
            # Another key's, as after a change of keys: this one cannot judge it.
            logger.warning("seal.other_key size=%d reason=%s", size, error)
            return
        except NoteRejected as error:
            raise self._broken(size, str(error)) from error
        if (told.size, told.root) != (size, root):
            raise self._broken(size, "its note is about another one")

    def _broken(self, size: int, problem: str) -> LogCorrupt:
        return LogCorrupt(self._path, f"checkpoint {size}: {problem}")
