"""Decisions about processes that are executed in containers that run."""

from msgspec.structs import replace

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain.events import Event
from manager.domain.execution import (
    EXECUTION_ALIVE,
    EXECUTIONS_ALIVE_MAX,
    GUEST_FD_MAX,
    ExecRequest,
)
from manager.domain.gotext import quote, slice_text
from manager.domain.payload_rules import stream_error, tty_error
from manager.domain.process_rules import check_ids
from manager.domain.repeat import check_request_id
from manager.domain.state import ALIVE, Container, Failure, Sandbox

STREAMS = ("stdin", "stdout", "stderr")
EXTRA_FILES = "exec-extra-files"
ERRNO_TEXTS = {2: "no such file or directory", 13: "permission denied"}


def decide_execute(
    state: Sandbox, command: c.Execute
) -> e.ProcessExecAccepted | e.ProcessExecRejected:
    """Execute one more process, in gVisor's order of checks."""
    request = command.request
    found = state.container(request.cid)
    error = check_request_id(state, command) or _container_error(request.cid, found)
    if not error and state.checkpointing is not None:
        error = f"sandbox {quote(state.id)} is being checkpointed"
    error = error or command.files_error or _request_error(command)
    if error or found is None or found.intent is None:
        return e.ProcessExecRejected(container=request.cid, request=request, error=error)
    return e.ProcessExecAccepted(
        container=request.cid,
        exec_id=command.exec_id,
        launch_id=found.intent.launch_id,
        request=request,
    )


def _container_error(cid: str, found: Container | None) -> str:
    if found is None:
        return f"container {quote(cid)} not found"
    if found.intent is None or found.status in {"creating", "starting", "failed"}:
        return f"container {quote(cid)} not started"
    if found.status not in ALIVE:
        return f"container {quote(cid)} has stopped"
    if found.destroying:
        return f"container {quote(cid)} is being destroyed"
    if found.status == "paused":
        return f"container {quote(cid)} is paused: resume it before a process is executed in it"
    alive = sum(each.status in EXECUTION_ALIVE for each in found.executions.values())
    if alive >= EXECUTIONS_ALIVE_MAX:
        return (
            f"container {quote(cid)} has {alive} executed processes that run, "
            f"at most {EXECUTIONS_ALIVE_MAX} may"
        )
    return ""


def _request_error(command: c.Execute) -> str:
    request = command.request
    if command.env_error:
        return f"resolving env: {command.env_error}"
    if error := _files_error(request):
        return f"creating fd map: {error}"
    if len(request.files) > len(request.guest_fds):
        if request.filename:
            return "process must either be started from a file or a filename, not both"
        return (
            "executing a donated file is not supported by sandtrail: name a file of the container"
        )
    if EXTRA_FILES in command.engine.lacks and max(request.guest_fds, default=0) >= len(STREAMS):
        return (
            f"{command.engine.name} cannot give {EXTRA_FILES}: "
            "it passes no guest file descriptors but 0, 1 and 2"
        )
    return _process_error(request)


def _files_error(request: ExecRequest) -> str:
    guest_fds, files = request.guest_fds, request.files
    if len(files) - len(guest_fds) not in {0, 1}:
        return "length of payload files does not match length of file descriptor array"
    if any(number < 0 for number in guest_fds):
        return "guest file descriptors must be 0 or greater"
    if any(number > GUEST_FD_MAX for number in guest_fds):
        return f"guest file descriptors must be {GUEST_FD_MAX} or less"
    if len(set(guest_fds)) < len(guest_fds):
        return f"guest file descriptors must differ, but are {slice_text(guest_fds)}"
    for number, fact in zip(guest_fds, files, strict=False):
        name = STREAMS[number] if number < len(STREAMS) else f"guest file descriptor {number}"
        problem = tty_error(fact) if request.terminal and number == 0 else ""
        if problem := problem or stream_error(name, fact):
            return problem
    if request.terminal and 0 not in guest_fds:
        return "a process on a terminal needs it as guest file descriptor 0"
    return ""


