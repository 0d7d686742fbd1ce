"""Everything that the event store raises, by what the caller does next.

::

    EventStoreError
    ├── WrongExpectedVersion(stream, expected, actual)  re-read, decide again, retry
    ├── EventIdReused(event_id, position)               give the new event an id of its own
    ├── InvalidAppend(problem)                          programming error: fix the caller
    │   └── LimitExceeded(what, found, limit)           send less
    │       └── EventTooLarge                           keep large bodies in documents, or cut them
    ├── DocumentNotFound(digest)                        no event brought that document
    ├── StoreBusy(path)                                 retry as is: another program holds the file
    │   └── StoreHeld(wal_bytes, pids)                  end that reader: appends go on by themselves
    ├── StoreFull(path)                                 make room, retry as is: the store goes on
    ├── StorePoisoned(path, problem)                    close, reopen, re-read: the disk failed
    ├── StoreClosed()                                   programming error: open it again
    ├── KeyUnusable(path, problem)                      repair or replace the key file
    ├── SnapshotUnusable(path, problem)                 do without it: fold more of the log
    ├── NoteRejected(problem)                           a checkpoint that proves nothing as it is
    │   ├── NoteMalformed                               it is not a note: get it again
    │   ├── SignatureAbsent                             get the signed one
    │   ├── SignatureUntrusted(names)                   give the right verifier key, if you trust it
    │   ├── SignatureWrong(name)                        it was altered, or forged: keep it, ask why
    │   └── CheckpointStale(size, wanted)               get a newer one
    └── LogUnusable(path, problem)                      it cannot be opened, or not gone on with
        ├── LogNotFound                                 check the path; a writer creates the file
        ├── LogInaccessible                             check owner, mode, mount and disk
        ├── LogReadOnly                                 open it for writing to append
        ├── LogLocked(pid)                              stop that process, or read only
        ├── NotALog                                     the file is something else: leave it alone
        ├── LogTooNew(found, supported)                 use a newer program
        ├── LogIncomplete                               copy it with its -wal, or as a snapshot
        ├── LogNotDurable                               move it to a local file system
        └── LogCorrupt                                  stop; keep the file; restore a copy
"""

# A name says what happened to the log; "Error" after each would say nothing more.
# ruff: noqa: N818

from os import PathLike

from eventstore.expected_version import ExpectedVersion, describe


class EventStoreError(Exception):
    """Root of everything that the event store raises."""


class WrongExpectedVersion(EventStoreError):
    """Somebody appended to the stream first; nothing of this append was stored.

    Attributes:
        stream: The stream.
        expected: What the caller asked for.
        actual: The stream's version, 0 if it has no events.
    """

    def __init__(self, stream: str, expected: ExpectedVersion, actual: int) -> None:
        super().__init__(
            f"stream {stream!r} has {actual} events, but the append expected {describe(expected)}"
        )
        self.stream = stream
        self.expected = expected
        self.actual = actual


class EventIdReused(EventStoreError):
    """An event id of the append belongs to another append; nothing of this one was stored.

    Attributes:
        event_id: The id.
        position: Where it was stored before.
    """

    def __init__(self, event_id: str, position: int) -> None:
        super().__init__(
            f"event id {event_id!r} is taken by the event at position {position}, which was not "
            "appended with the same ids to the same stream"
        )
        self.event_id = event_id
        self.position = position


class InvalidAppend(EventStoreError):
    """What was to be appended is not fit to be stored; nothing was."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class LimitExceeded(InvalidAppend):
    """Something is larger than the store takes; see :mod:`eventstore.limits`.

    Attributes:
        what: What it is, with its unit.
        found: How large it is.
        limit: How large it may be.
    """

    def __init__(self, what: str, found: int, limit: int) -> None:
        super().__init__(f"{what}: {found}, over the limit of {limit}")
        self.what = what
        self.found = found
        self.limit = limit


class EventTooLarge(LimitExceeded):
    """The payload of one event, or a document, has too many bytes."""


class DocumentNotFound(EventStoreError):
    """No document with that digest was ever appended."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"the log has no document {digest}")
        self.digest = digest


class StoreBusy(EventStoreError):
    """Another program held the log's write lock for too long; nothing was stored."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is locked by another program that writes to it; try again")
        self.path = path


class StoreHeld(StoreBusy):
    """A reader in another program keeps the WAL from being used anew, and it has grown too much.

    Nothing was stored. Once that reader has ended its transaction, appends go on by themselves.

    Attributes:
        wal_bytes: How much there is in the WAL.
        pids: Processes that read the log right now, as far as they can be seen.
    """

    def __init__(self, path: str, wal_bytes: int, pids: tuple[int, ...]) -> None:
        super().__init__(path)
        who = f"process {', '.join(map(str, pids))}" if pids else "another program"
        self.args = (
            f"appends to {path} are refused: {who} has kept a read transaction open while its -wal "
            f"grew to {wal_bytes:,} bytes; end that transaction, and appends go on by themselves",
        )
        self.wal_bytes = wal_bytes
        self.pids = pids


class StoreFull(EventStoreError):
    """No room on the disk: the append was rejected whole. The store goes on working."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"no space left for {path}: the append was rejected; make room and try again"
        )
        self.path = path


