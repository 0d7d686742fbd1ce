"""The one fold: every state, live, recovered, replayed or shown, comes from these functions.

``evolve`` never refuses. The log says what happened; an event that fits no container (a sequence
that no decision would have produced) changes nothing here and is a finding for an audit.
"""

from collections.abc import Iterable
from typing import Final, assert_never

from msgspec.structs import replace

from manager.domain import events as e
from manager.domain import evolve_exec
from manager.domain import restore_events as r
from manager.domain.events import Event
from manager.domain.evolve_requests import answer, ask, settle, settle_all, update_container
from manager.domain.evolve_restore import evolve_restore, withdrawn
from manager.domain.execution import process_lost
from manager.domain.gotext import quote
from manager.domain.state import (
    ABSENT,
    Container,
    Failure,
    LaunchIntent,
    PauseIntent,
    Sandbox,
    SignalIntent,
)

SANDBOX_ENDED: Final = "the sandbox has ended"


def fold(events: Iterable[Event], state: Sandbox = ABSENT) -> Sandbox:
    """Replay events on top of ``state``, oldest first."""
    for event in events:
        state = evolve(state, event)
    return state


def evolve(state: Sandbox, event: Event) -> Sandbox:  # noqa: C901, PLR0912 - one arm an event
    """The state after one more event."""
    # The arms are asked in turn, so what containers live through all the time comes first.
    match event:
        case e.ContainerCreated():
            return _container_created(state, event)
        case e.ContainerStartAccepted(container=cid, intent=intent):
            return _intend(state, cid, intent)
        case e.ContainerStarted(container=cid, launched=launched):
            return _update_start(state, cid, status="running", launched=launched, fds_hold=None)
        case e.ContainerExited():
            return _exited(state, event)
        case e.ContainerDestroyRequested(container=cid, request_id=request_id):
            asked = ask(state, request_id, "DestroySubcontainer", cid)
            return update_container(asked, cid, destroying=True)
        case e.ContainerDestroyed():
            return _destroyed(state, event)
        case e.ContainerSignalRequested():
            return _signal_requested(state, event)
        case e.ContainerSignalSent(kill_id=kill_id, request_id=request_id):
            return settle(_signal_done(state, kill_id), request_id)
        case e.ProcessExecAccepted(container=cid, request=request):
            asked = ask(state, request.request_id, "ExecuteAsync", cid)
            return evolve_exec.accepted(asked, event)
        case e.ProcessExecuted() | e.ProcessExecFailed() | e.ProcessExited() | e.ProcessLost():
            return _executed(state, event)
        case e.ContainerStartRejected(container=cid, request=request, error=error):
            return answer(state, request.request_id, "StartSubcontainer", cid, error)
        case e.ContainerCreateRejected(container=cid, error=error):
            return answer(state, event.request_id, "CreateSubcontainer", cid, error)
        case e.ContainerStartFailed(container=cid, failure=failure):
            return _update_start(state, cid, status="failed", failure=failure, fds_hold=None)
        case e.ContainerSignalRejected(container=cid, request_id=request_id, error=error):
            answered = answer(state, request_id, "Signal", cid, error)
            return settle(_signal_done(answered, event.kill_id), request_id, error)
        case e.ContainerDestroyRejected(container=cid, error=error):
            return answer(state, event.request_id, "DestroySubcontainer", cid, error)
        case e.ContainerLost():
            return _lost(state, event)
        case e.ContainerHoldLost(container=cid):
            return update_container(state, cid, tty_hold=None, fds_hold=None)
        case e.ProcessExecRejected(container=cid, request=request, error=error):
            return answer(state, request.request_id, "ExecuteAsync", cid, error)
        case e.SandboxCreated():
            return _created(state, event)
        case e.SandboxCreateRejected(request=request, error=error):
            return answer(state, request.request_id, "Create", event.sandbox, error)
        case e.SandboxStartRequested(request_id=request_id):
            asked = ask(state, request_id, "StartRoot")
            return update_container(asked, state.id, status="starting", start_request_id=request_id)
        case e.SandboxStarted():
            return _root_started(state, event)
        case e.SandboxStartFailed():
            return _root_failed(state, event)
        case e.SandboxStartRejected(request_id=request_id, error=error):
            return answer(state, request_id, "StartRoot", error=error)
        case e.SandboxPauseRequested():
            return _pause_requested(state, event)
        case e.SandboxPaused() | e.SandboxResumed():
            return _pause_done(state, event)
        case e.SandboxPauseRejected():
            return _pause_rejected(state, event)
        case e.ContainerPaused(container=cid):
            return update_container(state, cid, status="paused")
        case e.ContainerResumed(container=cid):
            return update_container(state, cid, status="running")
        case e.SandboxStopped():
            return replace(_cut_short(state), phase="stopped", paused=False)
        case e.SandboxDeleteRequested(request_id=request_id):
            return replace(ask(state, request_id, "Delete"), deleting=True)
        case e.SandboxDeleteRejected(request_id=request_id, error=error):
            return answer(state, request_id, "Delete", error=error)
        case e.SandboxDeleted():
            gone = replace(_cut_short(state), phase="deleted", deleting=False)
            return settle_all(gone, "Delete", state.id)
        case e.ContainerStartTranslated(container=cid, request_id=request_id):
            return ask(state, request_id, "StartSubcontainer", cid)
        case e.RestoreRejected(request_id=request_id, error=error):
            return answer(state, request_id, "Restore", error=error)
        case e.ContainerRestoreRejected(container=cid, request=request, error=error):
            answered = answer(state, request.request_id, "RestoreSubcontainer", cid, error)
            return settle(answered, request.request_id, error)
        case (
            r.SandboxCheckpointRequested()
            | r.SandboxCheckpointRejected()
            | r.SandboxCheckpointed()
            | r.SandboxCheckpointFailed()
            | r.RestoreBegun()
            | r.ContainerRestoreAccepted()
            | r.RestoreValidated()
            | r.SandboxRestored()
            | r.SandboxRestoreFailed()
        ):
            return evolve_restore(state, event)
        case _:
            assert_never(event)


