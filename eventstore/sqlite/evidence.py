"""A log's file as evidence: read as it is, to its last byte, believing nothing.

Text is fetched as bytes, so that what is not UTF-8 any more can still be hashed. Reads are short: a
log that is being written may be verified for hours without holding its WAL.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Final, TypeAlias, TypeVar

import msgspec

from eventstore.errors import LogCorrupt, LogIncomplete
from eventstore.limits import POSITION_MAX
from eventstore.note import Checkpoint, Verifier, read_checkpoint
from eventstore.sqlite.completeness import check_whole
from eventstore.sqlite.reading import read_log_file
from eventstore.sqlite.schema import migrations, schema_version
from eventstore.verification import (
    LOWEST,
    Finding,
    Outcome,
    Progress,
    StoredCheckpoint,
    StoredEvent,
    Verification,
)
from eventstore.verify import verify
from eventstore.verify_stretch import verify_stretch

T = TypeVar("T")

EventRow: TypeAlias = tuple[
    int, bytes, int, bytes, bytes, int, bytes, int, bytes, bytes, bytes, object
]
CHUNK_ROWS: Final = 256
SELECT_EVENTS: Final = (
    "SELECT record.position, CAST(stream.name AS BLOB), record.version, "
    "CAST(event_type.name AS BLOB), CAST(record.event_id AS BLOB), record.recorded_at_ns, "
    "CAST(record.correlation_id AS BLOB), record.causation, CAST(record.actor AS BLOB), "
    "CAST(record.data AS BLOB), CAST(record.documents AS BLOB), record.leaf_hash "
    "FROM event_record AS record LEFT JOIN stream ON stream.id = record.stream_id "
    "LEFT JOIN event_type ON event_type.id = record.type_id "
    "WHERE record.position > ? AND record.position <= ? ORDER BY record.position LIMIT ?"
)
CHECKPOINT: Final = "SELECT size, root, peaks, CAST(note AS BLOB) FROM checkpoints"
SELECT_CHECKPOINTS: Final = f"{CHECKPOINT} WHERE size > ? AND size <= ? ORDER BY size LIMIT ?"
# The plus sign keeps SQLite from going by position and sorting all of it.
SELECT_VERSIONS: Final = (
    "SELECT stream_id, version, position FROM event_record "
    "WHERE (stream_id, version) > (?, ?) AND +position <= ? ORDER BY stream_id, version LIMIT ?"
)
SELECT_DOCUMENT: Final = (
    "SELECT CAST(digest AS BLOB), CAST(body AS BLOB), rowid FROM documents "
    "WHERE rowid > ? ORDER BY rowid LIMIT 1"
)
SELECT_SCHEMA: Final = (
    "SELECT type || ' ' || name, quote(type) || quote(name) || quote(tbl_name) || quote(sql) "
    "FROM sqlite_schema WHERE name NOT GLOB 'sqlite_stat*'"
)
Key: TypeAlias = tuple[int, ...]


class FileEvidence:
    """A log's file. Everything runs on the caller's thread."""

    def __init__(self, raw: sqlite3.Connection, path: str) -> None:
        self._raw = raw
        self._path = path

    def problems(self) -> Sequence[str]:
        """As in :class:`eventstore.verification.Evidence`."""
        found = [row[0] for row in self._raw.execute("PRAGMA integrity_check(10)")]
        return [*(each for each in found if each != "ok"), *self._schema_problems()]

    def _schema_problems(self) -> Iterator[str]:
        with closing(sqlite3.connect(":memory:")) as fresh:
            fresh.executescript("\n".join(migrations()[: schema_version(self._raw)]))
            wanted = dict(fresh.execute(SELECT_SCHEMA).fetchall())
        found = dict(self._raw.execute(SELECT_SCHEMA).fetchall())
        for name in sorted(wanted.keys() | found.keys()):
            if name not in found:
                yield f"{name} is missing"
            elif name not in wanted:
                yield f"{name} does not belong into a log"
            elif found[name] != wanted[name]:
                yield f"{name} was changed"

    def newest_checkpoint(self) -> int:
        """As in :class:`eventstore.verification.Evidence`."""
        return int(
            self._raw.execute("SELECT coalesce(max(size), 0) FROM checkpoints").fetchone()[0]
        )

    def head(self) -> int:
        """As in :class:`eventstore.verification.Evidence`."""
        row = self._raw.execute("SELECT coalesce(max(position), 0) FROM event_record").fetchone()
        return int(row[0])

    def events(self, until: int, after: int = LOWEST) -> Iterator[StoredEvent]:
        """As in :class:`eventstore.verification.Evidence`."""
        while rows := self._raw.execute(SELECT_EVENTS, (after, until, CHUNK_ROWS)).fetchall():
            yield from map(_stored_event, rows)
            (after,) = self._onwards("event", (after,), rows[-1][:1])

    def checkpoints(self, until: int, after: int = LOWEST) -> Iterator[StoredCheckpoint]:
        """As in :class:`eventstore.verification.Evidence`."""
        while rows := self._raw.execute(SELECT_CHECKPOINTS, (after, until, CHUNK_ROWS)).fetchall():
            for row in rows:
                yield StoredCheckpoint(*row)
            (after,) = self._onwards("checkpoint", (after,), rows[-1][:1])

    def checkpoint_before(self, position: int) -> StoredCheckpoint | None:
        """As in :class:`eventstore.verification.Evidence`."""
        return self._checkpoint("WHERE size < ? ORDER BY size DESC", position)

    def checkpoint_from(self, position: int) -> StoredCheckpoint | None:
        """As in :class:`eventstore.verification.Evidence`."""
        return self._checkpoint("WHERE size >= ? ORDER BY size", position)

    def _checkpoint(self, which: str, position: int) -> StoredCheckpoint | None:
        row = self._raw.execute(f"{CHECKPOINT} {which} LIMIT 1", (position,)).fetchone()
        return None if row is None else StoredCheckpoint(*row)

    def versions(self, until: int) -> Iterator[tuple[int, int, int]]:
        """As in :class:`eventstore.verification.Evidence`."""
        stream, version = LOWEST, LOWEST
        while rows := self._raw.execute(
            SELECT_VERSIONS, (stream, version, until, CHUNK_ROWS)
        ).fetchall():
            yield from rows
            stream, version = self._onwards("version", (stream, version), rows[-1][:2])

    def documents(self) -> Iterator[tuple[str, bytes]]:
        """As in :class:`eventstore.verification.Evidence`."""
        after = LOWEST
        while row := self._raw.execute(SELECT_DOCUMENT, (after,)).fetchone():
            yield (row[0] or b"").decode(errors="backslashreplace"), row[1] or b""
            (after,) = self._onwards("document", (after,), row[2:])

    def _onwards(self, what: str, before: Key, now: Key) -> Key:
        """Where to go on after a row; in a damaged tree that may be where one has come from.

        Raises:
            LogCorrupt: It is. Without that a walk over it would never end.
        """
        if not all(isinstance(each, int) for each in now) or now <= before:
            raise LogCorrupt(self._path, f"{what} {now} follows {before}: a tree is damaged")
        return now

    def document(self, digest: str) -> bytes | None:
        """As in :class:`eventstore.verification.Evidence`."""
        select = "SELECT CAST(body AS BLOB) FROM documents WHERE digest = ?"
        found = self._raw.execute(select, (digest,)).fetchone()
        return None if found is None else bytes(found[0] or b"")

    def has_document(self, digest: str) -> bool:
        """As in :class:`eventstore.verification.Evidence`."""
        found = self._raw.execute("SELECT 1 FROM documents WHERE digest = ?", (digest,))
        return found.fetchone() is not None

    def first_with_document(self, digest: str) -> int | None:
        """As in :class:`eventstore.verification.Evidence`."""
        found = self._raw.execute(
            "SELECT position FROM event_record WHERE instr(documents, ?) ORDER BY position LIMIT 1",
            (digest,),
        ).fetchone()
        return None if found is None else int(found[0])

    def completeness_findings(self) -> tuple[Finding, ...]:
        """A finding if events may be missing that were in a -wal; nothing wrong is seen of that."""
        try:
            check_whole(self._raw, self._path)
        except LogIncomplete as error:
            return (Finding(layer="complete", outcome=Outcome.SKIP, text=error.problem),)
        return ()

    def newest_note(self) -> bytes | None:
        """The newest checkpoint's note."""
        found = self._raw.execute(
            "SELECT CAST(note AS BLOB) FROM checkpoints ORDER BY size DESC LIMIT 1"
        ).fetchone()
        return None if found is None else bytes(found[0])


