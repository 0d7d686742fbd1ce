"""Decisions about containers that exist: create, signal, destroy, and the end of a sandbox."""

from typing import Final

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain.events import Event
from manager.domain.gotext import quote, slice_text
from manager.domain.ids import ID_RULE, is_valid_id
from manager.domain.payload_rules import tty_error
from manager.domain.repeat import check_request_id
from manager.domain.state import ALIVE, Container, Sandbox

SIGNAL_PROCESS: Final = 0
SIGNAL_ALL: Final = 1
SIGNAL_FOREGROUND: Final = 2
SIGNAL_PROCESS_GROUP: Final = 3
SIGNAL_MODES: Final = range(4)

ROOT_DESTROYED: Final = "its root container was destroyed"

SIGNO_MAX: Final = 64
"""SIGRTMAX. Source: signal(7)."""


def decide_create_subcontainer(
    state: Sandbox, command: c.CreateSubcontainer
) -> e.ContainerCreated | e.ContainerCreateRejected:
    """Register a subcontainer: allowed before the root runs and while a restore is prepared."""
    cid, files = command.cid, command.files
    if error := check_request_id(state, command):
        pass
    elif len(files) > 1:
        error = "start arguments must have at most 1 files for TTY"
    elif not is_valid_id(cid):
        error = f"invalid container ID {quote(cid)}: want {ID_RULE}"
    elif state.container(cid) is not None:
        error = f"container {quote(cid)} already exists"
    elif files and (problem := tty_error(files[0])):
        error = problem
    elif state.phase in {"absent", "stopped", "deleted"}:
        error = f"sandbox has ended, cannot create subcontainer: state={state.phase}"
    elif state.deleting:
        error = deleting_error(state)
    elif command.hold_error:
        error = command.hold_error
    else:
        return e.ContainerCreated(
            container=cid,
            tty=files[0] if files else None,
            hold_id=command.hold_id if files else "",
            request_id=command.request_id,
        )
    return e.ContainerCreateRejected(
        container=cid, error=error, files=files, request_id=command.request_id
    )


def decide_signal(
    state: Sandbox, command: c.Signal
) -> e.ContainerSignalRequested | e.ContainerSignalRejected:
    """Send a signal to one process of a container, to all, or to a process group."""
    if error := _signal_error(state, command):
        return e.ContainerSignalRejected(
            container=command.cid,
            signo=command.signo,
            pid=command.pid,
            mode=command.mode,
            error=error,
            request_id=command.request_id,
        )
    return e.ContainerSignalRequested(
        container=command.cid,
        kill_id=command.kill_id,
        signo=command.signo,
        pid=command.pid,
        mode=command.mode,
        request_id=command.request_id,
    )


def _signal_error(state: Sandbox, command: c.Signal) -> str:
    return (
        check_request_id(state, command)
        or _signal_mode_error(command)
        or _signal_target_error(state, command)
    )


def _signal_mode_error(command: c.Signal) -> str:
    pid, mode = command.pid, command.mode
    if pid < 0:
        return f"PID ({pid}) must be positive"
    if mode == SIGNAL_ALL and pid != 0:
        return f"PID ({pid}) cannot be set when signaling all processes"
    if mode == SIGNAL_PROCESS_GROUP and pid == 0:
        return "PGID must be set when signaling a process group"
    if mode not in SIGNAL_MODES:
        return f"unknown signal delivery mode {mode}"
    return ""


def _signal_target_error(state: Sandbox, command: c.Signal) -> str:
    cid, pid, mode = command.cid, command.pid, command.mode
    prefix = signal_prefix(cid, pid, mode)
    found = state.container(cid)
    if found is None or found.status in {"creating", "starting", "failed"}:
        return _not_running_error(command, "not found" if found is None else "not started")
    if mode == SIGNAL_PROCESS and found.status not in ALIVE:
        return f"{prefix}no such process"
    if not 0 <= command.signo <= SIGNO_MAX:
        return f"{prefix}invalid argument"
    if state.checkpointing is not None:
        return f"{prefix}sandbox is being checkpointed"
    return ""