def _created(state: Sandbox, event: e.SandboxCreated) -> Sandbox:
    """A deleted sandbox's id may be used again: all but the answered requests starts anew."""
    cid, intent = event.sandbox, event.intent
    root = Container(
        cid=cid,
        status="creating",
        intent=intent,
        fds_hold=event.hold_id,
        tty_hold=event.tty_hold_id or None,
    )
    fresh = Sandbox(
        id=cid,
        phase="created",
        containers={cid: root},
        names={intent.name: cid},
        requests=state.requests,
    )
    return answer(fresh, intent.request.request_id, "Create")


def _root_started(state: Sandbox, event: e.SandboxStarted) -> Sandbox:
    started = _update_start(
        state, state.id, status="running", launched=event.launched, fds_hold=None
    )
    return replace(started, phase="started")


def _root_failed(state: Sandbox, event: e.SandboxStartFailed) -> Sandbox:
    failed = _update_start(state, state.id, status="failed", failure=event.failure, fds_hold=None)
    return replace(failed, phase="stopped")


def _container_created(state: Sandbox, event: e.ContainerCreated) -> Sandbox:
    cid = event.container
    created = Container(cid=cid, status="creating", tty_hold=event.hold_id or None)
    known = replace(state, containers={**state.containers, cid: created})
    return answer(known, event.request_id, "CreateSubcontainer", cid)


def _intend(state: Sandbox, cid: str, intent: LaunchIntent) -> Sandbox:
    request_id = intent.request.request_id
    others = {name: owner for name, owner in state.names.items() if owner != cid}
    named = replace(state, names={**others, intent.name: cid})
    asked = ask(named, request_id, "StartSubcontainer", cid)
    return update_container(
        asked,
        cid,
        status="starting",
        intent=intent,
        failure=None,
        start_request_id=request_id,
        executions={},
    )


def _update_start(state: Sandbox, cid: str, **changes: object) -> Sandbox:
    """Apply the outcome of a start: its terminal is used up, and whoever asked has an answer."""
    found = state.containers.get(cid)
    if found is None:
        return state
    failure = changes.get("failure")
    error = failure.error if isinstance(failure, Failure) else ""
    updated = update_container(state, cid, tty_hold=None, **changes)
    return settle(updated, found.start_request_id, error)


def _exited(state: Sandbox, event: e.ContainerExited) -> Sandbox:
    """A container may exit before anybody said that it started; then it did start."""
    found = state.containers.get(event.container)
    exited = update_container(
        state,
        event.container,
        status="stopped",
        exit=event.exit,
        exit_source=event.source,
        exited_at_ns=event.exited_at_ns,
        oom=event.oom,
        checkpoint_id=event.checkpoint_id,
        tty_hold=None,
        fds_hold=None,
    )
    return settle(exited, found.start_request_id if found is not None else "")


