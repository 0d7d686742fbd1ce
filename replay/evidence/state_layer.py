"""The layer ``state`` of a verification: does the log fold into what was sealed and kept of it?"""

from pathlib import Path
from typing import Final

import anyio.to_thread
from msgspec import Struct

from eventstore import (
    EventStoreError,
    Finding,
    NoteRejected,
    Outcome,
    SnapshotFiles,
    open_log,
)
from manager.schema.codec import MalformedEvent, UnknownEventType
from manager.schema.node_snapshot import node_snapshots
from manager.schema.state_check import (
    SnapshotFinding,
    StatesFound,
    state_seals,
    verify_states,
)

LAYER: Final = "state"
DIGEST_CHARS: Final = 16
COMPARED_EVERY: Final = 4096
"""Events between two sealed states that are compared, unless it is to be all of them."""


class StateJudgement(Struct, frozen=True, kw_only=True):
    """What the layer says; ``foreign`` if only another version of the program could say more."""

    finding: Finding
    foreign: bool = False


async def judge_state(path: Path, head: int, every: int = COMPARED_EVERY) -> StateJudgement:
    """Fold a log up to a position, and compare with sealed states and snapshots on the way.

    A sealed state that today's program does not get is a failure only if that very program sealed
    it: another one may have had another fold, which `sandtrail replay check` is to judge.

    Cancellation: safe.
    """
    snapshots = node_snapshots(path.parent)
    try:
        async with open_log(path, read_only=True) as log:
            found = await verify_states(log, snapshots, state_seals(path), last=head, every=every)
    except UnknownEventType as error:
        return _judgement(Outcome.SKIP, str(error))
    except (MalformedEvent, NoteRejected) as error:
        return _judgement(Outcome.FAIL, str(error))
    except EventStoreError as error:
        return _judgement(Outcome.SKIP, f"cannot be folded: {error}")
    bad = [each for each in found.snapshots if each.problem and await _is_there(snapshots, each)]
    if bad:
        return _misleading(bad, snapshots)
    return _judged(found, head)


def _judged(found: StatesFound, head: int) -> StateJudgement:
    for each in found.findings:
        if each.verdict == "different":
            more = found.seals["different"]
            text = (
                f"the state at #{each.sealed.position} is {each.now.digest[:DIGEST_CHARS]}…, "
                f"sealed is {each.sealed.digest[:DIGEST_CHARS]}…"
                + (f" (first of {more})" if more > 1 else "")
            )
            return _judgement(Outcome.FAIL, text, each.sealed.position)
    same = found.seals.get("same", 0)
    others = sum(found.seals.values()) - same
    text = f"#1 to #{head} fold to {found.live} sandboxes"
    if same:
        text += f"; {same} sealed states are those of the fold"
        if found.passed_over:
            text += f", {found.passed_over} between them were not compared"
    if found.snapshots:
        text += (
            f"; {len(found.snapshots)} snapshots, to #{found.snapshots[-1].position}, say the same"
        )
    if others:
        text += (
            f"; {others} states were sealed by another version of the program, whose states differ "
            "from today's: that version can compare them"
        )
    foreign = bool(others and not same)
    outcome = Outcome.SKIP if foreign else Outcome.PASS
    return StateJudgement(finding=Finding(layer=LAYER, outcome=outcome, text=text), foreign=foreign)


def _judgement(outcome: Outcome, text: str, first_bad: int | None = None) -> StateJudgement:
    finding = Finding(layer=LAYER, outcome=outcome, text=text, first_bad=first_bad)
    return StateJudgement(finding=finding)


async def _is_there(snapshots: SnapshotFiles, found: SnapshotFinding) -> bool:
    """Whether a snapshot is still there: a service deletes those that it needs no more."""
    return await anyio.to_thread.run_sync(snapshots.path(found.position).exists)


def _misleading(bad: list[SnapshotFinding], snapshots: SnapshotFiles) -> StateJudgement:
    first = bad[0]
    more = f" (first of {len(bad)})" if len(bad) > 1 else ""
    text = (
        f"snapshot #{first.position}: {first.problem}{more}. It is no part of the log: stop the "
        f"service, keep a copy of {snapshots.path(first.position).parent} and delete that"
    )
    return _judgement(Outcome.FAIL, text)