def _process_error(request: ExecRequest) -> str:
    if not request.argv or not executable(request):
        return "exec arguments must name a program"
    if any("\0" in text for text in (*request.argv, request.filename, request.cwd)):
        return "exec arguments hold a NUL, which no argument can carry"
    if request.cwd and not request.cwd.startswith("/"):
        return f"working directory must be absolute, but is {quote(request.cwd)}"
    return check_ids(request.uid, request.gid, request.extra_gids)


def executable(request: ExecRequest) -> str:
    """The program that is asked for, as written."""
    return request.filename or (request.argv[0] if request.argv else "")


def exec_error(program: str, search_path: tuple[str, ...], report: c.ReportExecFailed) -> str:
    """The text that the caller of a failed exec gets, in gVisor's words where it has any."""
    why = ERRNO_TEXTS.get(report.errno or 0)
    if report.stage == "exec" and why is not None:
        return f"error finding executable {quote(program)} in PATH {slice_text(search_path)}: {why}"
    if report.stage == "interrupted":
        return f"execution of {quote(program)} was interrupted: {report.reason}"
    return f"creating process: {report.reason}"


def decide_exec_report(
    state: Sandbox,
    report: c.ReportExecuted | c.ReportExecFailed | c.ReportProcessExited | c.ReportProcessLost,
) -> tuple[Event, ...]:
    """Record what a report tells of an executed process, if the log does not know it yet."""
    found = state.by_execution(report.exec_id)
    if found is None:
        return ()
    known = found.executions[report.exec_id]
    if known.status not in EXECUTION_ALIVE | {"lost"}:
        return ()
    match report:
        case c.ReportExecuted() if known.status == "starting":
            return (
                e.ProcessExecuted(
                    container=found.cid,
                    exec_id=report.exec_id,
                    pid=report.pid,
                    launched=report.launched,
                ),
            )
        case c.ReportExecFailed() if known.status == "starting":
            failure = Failure(
                error=exec_error(known.executable, known.search_path, report),
                stage=report.stage,
                reason=report.reason,
                errno=report.errno,
            )
            return (
                e.ProcessExecFailed(container=found.cid, exec_id=report.exec_id, failure=failure),
            )
        case c.ReportProcessExited():
            return (
                e.ProcessExited(
                    container=found.cid,
                    exec_id=report.exec_id,
                    pid=known.pid,
                    exit=report.exit,
                    source=report.source,
                    exited_at_ns=report.exited_at_ns,
                    checkpoint_id=_checkpoint_id(state),
                ),
            )
        case c.ReportProcessLost() if known.status == "running":
            return (_lost(found, report.exec_id, report.reason),)
        case c.ReportProcessLost(doubtful=True) if known.status == "starting":
            return (replace(_lost(found, report.exec_id, report.reason), doubtful=True),)
        case _:
            return ()


def _checkpoint_id(state: Sandbox) -> str:
    """The image for which what was executed ends: the one under way, or that of a sandbox ended."""
    return state.checkpointing.checkpoint_id if state.checkpointing else state.checkpoint_id


def _lost(found: Container, exec_id: str, reason: str) -> e.ProcessLost:
    pid = found.executions[exec_id].pid
    return e.ProcessLost(container=found.cid, exec_id=exec_id, pid=pid, reason=reason)


def close_executions(state: Sandbox, found: Container) -> tuple[Event, ...]:
    """What must be said of executed processes whose container is gone before their end was seen."""
    events: list[Event] = []
    for exec_id, known in found.executions.items():
        if known.status == "running":
            events.append(_lost(found, exec_id, "its container was destroyed"))
        elif known.status == "starting":
            reason = "its container was destroyed"
            events += decide_exec_report(
                state, c.ReportExecFailed(exec_id=exec_id, stage="interrupted", reason=reason)
            )
    return tuple(events)
