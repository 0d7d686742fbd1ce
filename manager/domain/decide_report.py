"""What follows from the worker's reports. They may come late, twice, or about the long gone."""

from typing import Final, TypeAlias, assert_never

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain.decide_checkpoint import decide_saved
from manager.domain.decide_exec import close_executions
from manager.domain.decide_life import (
    ROOT_DESTROYED,
    SIGNAL_FOREGROUND,
    SIGNAL_PROCESS_GROUP,
    signal_prefix,
)
from manager.domain.decide_pause import decide_frozen
from manager.domain.decide_restore import after_failure, after_outcome, decide_image_lost
from manager.domain.events import Event
from manager.domain.gotext import quote, slice_text
from manager.domain.state import ALIVE, Container, Failure, LaunchIntent, Sandbox, SignalIntent

ERRNO_NOT_FOUND: Final = 2
ERRNO_NO_SUCH_PROCESS: Final = 3
ERRNO_ACCESS: Final = 13

UNTOLD: Final = "nobody can tell whether it was delivered"


ContainerReport: TypeAlias = (
    c.ReportStarted
    | c.ReportStartFailed
    | c.ReportExited
    | c.ReportKilled
    | c.ReportFrozen
    | c.ReportSaved
    | c.ReportSaveFailed
    | c.ReportImageLost
    | c.ReportDestroyed
    | c.ReportLost
    | c.ReportHoldLost
)


def decide_report(  # noqa: C901 - one arm a report
    state: Sandbox, report: ContainerReport
) -> tuple[Event, ...]:
    """Record what a report tells, if the log does not know it yet."""
    match report:
        case c.ReportStarted():
            return _started(state, report)
        case c.ReportStartFailed():
            return _start_failed(state, report)
        case c.ReportExited():
            return _exited(state, report)
        case c.ReportKilled():
            return _killed(state, report)
        case c.ReportFrozen():
            return decide_frozen(state, report)
        case c.ReportSaved() | c.ReportSaveFailed():
            return decide_saved(state, report)
        case c.ReportImageLost():
            return decide_image_lost(state, report)
        case c.ReportDestroyed():
            return _destroyed(state, report)
        case c.ReportLost():
            return _lost(state, report)
        case c.ReportHoldLost():
            return _hold_lost(state, report)
        case _:
            assert_never(report)


def _started(state: Sandbox, report: c.ReportStarted) -> tuple[Event, ...]:
    found = state.by_launch(report.launch_id)
    if found is None or found.status != "starting":
        return ()
    if found.cid == state.id and state.phase == "created":
        return (
            e.SandboxStarted(
                launch_id=report.launch_id, launched=report.launched, phases_us=report.phases_us
            ),
        )
    return (
        e.ContainerStarted(
            container=found.cid,
            launch_id=report.launch_id,
            launched=report.launched,
            phases_us=report.phases_us,
        ),
        *after_outcome(
            state, found.cid, report.launched.started_at_ns, cpu_ns=report.launched.cpu_ns
        ),
    )


def _start_failed(state: Sandbox, report: c.ReportStartFailed) -> tuple[Event, ...]:
    found = state.by_launch(report.launch_id)
    if found is None or found.intent is None or found.status != "starting":
        return ()
    error = start_error(found.intent, report)
    starts_sandbox = found.cid == state.id and state.phase == "created"
    if starts_sandbox:
        error = f"starting sandbox: {error}"
    failure = Failure(error=error, stage=report.stage, reason=report.reason, errno=report.errno)
    if starts_sandbox:
        return (e.SandboxStartFailed(launch_id=report.launch_id, failure=failure),)
    failed = e.ContainerStartFailed(
        container=found.cid, launch_id=report.launch_id, failure=failure
    )
    return (failed, *after_failure(state, error))


def start_error(intent: LaunchIntent, report: c.ReportStartFailed) -> str:
    """The text that the caller of a failed start gets, in gVisor's words for the stage."""
    cid = quote(intent.request.cid)
    match report.stage:
        case "exec" if report.errno in {ERRNO_NOT_FOUND, ERRNO_ACCESS}:
            path = slice_text(intent.search_path)
            why = "permission denied"
            if report.errno == ERRNO_NOT_FOUND:
                why = "no such file or directory"
            return f"error finding executable {quote(intent.executable)} in PATH {path}: {why}"
        case "mounts":
            return f"failed to setupFS: mounting submounts: {report.reason}"
        case "tar":
            return f"failed to setupFS: creating mount namespace: {report.reason}"
        case "restore":
            return f"failed to load kernel: {report.reason}"
        case "aborted":
            return f"container {cid} was destroyed while it was being started"
        case "interrupted":
            return f"start of container {cid} was interrupted: {report.reason}"
        case _:
            return f"creating process: {report.reason}"


def _exited(state: Sandbox, report: c.ReportExited) -> tuple[Event, ...]:
    found = state.by_launch(report.launch_id)
    if found is None or found.status not in ALIVE | {"lost"}:
        return ()
    exited = e.ContainerExited(
        container=found.cid,
        launch_id=report.launch_id,
        exit=report.exit,
        source=report.source,
        exited_at_ns=report.exited_at_ns,
        started_at_ns=found.launched.started_at_ns if found.launched is not None else None,
        oom=report.oom,
        checkpoint_id=state.checkpoint_id,
    )
    ended = _ends_sandbox(state, found, "its root container exited")
    return (exited, *(ended or after_outcome(state, found.cid, report.exited_at_ns)))


def _ends_sandbox(state: Sandbox, found: Container, reason: str) -> tuple[Event, ...]:
    if found.cid == state.id and state.phase not in {"stopped", "deleted", "restoreFailed"}:
        return (e.SandboxStopped(reason=reason),)
    return ()