def verify_log(
    path: str | os.PathLike[str],
    *,
    trusted: Sequence[Verifier] = (),
    pinned: Sequence[Checkpoint] = (),
    progress: Progress | None = None,
) -> Verification:
    """Check a log's file: is it what was sealed? Also while it is being written.

    Args:
        path: The file.
        trusted: Keys whose checkpoints count. Keep them where whoever can write to the log cannot
            change them.
        pinned: Checkpoints that were kept elsewhere, opened with
            :func:`eventstore.open_checkpoint`: the log must extend each. Only this shows that an
            older copy was put back, or that the owner of the signing key rewrote the past.
        progress: Called every 1024 events.

    Returns:
        What was found, layer by layer. Also if the log is broken: that is no error.

    Raises:
        LogNotFound: No such file.
        LogUnusable: It cannot be read far enough to say anything; the text says why.
        StoreBusy: Another program holds the file. Try again.

    Runs on the caller's thread for about 10 s for each million events; call it in one of its own.
    Memory: that of 256 events, the largest document, and what SQLite caches.
    """
    name = os.path.realpath(path)

    def job(raw: sqlite3.Connection) -> Verification:
        evidence = FileEvidence(raw, name)
        found = verify(evidence, trusted=trusted, pinned=pinned, progress=progress)
        return msgspec.structs.replace(
            found, findings=(*found.findings, *evidence.completeness_findings())
        )

    return read_log_file(name, job)


