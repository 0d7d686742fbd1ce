"""Snapshots of folds: files beside the log that only ever save time.

A snapshot is what some fold made of a log's first events. It may be deleted at any time, and it is
believed only if everything fits: the fold's fingerprint (it changes whenever the fold may mean
something else), the checksum of the body, and the log itself, which must have that very record at
that position; a log that was restored, forked or rolled back since has another one, or none.

The checksum finds accidents. Against somebody who can write to the directory there is none: he
could as well replace the log. Fold the log without snapshots, and compare, to be sure.

One file a snapshot: a line of JSON, then the body. A file appears under its name only when it is
whole, so that a writer may be killed at any moment.
"""

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

import anyio.to_thread
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from eventstore.errors import SnapshotUnusable
from eventstore.log import EventLog

SNAPSHOT_BYTES_MAX: Final = 1024 * 1024 * 1024
"""Bytes of one snapshot's body."""
HEADER_BYTES_MAX: Final = 4096
"""Bytes of the line before the body."""
SNAPSHOTS_NEWEST_MAX: Final = 2
"""So many of the newest snapshots are kept: were the newest one damaged, the next would do."""
SNAPSHOTS_OLDER_MAX: Final = 6
"""So many of the older ones are kept, about evenly spread over the log."""
FINGERPRINT_CHARS: Final = 64
SYNC_BYTES: Final = 1024 * 1024
"""Bytes after which a snapshot under way is synced: a log's fsync waits behind little of it."""

_FORMAT: Final = 1
_NAME: Final = re.compile(r"([a-z]+)-([0-9a-f]{16})-([0-9]{19})\.snapshot")
_UNFINISHED: Final = ".unfinished"

logger = logging.getLogger(__name__)

T = TypeVar("T")


class SnapshotKind(Struct, frozen=True, kw_only=True):
    """Which fold a snapshot is of.

    Attributes:
        fold: Its name: lower-case letters.
        fingerprint: FINGERPRINT_CHARS lower-case hexadecimal digits that change whenever the fold
            may mean something else.
    """

    fold: str
    fingerprint: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z]+", self.fold):
            raise ValueError(f"fold {self.fold!r} must be a word of lower-case letters")
        if not re.fullmatch(r"[0-9a-f]{64}", self.fingerprint):
            raise ValueError(f"fingerprint {self.fingerprint!r} must be 64 hexadecimal digits")


class Snapshot(Struct, frozen=True, kw_only=True):
    """A fold's result at one position of a log.

    Attributes:
        position: Of the last event that is in it, 1 or more.
        leaf_hash: That event's, 32 bytes.
        body: 0 to SNAPSHOT_BYTES_MAX bytes, in the fold's own encoding.
    """

    position: int
    leaf_hash: bytes
    body: bytes


class _Header(Struct, frozen=True, kw_only=True):
    """The first line; ``sha256`` is of that line as it is without it, and the body."""

    format: int
    fold: str
    fingerprint: str
    position: int
    leaf_hash: str
    body_bytes: int
    sha256: str = ""


