"""The state of a node at any point of its log, from the log's file alone."""

import time
from pathlib import Path

from msgspec import Struct

from eventstore import EventLog, RecordedEvent, open_log
from manager.schema.moment import position_at
from manager.schema.node_fold import STREAM_PREFIX, NodeFold
from manager.schema.node_snapshot import node_snapshots, open_fold
from manager.schema.when import parse_when


class AsOf(Struct, frozen=True, kw_only=True):
    """The point that a state is of; ``time_ns`` is when its last event was recorded, 0 if none."""

    position: int
    time_ns: int = 0


async def fold_at(path: Path, when: str) -> tuple[NodeFold, AsOf]:
    """What a log says at a point, from a snapshot beside it if there is one that fits.

    Args:
        path: The log's file, of a service that runs or not, or a copy.
        when: The point, as :mod:`manager.schema.when` has it.

    Raises:
        WhenError: There is no such point, or it cannot be told.
        EventStoreError: The log cannot be read.
        EventFormatError: An event is of a newer program, or damaged; the text names it.
    """
    async with open_log(path, read_only=True) as log:
        return await fold_log_at(log, path, when)


async def fold_log_at(log: EventLog, path: Path, when: str) -> tuple[NodeFold, AsOf]:
    """As :func:`fold_at`, of a log that is open already."""
    now_ns = time.time_ns()
    position = await position_at(log, parse_when(when, now_ns=now_ns), now_ns=now_ns)
    fold = await open_fold(log, node_snapshots(path.parent), until=position)
    return fold, await as_of(log, position)


async def position_in(path: Path, when: str) -> int:
    """The position of a point in a log's file; raises as :func:`fold_at`, but for events."""
    now_ns = time.time_ns()
    async with open_log(path, read_only=True) as log:
        return await position_at(log, parse_when(when, now_ns=now_ns), now_ns=now_ns)


async def lived_until(log: EventLog, sandbox_id: str, before: int) -> int:
    """The last position at which a sandbox was there, 0 if it never was.

    Args:
        log: The log.
        sandbox_id: The sandbox, which is not there at ``before``.
        before: The position to look back from.

    Raises:
        EventStoreError: The log cannot be read.
    """
    stream, types = STREAM_PREFIX + sandbox_id, ("sandbox.deleted",)
    async for record in log.read(stream, until=before, types=types, backwards=True, limit=1):
        return record.position - 1
    return 0


async def as_of(log: EventLog, position: int) -> AsOf:
    """A position with its time."""
    record = await record_at(log, position)
    return AsOf(position=position, time_ns=0 if record is None else record.recorded_at_ns)


async def record_at(log: EventLog, position: int) -> RecordedEvent | None:
    """The event at a position; ``None`` at 0 and beyond the end."""
    if position <= 0:
        return None
    async for record in log.read(after=position - 1, limit=1):
        return record
    return None