def verify_log_stretch(
    path: str | os.PathLike[str],
    first: int,
    last: int,
    *,
    trusted: Sequence[Verifier] = (),
    progress: Progress | None = None,
) -> Verification:
    """Check some events of a log's file, in a time that is that of their number.

    Args:
        path: The file; also while it is being written.
        first: A position that there is.
        last: One that is not before it.
        trusted: As of :func:`verify_log`.
        progress: Called every 1024 events.

    Returns:
        What was found: ``sequence``, ``content``, ``tree`` and ``signature`` from the checkpoint
        before them to the one after; ``tail`` skipped if none covers the last. ``range`` tells what
        was not looked at.

    Raises:
        LogNotFound, LogUnusable, StoreBusy: As :func:`verify_log`.
    """
    name = os.path.realpath(path)

    def job(raw: sqlite3.Connection) -> Verification:
        evidence = FileEvidence(raw, name)
        found = verify_stretch(evidence, first, last, trusted=trusted, progress=progress)
        return msgspec.structs.replace(
            found, findings=(*found.findings, *evidence.completeness_findings())
        )

    return read_log_file(name, job)


def newest_note(path: str | os.PathLike[str]) -> str | None:
    """The newest checkpoint of a log as a signed note; None if it was never sealed.

    Raises:
        LogNotFound: No such file.
        LogUnusable: It cannot be read.
    """
    name = os.path.realpath(path)
    note = read_log_file(name, lambda raw: FileEvidence(raw, name).newest_note())
    return None if note is None else note.decode(errors="backslashreplace")


def read_checkpoints(
    path: str | os.PathLike[str], *, after: int = 0, limit: int = CHUNK_ROWS
) -> Sequence[Checkpoint]:
    """Checkpoints of a log, the oldest first; whose they are is not looked at.

    Args:
        path: The log's file.
        after: Only those that cover more events than that.
        limit: At most that many.

    Raises:
        LogNotFound: No such file.
        LogUnusable: It cannot be read.
        NoteRejected: One of them is no checkpoint. :func:`verify_log` says which.
    """
    name = os.path.realpath(path)

    def job(raw: sqlite3.Connection) -> Sequence[Checkpoint]:
        rows = raw.execute(SELECT_CHECKPOINTS, (after, POSITION_MAX, limit))
        return [read_checkpoint(row[3]) for row in rows]

    return read_log_file(name, job)


def _stored_event(row: EventRow) -> StoredEvent:
    position, stream, version, type_, event_id, at_ns, correlation, causation, actor, data = row[
        :10
    ]
    fields = (
        _decimal(position), stream, _decimal(version), type_, event_id, _decimal(at_ns),
        correlation, _decimal(causation), actor, data,
    )  # fmt: skip
    return StoredEvent(position, fields, row[10], row[11])


def _decimal(number: object) -> bytes | None:
    return None if number is None else str(number).encode()