class SnapshotFiles:
    """The snapshots of one fold, in one directory.

    Args:
        directory: Made with mode 0700 when the first snapshot is saved.
        kind: The fold. Snapshots of the same fold with another fingerprint are of no use to it.

    Every method blocks on the disk; call it in a thread. Any number of processes may read; only
    the one that writes the log may save, discard and tidy.
    """

    def __init__(self, directory: Path, kind: SnapshotKind) -> None:
        self._directory = directory
        self._kind = kind

    def positions(self) -> list[int]:
        """Where there are snapshots, the newest first."""
        ours = (int(name[3]) for name in self._names() if self._is_ours(name))
        return sorted(ours, reverse=True)

    def load(self, position: int) -> Snapshot:
        """Read one snapshot.

        Raises:
            SnapshotUnusable: It is missing, damaged, or of another fold; use an older one, or none.
        """
        path = self.path(position)
        try:
            with path.open("rb") as file:
                line = file.readline(HEADER_BYTES_MAX)
                header = msgspec.json.decode(line, type=_Header)
                if header.body_bytes > SNAPSHOT_BYTES_MAX:
                    raise SnapshotUnusable(path, f"its body is over {SNAPSHOT_BYTES_MAX} bytes")
                body = file.read(header.body_bytes + 1)
                leaf_hash = bytes.fromhex(header.leaf_hash)
        except OSError as error:
            raise SnapshotUnusable(path, error.strerror or "it cannot be read") from error
        except ValueError as error:
            raise SnapshotUnusable(path, f"its header is damaged: {error}") from error
        if header != self._header(Snapshot(position=position, leaf_hash=leaf_hash, body=body)):
            raise SnapshotUnusable(path, "its body or its header is damaged, or of another fold")
        return Snapshot(position=position, leaf_hash=leaf_hash, body=body)

    def save(self, snapshot: Snapshot) -> None:
        """Write a snapshot, whole or not at all, and tidy up.

        Raises:
            SnapshotUnusable: It cannot be written, or is too large; nothing depends on it.
        """
        path = self.path(snapshot.position)
        if len(snapshot.body) > SNAPSHOT_BYTES_MAX:
            raise SnapshotUnusable(path, f"its body is over {SNAPSHOT_BYTES_MAX} bytes")
        unfinished = path.with_suffix(_UNFINISHED)
        line = msgspec.json.encode(self._header(snapshot)) + b"\n"
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            _write(unfinished, line, snapshot.body)
            unfinished.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise SnapshotUnusable(path, error.strerror or "it cannot be written") from error
        self.tidy()

    def discard(self, position: int) -> None:
        """Delete one snapshot, if it is there."""
        with contextlib.suppress(OSError):
            self.path(position).unlink()

    def tidy(self) -> None:
        """Delete what nobody will use: unfinished files, other fingerprints, too many positions."""
        for position in surplus(self.positions()):
            self.discard(position)
        with contextlib.suppress(OSError):
            for path in self._directory.iterdir():
                found = _NAME.fullmatch(path.name)
                stale = found and found[1] == self._kind.fold and not self._is_ours(found)
                if stale or path.suffix == _UNFINISHED:
                    path.unlink()

    def path(self, position: int) -> Path:
        """The file of that snapshot, whether it is there or not."""
        name = f"{self._kind.fold}-{self._kind.fingerprint[:16]}-{position:019d}.snapshot"
        return self._directory / name

    def _names(self) -> list[re.Match[str]]:
        try:
            names = os.listdir(self._directory)
        except OSError:
            return []
        return [found for found in map(_NAME.fullmatch, names) if found]

    def _is_ours(self, name: re.Match[str]) -> bool:
        return (name[1], name[2]) == (self._kind.fold, self._kind.fingerprint[:16])

    def _header(self, snapshot: Snapshot) -> _Header:
        header = _Header(
            format=_FORMAT,
            fold=self._kind.fold,
            fingerprint=self._kind.fingerprint,
            position=snapshot.position,
            leaf_hash=snapshot.leaf_hash.hex(),
            body_bytes=len(snapshot.body),
        )
        digest = hashlib.sha256(msgspec.json.encode(header))
        digest.update(snapshot.body)
        return replace(header, sha256=digest.hexdigest())


def surplus(positions: Iterable[int]) -> list[int]:
    """Which snapshots to delete, so that the newest are left, and older ones all over the log."""
    descending = sorted(positions, reverse=True)
    older = descending[SNAPSHOTS_NEWEST_MAX:]
    spacing = 1
    kept = set(older)
    while len(kept) > SNAPSHOTS_OLDER_MAX:
        spacing *= 2
        # Ascending, so that the last one of each stretch of the log stays.
        kept = set({position // spacing: position for position in reversed(older)}.values())
    return [position for position in older if position not in kept]


async def load_newest(
    log: EventLog,
    files: SnapshotFiles,
    decode: Callable[[bytes], T],
    *,
    until: int | None = None,
    discard: bool = False,
) -> tuple[int, T] | None:
    """Find the newest snapshot that may be believed.

    Args:
        log: The log that it must be of.
        files: Where to look.
        decode: Reads a body; a ValueError means that it is unusable.
        until: The highest position that is of use; the log's head if absent.
        discard: Delete those that turn out to be unusable; only for the process that writes the
            log. Each is told to the program's log (``snapshot.ignored``) either way.

    Returns:
        The position and what ``decode`` made of the body; ``None`` if there is none.

    Raises:
        EventStoreError: The log cannot be read. Never because of a snapshot.
    """
    head = await log.head()
    for position in await anyio.to_thread.run_sync(files.positions):
        if until is not None and head >= position > until:
            continue
        try:
            return position, await _load(log, files, decode, position)
        except SnapshotUnusable as error:
            logger.warning("snapshot.ignored path=%s reason=%s", error.path, error.problem)
            if discard:
                await anyio.to_thread.run_sync(files.discard, position)
    return None


async def _load(
    log: EventLog, files: SnapshotFiles, decode: Callable[[bytes], T], position: int
) -> T:
    snapshot = await anyio.to_thread.run_sync(files.load, position)
    found = [record.leaf_hash async for record in log.read(after=position - 1, limit=1)]
    if found != [snapshot.leaf_hash]:
        problem = "it is of another log, or of a part that this log has lost"
        raise SnapshotUnusable(files.path(position), problem)
    try:
        return await anyio.to_thread.run_sync(decode, snapshot.body)
    except ValueError as error:
        problem = f"its body cannot be understood: {error}"
        raise SnapshotUnusable(files.path(position), problem) from error


def _write(path: Path, *parts: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(path, flags, 0o600)
    try:
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(fd, rest[:SYNC_BYTES]) :]
                os.fdatasync(fd)
    finally:
        os.close(fd)
