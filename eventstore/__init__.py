"""An event log: streams of events in one total order, in an SQLite file or in memory.

::

    async with open_log("events.db") as log:
        await log.append("orders-7", [NewEvent(type="placed", data={"n": 1})], expected=NO_STREAM)
        async for record in log.read("orders-7"):
            print(record.position, record.type, record.data)

This module is the only door; what it does not name may change.
"""

from eventstore.canonical import canonical_bytes, leaf_hash
from eventstore.cosignature import Witness, load_witness
from eventstore.envelope import Actor, Document, NewEvent, RecordedEvent
from eventstore.errors import (
    CheckpointStale,
    DocumentNotFound,
    EventIdReused,
    EventStoreError,
    EventTooLarge,
    InvalidAppend,
    KeyUnusable,
    LimitExceeded,
    LogCorrupt,
    LogInaccessible,
    LogIncomplete,
    LogLocked,
    LogNotDurable,
    LogNotFound,
    LogReadOnly,
    LogTooNew,
    LogUnusable,
    NotALog,
    NoteMalformed,
    NoteRejected,
    SignatureAbsent,
    SignatureUntrusted,
    SignatureWrong,
    SnapshotUnusable,
    StoreBusy,
    StoreClosed,
    StoreFull,
    StoreHeld,
    StorePoisoned,
    WrongExpectedVersion,
)
from eventstore.event_id import make_event_id, new_event_id
from eventstore.expected_version import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    Exactly,
    ExpectedVersion,
    StreamState,
    matches,
)
from eventstore.keys import load_signer, load_verifier
from eventstore.log import EventLog
from eventstore.memory import MemoryLog, memory_log
from eventstore.note import Checkpoint, Note, Signer, Verifier, open_checkpoint, read_checkpoint
from eventstore.proof import Consistency, EventProof, ProvedEvent
from eventstore.seal_policy import SealPolicy
from eventstore.selection import ReadOptions
from eventstore.snapshots import Snapshot, SnapshotFiles, SnapshotKind, load_newest
from eventstore.sqlite.copying import copy_log
from eventstore.sqlite.evidence import (
    newest_note,
    read_checkpoints,
    verify_log,
    verify_log_stretch,
)
from eventstore.sqlite.opening import open_log
from eventstore.sqlite.proving import prove_events
from eventstore.sqlite.schema import SCHEMA_VERSION
from eventstore.verification import Finding, Outcome, Verdict, Verification

__all__ = [
    "ANY",
    "NO_STREAM",
    "SCHEMA_VERSION",
    "STREAM_EXISTS",
    "Actor",
    "Checkpoint",
    "CheckpointStale",
    "Consistency",
    "Document",
    "DocumentNotFound",
    "EventIdReused",
    "EventLog",
    "EventProof",
    "EventStoreError",
    "EventTooLarge",
    "Exactly",
    "ExpectedVersion",
    "Finding",
    "InvalidAppend",
    "KeyUnusable",
    "LimitExceeded",
    "LogCorrupt",
    "LogInaccessible",
    "LogIncomplete",
    "LogLocked",
    "LogNotDurable",
    "LogNotFound",
    "LogReadOnly",
    "LogTooNew",
    "LogUnusable",
    "MemoryLog",
    "NewEvent",
    "NotALog",
    "Note",
    "NoteMalformed",
    "NoteRejected",
    "Outcome",
    "ProvedEvent",
    "ReadOptions",
    "RecordedEvent",
    "SealPolicy",
    "SignatureAbsent",
    "SignatureUntrusted",
    "SignatureWrong",
    "Signer",
    "Snapshot",
    "SnapshotFiles",
    "SnapshotKind",
    "SnapshotUnusable",
    "StoreBusy",
    "StoreClosed",
    "StoreFull",
    "StoreHeld",
    "StorePoisoned",
    "StreamState",
    "Verdict",
    "Verification",
    "Verifier",
    "Witness",
    "WrongExpectedVersion",
    "canonical_bytes",
    "copy_log",
    "leaf_hash",
    "load_newest",
    "load_signer",
    "load_verifier",
    "load_witness",
    "make_event_id",
    "matches",
    "memory_log",
    "new_event_id",
    "newest_note",
    "open_checkpoint",
    "open_log",
    "prove_events",
    "read_checkpoint",
    "read_checkpoints",
    "verify_log",
    "verify_log_stretch",
]
