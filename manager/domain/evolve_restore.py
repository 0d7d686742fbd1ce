"""The fold of checkpoints and restores."""

from typing import assert_never

from msgspec.structs import replace

from manager.domain import restore_events as r
from manager.domain.checkpoint import CheckpointIntent
from manager.domain.decide_restore import progress_of, registered
from manager.domain.evolve_requests import answer, ask, settle, settle_all, update_container
from manager.domain.restore_events import RestoreEvent
from manager.domain.state import Launched, Sandbox


def evolve_restore(state: Sandbox, event: RestoreEvent) -> Sandbox:
    """The state after one more event."""
    match event:
        case r.SandboxCheckpointRequested(request_id=request_id):
            intent = CheckpointIntent(
                checkpoint_id=event.checkpoint_id, resume=event.resume, request_id=request_id
            )
            return replace(ask(state, request_id, "Checkpoint"), checkpointing=intent)
        case r.SandboxCheckpointRejected(request_id=request_id, error=error):
            return answer(state, request_id, "Checkpoint", error=error)
        case r.SandboxCheckpointed():
            ended_for = "" if event.resumed else event.checkpoint_id
            done = replace(_checkpoint_over(state, event.revived), checkpoint_id=ended_for)
            return settle(done, event.request_id)
        case r.SandboxCheckpointFailed(error=error):
            over = _checkpoint_over(state, event.revived, error)
            return settle(over, event.request_id, error)
        case r.RestoreBegun():
            return _begun(state, event)
        case r.ContainerRestoreAccepted():
            return _accepted(state, event)
        case r.RestoreValidated():
            return _validated(state, event)
        case r.SandboxRestored():
            savings = (event.cpu_saved_ns, event.wall_saved_ns)
            return _settle(replace(state, phase="restored", savings_ns=savings))
        case r.SandboxRestoreFailed():
            return _failed(state, event)
        case _:
            assert_never(event)


def _checkpoint_over(state: Sandbox, revived: dict[str, Launched], error: str = "") -> Sandbox:
    for found in state.containers.values():
        if found.intent is not None and found.intent.launch_id in revived:
            launched = revived[found.intent.launch_id]
            state = update_container(state, found.cid, launched=launched)
    attempts = state.checkpoint_attempts + 1
    return replace(state, checkpointing=None, checkpoint_attempts=attempts, checkpoint_error=error)


def _begun(state: Sandbox, event: r.RestoreBegun) -> Sandbox:
    begun = replace(state, phase="restoringUnstarted", restore=progress_of(event, state.id))
    asked = ask(begun, event.request_id, "Restore")
    registered_root = update_container(asked, state.id, intent=event.root_intent)
    answered = event.total > 1 or event.background
    return settle(registered_root, event.request_id) if answered else registered_root


def _accepted(state: Sandbox, event: r.ContainerRestoreAccepted) -> Sandbox:
    if state.restore is None:
        return state
    cid, intent = event.container, event.intent
    others = {name: owner for name, owner in state.names.items() if owner != cid}
    progress = registered(state.restore, event)
    named = replace(state, names={**others, intent.name: cid}, restore=progress)
    request_id = intent.request.request_id
    asked = ask(named, request_id, "RestoreSubcontainer", cid)
    changed = update_container(asked, cid, intent=intent, fds_hold=event.hold_id, failure=None)
    answered = event.registered < event.total or progress.background
    return settle(changed, request_id) if answered else changed


def _validated(state: Sandbox, event: r.RestoreValidated) -> Sandbox:
    if event.error or state.restore is None:
        return state
    for cid in state.restore.registered:
        state = update_container(state, cid, status="starting")
    return replace(state, phase="restoringStarted")


def _failed(state: Sandbox, event: r.SandboxRestoreFailed) -> Sandbox:
    failed = replace(
        state,
        phase="restoreFailed",
        restore_error=event.error,
        restore_failed_in=event.method,
    )
    answered = answer(failed, event.request_id, "Restore", error=event.error)
    return _settle(answered, event.error)


def _settle(state: Sandbox, error: str = "") -> Sandbox:
    """Whoever waits for the restore has an answer now."""
    for method in ("Restore", "RestoreSubcontainer", "StartSubcontainer"):
        for cid in state.restore.registered if state.restore is not None else ():
            state = settle_all(state, method, cid, error)
    return state


def withdrawn(state: Sandbox, cid: str) -> Sandbox:
    """A container that is destroyed before the restore begins is no longer part of it."""
    progress = state.restore
    if state.phase != "restoringUnstarted" or progress is None or cid not in progress.registered:
        return state
    intent = state.containers[cid].intent
    name = intent.name if intent is not None else ""
    left = replace(
        progress,
        registered=tuple(each for each in progress.registered if each != cid),
        mismatches=tuple(each for each in progress.mismatches if each.container != name),
    )
    return replace(state, restore=left)
