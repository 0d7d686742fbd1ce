"""Snapshots of the node's fold: when they are of this program, and how they are opened.

The fingerprint is the digest of every source file of the domain and the schema and of the shape of
what is kept: whatever changes how events are read or folded changes it. It may also change without
need; then the log is folded once from its beginning.
"""

import hashlib
import logging
import time
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Raw

from eventstore import (
    EventLog,
    RecordedEvent,
    SnapshotFiles,
    SnapshotKind,
    load_newest,
)
from manager.schema.layout import SNAPSHOT_DIRECTORY
from manager.schema.node_fold import STREAM_PREFIX, UNKNOWN, FoldedSandbox, NodeFold, decode_record

logger = logging.getLogger(__name__)

FOLD_NAME: Final = "node"
FOLDING_PACKAGES: Final = ("manager.domain", "manager.schema")

_decode: Final = msgspec.msgpack.Decoder(dict[str, FoldedSandbox]).decode


@cache
def fold_fingerprint() -> str:
    """The digest of all that the fold's meaning depends on, 64 hexadecimal digits."""
    digest = hashlib.sha256(msgspec.json.encode(msgspec.json.schema(FoldedSandbox)))
    for package in FOLDING_PACKAGES:
        for source in sorted(files(package).iterdir(), key=lambda each: each.name):
            if source.is_file():
                body = source.read_bytes()
                digest.update(f"\n{package}/{source.name} {len(body)}\n".encode())
                digest.update(body)
    return digest.hexdigest()


def node_snapshots(log_directory: Path) -> SnapshotFiles:
    """The snapshots of the log in that directory that this program can use."""
    kind = SnapshotKind(fold=FOLD_NAME, fingerprint=fold_fingerprint())
    return SnapshotFiles(log_directory / SNAPSHOT_DIRECTORY, kind)


def encode_sandboxes(live: Iterable[tuple[str, FoldedSandbox]]) -> bytes:
    """Encode sandboxes by id, in a thread: others get their turn after each one."""
    encode = msgspec.msgpack.Encoder().encode
    parts: dict[str, Raw] = {}
    for sandbox_id, folded in live:
        parts[sandbox_id] = Raw(encode(folded))
        # Else a thread that waits for the interpreter would do so for its switch interval.
        time.sleep(0)
    return encode(parts)


def decode_sandboxes(body: bytes) -> dict[str, FoldedSandbox]:
    """The inverse of :func:`encode_sandboxes`; raises ValueError if it is not one."""
    return _decode(body)


async def open_fold(
    log: EventLog,
    snapshots: SnapshotFiles | None,
    *,
    until: int | None = None,
    discard: bool = False,
) -> NodeFold:
    """Fold the log, from the newest snapshot on if there is one that fits.

    Args:
        log: The log.
        snapshots: Its snapshots; absent: fold from the beginning.
        until: The last position to fold; the log's head if absent.
        discard: Delete snapshots that turn out to be unusable, see :func:`load_newest`.

    Raises:
        EventStoreError: The log cannot be read.
        EventFormatError: An event is of a newer program, or damaged; the text names it.

    Cancellation: safe.
    """
    found = None
    if snapshots is not None:
        found = await load_newest(log, snapshots, decode_sandboxes, until=until, discard=discard)
    fold = NodeFold() if found is None else NodeFold(*found)
    await advance(fold, log, until=until)
    logger.info("log.folded after=%d until=%d", fold.began_at, fold.position)
    return fold


async def advance(fold: NodeFold, log: EventLog, *, until: int | None = None) -> None:
    """Fold what the log has after the fold's position, up to ``until``; raises as above."""
    limit = None if until is None else max(0, until - fold.position)
    async for record in log.read(after=fold.position, limit=limit):
        await recall(fold, log, record)
        fold.apply(record)


async def recall(fold: NodeFold, log: EventLog, record: RecordedEvent) -> None:
    """Bring back, before a record is applied, a sandbox that left the fold before it began.

    Raises:
        As :func:`open_fold`.
    """
    if fold.lacks(record):
        earlier = await _read_sandbox(log, record.stream, record.version - 1)
        fold.put(record.stream.removeprefix(STREAM_PREFIX), earlier)


async def _read_sandbox(log: EventLog, stream: str, version: int) -> FoldedSandbox:
    folded = UNKNOWN
    async for record in log.read(stream, limit=version):
        folded = folded.after(decode_record(record), record)
    return folded