class StorePoisoned(EventStoreError):
    """The disk failed while writing: whether the last append is stored is unknown.

    Every further append is refused. Close the log, open it again and look: after a failed fsync
    the kernel may have dropped the pages, so trying again could acknowledge what is not there.

    Source: fsync(2), NOTES.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"writing {path} failed ({problem}): close the log and open it again")
        self.path = path
        self.problem = problem


class StoreClosed(EventStoreError):
    """The log was used after its context was left."""

    def __init__(self) -> None:
        super().__init__("the event log is closed")


class KeyUnusable(EventStoreError):
    """A key file cannot be used.

    Attributes:
        path: The file.
        problem: What is wrong with it.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class SnapshotUnusable(EventStoreError):
    """A snapshot cannot be read, believed or written; nothing depends on it.

    Attributes:
        path: The file.
        problem: What is wrong with it.
    """

    def __init__(self, path: str | PathLike[str], problem: str) -> None:
        super().__init__(f"{path}: {problem}; the log itself is not affected")
        self.path = path
        self.problem = problem


class NoteRejected(EventStoreError):
    """A signed note, or a checkpoint in it, is not what was asked for: ignore what it says."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class NoteMalformed(NoteRejected):
    """The bytes are not a signed note, a checkpoint or a verifier key."""


class SignatureAbsent(NoteRejected):
    """The note has no signature line."""

    def __init__(self) -> None:
        super().__init__("the note is not signed: it has no signature line")


class SignatureUntrusted(NoteRejected):
    """The note is signed, but by none of the keys that are trusted.

    Attributes:
        names: Names and ids of the keys that signed it.
    """

    def __init__(self, names: tuple[str, ...], trusted: tuple[str, ...]) -> None:
        super().__init__(
            f"the note is signed by {', '.join(names)}, but trusted are only "
            f"{', '.join(trusted) or 'no keys at all'}"
        )
        self.names = names


class SignatureWrong(NoteRejected):
    """A signature under the name of a trusted key is not that key's over this text.

    Attributes:
        name: Name and id of the key.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"the signature of {name} does not fit: the note was altered or forged")
        self.name = name


class CheckpointStale(NoteRejected):
    """The checkpoint is genuine, but older than it must be.

    Attributes:
        size: Events that it covers.
        wanted: Events that it should cover.
    """

    def __init__(self, size: int, wanted: int) -> None:
        super().__init__(f"the checkpoint covers {size} events, at least {wanted} are wanted")
        self.size = size
        self.wanted = wanted


class LogUnusable(EventStoreError):
    """The log cannot be opened, or what was asked for cannot be done with it.

    Attributes:
        path: The log's file.
        problem: What is wrong with it.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class LogNotFound(LogUnusable):
    """There is no file (to read), or no directory (to create it in)."""


class LogInaccessible(LogUnusable):
    """The operating system refuses the file, its directory or the lock file, or fails to read."""


class LogReadOnly(LogUnusable):
    """An append to a log that was opened to be read only."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "opened read-only, nothing can be appended")


class LogLocked(LogUnusable):
    """Another process has the log open for writing.

    Attributes:
        pid: That process, or 0 if it has not told yet.
    """

    def __init__(self, path: str, pid: int) -> None:
        owner = f"process {pid}" if pid else "another process"
        super().__init__(
            path, f"already open for writing by {owner}; there is one writer at a time"
        )
        self.pid = pid


class NotALog(LogUnusable):
    """The file is not an event log; it was not touched."""


class LogTooNew(LogUnusable):
    """A newer program wrote the log.

    Attributes:
        found: The schema version of the file.
        supported: The newest schema version that this program knows.
    """

    def __init__(self, path: str, found: int, supported: int) -> None:
        super().__init__(
            path, f"has schema version {found}, this program knows versions up to {supported}"
        )
        self.found = found
        self.supported = supported


class LogIncomplete(LogUnusable):
    """The file is a copy that was made without the ``-wal``: its newest events may be missing."""

    def __init__(self, path: str) -> None:
        super().__init__(
            path,
            "is not the whole log: it was copied while a program had it open for writing, or after "
            f"one was killed, without {path}-wal beside it. Copy both, or make the copy with "
            "`sandtrail audit snapshot`",
        )


class LogNotDurable(LogUnusable):
    """SQLite did not take a setting without which an answer would promise too much."""


class LogCorrupt(LogUnusable):
    """The file contradicts itself."""