def _killed(state: Sandbox, report: c.ReportKilled) -> tuple[Event, ...]:
    intent = state.signals.get(report.kill_id)
    if intent is None:
        return ()
    if report.errno is None and not report.untold:
        return (
            e.ContainerSignalSent(
                container=intent.cid,
                kill_id=report.kill_id,
                signo=intent.signo,
                request_id=intent.request_id,
            ),
        )
    why = signal_problem(state, intent, report)
    return (_signal_rejected(report.kill_id, intent, why),)


def signal_problem(state: Sandbox, intent: SignalIntent, report: c.ReportKilled) -> str:
    """Why a signal was not delivered, in gVisor's words where it has any."""
    if report.untold:
        return f"{UNTOLD}: {report.untold}"
    match report.why:
        case "no-process" if intent.mode == SIGNAL_FOREGROUND:
            return f"no thread group found: container {quote(intent.cid)} not found"
        case "no-process":
            return f"no such process with PID {intent.pid}"
        case "no-group":
            return f"no such process group with PGID {intent.pid}"
        case "no-terminal":
            return "no TTY attached"
        case "other-container" if intent.mode == SIGNAL_PROCESS_GROUP:
            return f"process group {intent.pid} does not belong to container {quote(intent.cid)}"
        case "other-container":
            owner = state.by_launch(report.owner)
            cid = owner.cid if owner is not None else ""
            return f"process {intent.pid} belongs to a different container: {quote(cid)}"
        case "unsupported":
            found = state.containers.get(intent.cid)
            engine = found.intent.engine if found is not None and found.intent is not None else ""
            return f"{engine} cannot signal a process group"
        case _:
            pass
    if report.errno == ERRNO_NO_SUCH_PROCESS:
        return "no such process"
    return f"the kernel refused with errno {report.errno}"


def _signal_rejected(kill_id: str, intent: SignalIntent, why: str) -> e.ContainerSignalRejected:
    return e.ContainerSignalRejected(
        container=intent.cid,
        signo=intent.signo,
        pid=intent.pid,
        mode=intent.mode,
        error=f"{signal_prefix(intent.cid, intent.pid, intent.mode)}{why}",
        kill_id=kill_id,
        request_id=intent.request_id,
    )


def _destroyed(state: Sandbox, report: c.ReportDestroyed) -> tuple[Event, ...]:
    """Close all that is still open about the container, so that nobody waits for ever."""
    found = state.by_launch(report.launch_id)
    if found is None or not found.exists:
        return ()
    before = _before_destroyed(state, found, report.launch_id)
    gone = e.ContainerDestroyed(
        container=found.cid, launch_id=report.launch_id, leftovers=report.leftovers
    )
    failed = any(isinstance(event, e.SandboxStartFailed) for event in before)
    stopped = () if failed else _ends_sandbox(state, found, ROOT_DESTROYED)
    others = [other for other in state.containers.values() if other.cid != found.cid]
    last = state.deleting and not any(other.exists for other in others)
    return (*before, gone, *stopped, *((e.SandboxDeleted(),) if last else ()))


def _before_destroyed(state: Sandbox, found: Container, launch_id: str) -> tuple[Event, ...]:
    """Outcomes that the worker owed and that nobody can give any more."""
    processes = close_executions(state, found)
    signals = (
        *processes,
        *(
            _signal_rejected(kill_id, intent, "the container was destroyed")
            for kill_id, intent in state.signals.items()
            if intent.cid == found.cid
        ),
    )
    if found.status == "starting":
        aborted = c.ReportStartFailed(launch_id=launch_id, stage="aborted", reason="destroyed")
        return (*_start_failed(state, aborted), *signals)
    if found.status in ALIVE:
        why = "it was destroyed before anybody saw its exit status"
        lost = e.ContainerLost(container=found.cid, launch_id=launch_id, reason=why)
        return (lost, *signals)
    return signals


def _lost(state: Sandbox, report: c.ReportLost) -> tuple[Event, ...]:
    found = state.by_launch(report.launch_id)
    if found is None or found.status not in ALIVE:
        return ()
    doubtful = report.doubtful and found.status == "starting"
    if found.status == "starting" and not (report.ran or doubtful):
        interrupted = c.ReportStartFailed(
            launch_id=report.launch_id, stage="interrupted", reason=report.reason
        )
        return _start_failed(state, interrupted)
    lost = e.ContainerLost(
        container=found.cid,
        launch_id=report.launch_id,
        reason=report.reason,
        doubtful=doubtful,
    )
    ended = _ends_sandbox(state, found, "its root container was lost")
    return (lost, *(ended or _lost_amid_restore(state, found, report)))


def _lost_amid_restore(state: Sandbox, found: Container, report: c.ReportLost) -> tuple[Event, ...]:
    """A restore of which one container's start is not on record cannot be said to have come out."""
    if found.status != "starting":
        return ()
    return after_failure(state, f"container {quote(found.cid)} is lost: {report.reason}")


def _hold_lost(state: Sandbox, report: c.ReportHoldLost) -> tuple[Event, ...]:
    found = state.container(report.cid)
    if found is None or found.status != "creating":
        return ()
    if found.tty_hold is None and found.fds_hold is None:
        return ()
    lost = e.ContainerHoldLost(container=report.cid, reason=report.reason)
    if state.restore is None or found.cid not in state.restore.registered:
        return (lost,)
    why = f"the files donated for container {quote(found.cid)} are lost: {report.reason}"
    return (lost, *after_failure(state, why))
