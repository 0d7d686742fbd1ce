"""Every decision: a state and a command in, the events that follow out.

Pure and total: any command in any state has an answer, and the answer is events. A client's command
that is refused leaves exactly one event with the text of the refusal. A report that tells nothing
new (an outcome that was delivered twice) leaves none.
"""

from typing import assert_never

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain.decide_checkpoint import decide_checkpoint
from manager.domain.decide_exec import decide_exec_report, decide_execute
from manager.domain.decide_life import (
    decide_create_subcontainer,
    decide_delete,
    decide_destroy,
    decide_signal,
    deleting_error,
)
from manager.domain.decide_pause import decide_pause
from manager.domain.decide_report import decide_report
from manager.domain.decide_restore import decide_restore, decide_restore_subcontainer
from manager.domain.events import Event
from manager.domain.gotext import quote
from manager.domain.ids import ID_RULE, is_valid_id
from manager.domain.payload_rules import tty_error
from manager.domain.repeat import check_request_id, recorded
from manager.domain.request import FdFact
from manager.domain.start import (
    check_arguments,
    check_container,
    check_start,
    check_state,
    plan_launch,
)
from manager.domain.state import LaunchIntent, Sandbox


def decide(  # noqa: C901, PLR0912 - one arm a command
    state: Sandbox, command: c.Command
) -> tuple[Event, ...]:
    """Answer one command.

    Args:
        state: The sandbox as its stream tells it.
        command: What is asked or reported, with every fact from outside.

    Returns:
        The events to append, oldest first. None when the log already holds the answer: the same
        request id again, or what was asked for is done or under way.
    """
    if recorded(state, command) is not None:
        return ()
    match command:
        case c.CreateSandbox():
            return (_create(state, command),)
        case c.StartRoot():
            return (_start_root(state, command),)
        case c.CreateSubcontainer():
            return (decide_create_subcontainer(state, command),)
        case c.StartSubcontainer():
            return _start(state, command)
        case c.RestoreSubcontainer():
            return decide_restore_subcontainer(state, command)
        case c.Restore():
            return decide_restore(state, command)
        case c.Checkpoint():
            return decide_checkpoint(state, command)
        case c.DestroySubcontainer():
            return decide_destroy(state, command)
        case c.Signal():
            return (decide_signal(state, command),)
        case c.Execute():
            return (decide_execute(state, command),)
        case c.Pause():
            return decide_pause(state, command)
        case c.DeleteSandbox():
            return decide_delete(state, command)
        case (
            c.ReportStarted()
            | c.ReportStartFailed()
            | c.ReportExited()
            | c.ReportKilled()
            | c.ReportFrozen()
            | c.ReportSaved()
            | c.ReportSaveFailed()
            | c.ReportImageLost()
            | c.ReportDestroyed()
            | c.ReportLost()
            | c.ReportHoldLost()
        ):
            return decide_report(state, command)
        case (
            c.ReportExecuted()
            | c.ReportExecFailed()
            | c.ReportProcessExited()
            | c.ReportProcessLost()
        ):
            return decide_exec_report(state, command)
        case _:
            assert_never(command)


def _create(state: Sandbox, command: c.CreateSandbox) -> e.SandboxCreated | e.SandboxCreateRejected:
    request, spec = command.request, command.spec
    intent: LaunchIntent | str = _create_error(state, command) or check_arguments(request, spec)
    if spec is not None and not intent:
        has_tty = command.tty is not None
        intent = check_start(
            request, spec, has_tty=has_tty, on_container=lambda: _check_tty(command.tty)
        )
    if spec is not None and not intent:
        fresh = Sandbox(id=command.sandbox_id)
        ids = (command.launch_id, command.engine_id)
        intent = plan_launch(fresh, request, spec, command.engine, ids)
    if isinstance(intent, str) or command.hold_error:
        return e.SandboxCreateRejected(
            sandbox=command.sandbox_id,
            request=request,
            engine=command.engine,
            error=intent if isinstance(intent, str) else command.hold_error,
            tty=command.tty,
            requested_cid=command.requested_cid,
        )
    return e.SandboxCreated(
        sandbox=command.sandbox_id,
        intent=intent,
        hold_id=command.hold_id,
        tty=command.tty,
        tty_hold_id=command.tty_hold_id,
    )


def _create_error(state: Sandbox, command: c.CreateSandbox) -> str:
    if error := check_request_id(state, command):
        return error
    sandbox_id = quote(command.sandbox_id)
    if not is_valid_id(command.sandbox_id):
        return f"invalid sandbox ID {sandbox_id}: want {ID_RULE}"
    if state.phase not in {"absent", "deleted"}:
        return f"sandbox {sandbox_id} already exists"
    if command.requested_cid not in {"", command.sandbox_id}:
        return (
            f"the root container's ID is the sandbox's, {sandbox_id}, "
            f"but CID is {quote(command.requested_cid)}"
        )
    return ""


def _check_tty(tty: FdFact | None) -> str:
    return tty_error(tty) if tty is not None else ""


def _start_root(
    state: Sandbox, command: c.StartRoot
) -> e.SandboxStartRequested | e.SandboxStartRejected:
    root = state.container(state.id)
    if error := check_request_id(state, command):
        pass
    elif state.phase != "created" or root is None or root.intent is None:
        error = f"sandbox is not in created state, cannot start root container: state={state.phase}"
    elif state.deleting or root.destroying:
        error = deleting_error(state)
    elif root.status == "starting":
        error = f"root container {quote(state.id)} is already being started"
    elif root.fds_hold is None:
        error = f"the files donated for root container {quote(state.id)} are lost: create it anew"
    else:
        return e.SandboxStartRequested(
            launch_id=root.intent.launch_id, request_id=command.request_id
        )
    return e.SandboxStartRejected(error=error, request_id=command.request_id)


def _start(state: Sandbox, command: c.StartSubcontainer) -> tuple[Event, ...]:
    request, spec = command.request, command.spec
    error = check_request_id(state, command) or check_arguments(request, spec)
    if error or spec is None:
        return (_start_rejected(command, error),)
    if state.phase == "restoringUnstarted":
        return (
            e.ContainerStartTranslated(container=request.cid, request_id=request.request_id),
            *decide_restore_subcontainer(state, _as_restore(command)),
        )
    found = state.container(request.cid)
    error = check_state(state) or check_start(
        request,
        spec,
        has_tty=found is not None and found.tty_hold is not None,
        on_container=lambda: check_container(state, request.cid),
    )
    if error:
        return (_start_rejected(command, error),)
    ids = (command.launch_id, command.engine_id)
    intent = plan_launch(state, request, spec, command.engine, ids)
    if isinstance(intent, str) or command.hold_error:
        text = intent if isinstance(intent, str) else command.hold_error
        return (_start_rejected(command, text),)
    return (e.ContainerStartAccepted(container=request.cid, intent=intent),)


def _as_restore(command: c.StartSubcontainer) -> c.RestoreSubcontainer:
    return c.RestoreSubcontainer(
        request=command.request,
        spec=command.spec,
        engine=command.engine,
        launch_id=command.launch_id,
        hold_id=command.hold_id,
        hold_error=command.hold_error,
        spec_object=command.spec_object,
        image_specs=command.image_specs,
    )


def _start_rejected(command: c.StartSubcontainer, error: str) -> e.ContainerStartRejected:
    return e.ContainerStartRejected(
        container=command.request.cid,
        request=command.request,
        engine=command.engine,
        error=error,
    )