def _lost(state: Sandbox, event: e.ContainerLost) -> Sandbox:
    """One that is lost had run, whether anybody said so or not; unless that is doubtful."""
    cid = event.container
    found = state.containers.get(cid)
    changes: dict[str, object] = {"status": "lost", "loss": event.reason}
    error = ""
    if event.doubtful:
        error = f"container {quote(cid)} is lost: {event.reason}"
        changes["failure"] = Failure(error=error, stage="lost", reason=event.reason)
    lost = update_container(state, cid, tty_hold=None, fds_hold=None, **changes)
    return settle(lost, found.start_request_id if found is not None else "", error)


def _pause_requested(state: Sandbox, event: e.SandboxPauseRequested) -> Sandbox:
    intent = PauseIntent(pause_id=event.pause_id, paused=event.paused, request_id=event.request_id)
    asked = ask(state, event.request_id, "Pause" if event.paused else "Resume")
    return replace(asked, pausing=intent)


def _pause_done(state: Sandbox, event: e.SandboxPaused | e.SandboxResumed) -> Sandbox:
    paused = isinstance(event, e.SandboxPaused)
    done = replace(state, paused=paused, pausing=None)
    answered = answer(done, event.request_id, "Pause" if paused else "Resume")
    return settle(answered, event.request_id)


def _cut_short(state: Sandbox) -> Sandbox:
    """What is asked of a sandbox that ends meanwhile has its answer by that."""
    for intent in (state.pausing, state.checkpointing):
        if intent is not None:
            state = settle(state, intent.request_id, SANDBOX_ENDED)
    return replace(state, pausing=None, checkpointing=None)


def _pause_rejected(state: Sandbox, event: e.SandboxPauseRejected) -> Sandbox:
    method = "Pause" if event.paused else "Resume"
    answered = answer(state, event.request_id, method, error=event.error)
    left = replace(answered, pausing=None) if event.pause_id else answered
    return settle(left, event.request_id, event.error)


def _signal_requested(state: Sandbox, event: e.ContainerSignalRequested) -> Sandbox:
    intent = SignalIntent(
        cid=event.container,
        signo=event.signo,
        pid=event.pid,
        mode=event.mode,
        request_id=event.request_id,
    )
    asked = ask(state, event.request_id, "Signal", event.container)
    return replace(asked, signals={**asked.signals, event.kill_id: intent})


def _signal_done(state: Sandbox, kill_id: str) -> Sandbox:
    if kill_id not in state.signals:
        return state
    signals = {key: intent for key, intent in state.signals.items() if key != kill_id}
    return replace(state, signals=signals)


def _executed(
    state: Sandbox,
    event: e.ProcessExecuted | e.ProcessExecFailed | e.ProcessExited | e.ProcessLost,
) -> Sandbox:
    """A process may exit before anybody said that it runs; then it did run."""
    error, changes = "", dict[str, object]()
    match event:
        case e.ProcessExecuted(pid=pid, launched=launched):
            changes = {"status": "running", "pid": pid, "host_pid": launched.pid}
        case e.ProcessExecFailed(failure=failure):
            error = failure.error
            changes = {"status": "failed", "error": error}
        case e.ProcessExited(exit=exit_status, exited_at_ns=at_ns):
            changes = {"status": "exited", "exit": exit_status, "exited_at_ns": at_ns}
        case _:
            error = process_lost(event.reason) if event.doubtful else ""
            changes = {"status": "lost", "loss": event.reason, "error": error}
    cid, exec_id = event.container, event.exec_id
    request_id = evolve_exec.request_of(state, cid, exec_id)
    return settle(evolve_exec.update(state, cid, exec_id, **changes), request_id, error)


def _destroyed(state: Sandbox, event: e.ContainerDestroyed) -> Sandbox:
    cid = event.container
    names = {name: owner for name, owner in state.names.items() if owner != cid}
    gone = update_container(
        replace(state, names=names),
        cid,
        status="destroyed",
        destroying=False,
        tty_hold=None,
        fds_hold=None,
        executions={},
    )
    answered = answer(withdrawn(gone, cid), event.request_id, "DestroySubcontainer", cid)
    return settle_all(answered, "DestroySubcontainer", cid)