def _not_running_error(command: c.Signal, missing: str) -> str:
    cid, pid, mode = command.cid, command.pid, command.mode
    prefix = signal_prefix(cid, pid, mode)
    match mode:
        case 0:  # SIGNAL_PROCESS
            return f"{prefix}no such process with PID {pid}"
        case 1:  # SIGNAL_ALL
            return f"container {quote(cid)} {missing}"
        case 2 if missing == "not found":  # SIGNAL_FOREGROUND
            return f"{prefix}no thread group found: container {quote(cid)} {missing}"
        case 2:
            return f"{prefix}container {quote(cid)} {missing}"
        case _:
            return f"{prefix}no such process group with PGID {pid}"


def signal_prefix(cid: str, pid: int, mode: int) -> str:
    """What stands before the reason why a signal was not delivered."""
    match mode:
        case 1:  # SIGNAL_ALL
            return f"signaling all processes in container {quote(cid)}: "
        case 2:  # SIGNAL_FOREGROUND
            return f"signaling foreground process group in container {quote(cid)} PID {pid}: "
        case 3:  # SIGNAL_PROCESS_GROUP
            return f"signaling process group {pid}: "
        case _:
            return f"signaling process in container {quote(cid)} PID {pid}: "


def deleting_error(state: Sandbox) -> str:
    """Why nothing new may begin in a sandbox that is on its way out."""
    return f"sandbox {quote(state.id)} is being deleted"


def decide_destroy(state: Sandbox, command: c.DestroySubcontainer) -> tuple[Event, ...]:
    """Destroy a container; one that was ever known can always be destroyed, more than once too.

    A repeated destroy with a request id of its own leaves an event, so that a later repetition of
    that very call finds its outcome and never ends a new container of the same cid. A root that
    never ran takes the sandbox with it.
    """
    found = state.containers.get(command.cid)
    error = check_request_id(state, command)
    if found is None:
        error = error or f"container {quote(command.cid)} not found"
    if found is None or error:
        return (
            e.ContainerDestroyRejected(
                container=command.cid, error=error, request_id=command.request_id
            ),
        )
    if not command.request_id and (not found.exists or found.destroying):
        return ()
    events = _destroy_events(found, command.request_id)
    if found.status == "creating" and found.cid == state.id:
        return (*events, e.SandboxStopped(reason=ROOT_DESTROYED))
    return events


def _destroy_events(found: Container, request_id: str = "") -> tuple[Event, ...]:
    if found.intent is None or found.status in {"creating", "destroyed"}:
        return (e.ContainerDestroyed(container=found.cid, request_id=request_id),)
    return (
        e.ContainerDestroyRequested(
            container=found.cid, launch_id=found.intent.launch_id, request_id=request_id
        ),
    )


def decide_delete(state: Sandbox, command: c.DeleteSandbox) -> tuple[Event, ...]:
    """Delete a sandbox whose containers are all stopped, or any sandbox by force.

    A repeated delete with a request id of its own leaves an event, as a repeated destroy does.
    """
    if error := check_request_id(state, command):
        return (_delete_rejected(command, error),)
    if state.phase in {"absent", "deleted"}:
        wanted = quote(state.id or command.sandbox_id)
        return (_delete_rejected(command, f"sandbox {wanted} not found"),)
    requested = e.SandboxDeleteRequested(force=command.force, request_id=command.request_id)
    if state.deleting:
        return (requested,) if command.request_id else ()
    alive = [found.cid for found in state.containers.values() if found.status in ALIVE]
    if alive and not command.force:
        names = slice_text(map(quote, alive))
        error = f"sandbox {quote(state.id)} has containers that are not stopped: {names}"
        return (_delete_rejected(command, error),)
    left = [found for found in state.containers.values() if found.exists and not found.destroying]
    destroyed = [event for found in left for event in _destroy_events(found)]
    waits = any(isinstance(event, e.ContainerDestroyRequested) for event in destroyed)
    waits = waits or any(found.destroying for found in state.containers.values())
    ends = () if waits else (e.SandboxDeleted(),)
    return (requested, *destroyed, *ends)


def _delete_rejected(command: c.DeleteSandbox, error: str) -> e.SandboxDeleteRejected:
    return e.SandboxDeleteRejected(force=command.force, error=error, request_id=command.request_id)
