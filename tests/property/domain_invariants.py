"""What is true of a sandbox after any history of decisions."""

from manager.domain.state import ALIVE, Container, Sandbox

ROOT_STATUSES = {
    "created": {"creating", "starting"},
    "started": {"running", "paused"},
    "restoringUnstarted": {"creating"},
    "restoringStarted": {"starting", "running"},
    "restored": {"running", "paused"},
    "restoreFailed": {"creating", "starting", "running", "stopped", "failed", "lost", "destroyed"},
    "stopped": {"stopped", "failed", "lost", "destroyed"},
    "deleted": {"destroyed"},
}


def check_invariants(state: Sandbox) -> None:
    """Raise AssertionError for a state that no history should lead to."""
    assert (state.phase == "absent") == (not state.containers)
    root = state.containers.get(state.id)
    if root is not None:
        assert root.status in ROOT_STATUSES[state.phase]
    for cid, found in state.containers.items():
        assert found.cid == cid
        _check_container(found)
    for cid in state.names.values():
        assert state.container(cid) is not None
    _check_open_ends(state)


def _check_container(found: Container) -> None:
    if found.status in {"running", "paused"}:
        assert found.launched is not None
    if found.status == "lost":
        assert found.loss
    if found.status in ALIVE | {"stopped", "failed", "lost"}:
        assert found.intent is not None
    if found.status == "failed":
        assert found.failure is not None
    if found.status == "stopped":
        assert found.exit is not None
    if found.status not in {"creating", "starting"}:
        assert (found.fds_hold, found.tty_hold) == (None, None)
    if found.destroying:
        assert found.intent is not None
        assert found.status not in {"creating", "destroyed"}


def _check_open_ends(state: Sandbox) -> None:  # noqa: C901, PLR0912 - one arm a method
    """Whatever is still to come has somebody who will tell."""
    for intent in state.signals.values():
        assert state.container(intent.cid) is not None
    for request_id, outcome in state.requests.items():
        assert request_id
        if outcome.done:
            continue
        found = state.container(outcome.cid)
        match outcome.method:
            case "StartSubcontainer" if state.phase == "restoringStarted":
                pass  # a start that was taken as a restore
            case "StartRoot" | "StartSubcontainer":
                assert found is not None
                assert found.status == "starting"
                assert found.start_request_id == request_id
            case "DestroySubcontainer":
                assert found is not None
                assert found.destroying
            case "Signal":
                assert request_id in {intent.request_id for intent in state.signals.values()}
            case "Pause" | "Resume":
                assert state.pausing is not None
                assert state.pausing.request_id == request_id
            case "ExecuteAsync":
                assert found is not None
                starting = {
                    e.request_id for e in found.executions.values() if e.status == "starting"
                }
                assert request_id in starting
            case "Restore" | "RestoreSubcontainer":
                assert state.phase == "restoringStarted"
            case "Checkpoint":
                assert state.checkpointing is not None
                assert state.checkpointing.request_id == request_id
            case "Delete":
                assert state.deleting
            case method:
                raise AssertionError(f"{method} is answered at once")
    if state.deleting:
        assert any(found.destroying for found in state.containers.values())
        for found in state.containers.values():
            assert found.destroying or not found.exists
