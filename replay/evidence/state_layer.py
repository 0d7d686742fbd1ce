"""The layer ``state`` of a verification: can the log be folded, and do snapshots tell the truth?"""

from pathlib import Path

import anyio.to_thread

from eventstore import EventStoreError, Finding, Outcome, SnapshotFiles, open_log
from manager.schema.codec import MalformedEvent, UnknownEventType
from manager.schema.node_snapshot import (
    SnapshotFinding,
    node_snapshots,
    open_fold,
    verify_snapshots,
)

LAYER = "state"


async def state_finding(path: Path, head: int) -> Finding:
    """Fold a log up to a position, and compare every snapshot beside it on the way.

    Checkpoints have no digest of the state: this shows that today's program can read all of the
    log, and that no snapshot would mislead it.

    Cancellation: safe.
    """
    snapshots = node_snapshots(path.parent)
    try:
        async with open_log(path, read_only=True) as log:
            checked = await verify_snapshots(log, snapshots)
            bad = [each for each in checked if each.problem and await _is_there(snapshots, each)]
            if bad:
                return _misleading(bad, snapshots)
            fold = await open_fold(log, snapshots if checked else None, until=head)
    except UnknownEventType as error:
        return Finding(layer=LAYER, outcome=Outcome.SKIP, text=str(error))
    except MalformedEvent as error:
        return Finding(layer=LAYER, outcome=Outcome.FAIL, text=str(error))
    except EventStoreError as error:
        return Finding(layer=LAYER, outcome=Outcome.SKIP, text=f"cannot be folded: {error}")
    text = f"#1 to #{head} fold to {len(fold.live)} sandboxes"
    if checked:
        text += f"; {len(checked)} snapshots, to #{checked[-1].position}, say the same"
    return Finding(layer=LAYER, outcome=Outcome.PASS, text=text)


async def _is_there(snapshots: SnapshotFiles, found: SnapshotFinding) -> bool:
    """Whether a snapshot is still there: a service deletes those that it needs no more."""
    return await anyio.to_thread.run_sync(snapshots.path(found.position).exists)


def _misleading(bad: list[SnapshotFinding], snapshots: SnapshotFiles) -> Finding:
    first = bad[0]
    more = f" (first of {len(bad)})" if len(bad) > 1 else ""
    text = (
        f"snapshot #{first.position}: {first.problem}{more}. It is no part of the log: stop the "
        f"service, keep a copy of {snapshots.path(first.position).parent} and delete that"
    )
    return Finding(layer=LAYER, outcome=Outcome.FAIL, text=text)
