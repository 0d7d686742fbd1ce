"""From recorded outcomes back to what the worker reported."""

from collections.abc import Iterator, Sequence

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain import restore_events as r
from manager.domain.decide_report import ERRNO_NO_SUCH_PROCESS, UNTOLD
from manager.domain.events import Event
from manager.domain.state import Sandbox

ERRNO_MAX = 133
"""EHWPOISON, the last one. Source: errno(3)."""


def reports_of(state: Sandbox, events: Sequence[Event]) -> Iterator[c.Report]:
    """The reports of which the first events may have come, the likeliest first."""
    yield from _start_reports(events[0])
    yield from _end_reports(state, events[0])
    yield from _process_reports(events[0])
    yield from _image_reports(state, events[0])
    yield from _destructions(events)


def _start_reports(event: Event) -> Iterator[c.Report]:
    match event:
        case e.SandboxStarted() | e.ContainerStarted():
            yield c.ReportStarted(
                launch_id=event.launch_id, launched=event.launched, phases_us=event.phases_us
            )
        case e.SandboxStartFailed(failure=failure) | e.ContainerStartFailed(failure=failure):
            yield c.ReportStartFailed(
                launch_id=event.launch_id,
                stage=failure.stage,
                reason=failure.reason,
                errno=failure.errno,
            )
        case e.ContainerHoldLost():
            yield c.ReportHoldLost(cid=event.container, reason=event.reason)


def _end_reports(state: Sandbox, event: Event) -> Iterator[c.Report]:
    match event:
        case e.ContainerExited():
            yield c.ReportExited(
                launch_id=event.launch_id,
                exit=event.exit,
                source=event.source,
                exited_at_ns=event.exited_at_ns,
                oom=event.oom,
            )
        case e.ContainerLost():
            yield c.ReportLost(
                launch_id=event.launch_id,
                reason=event.reason,
                ran=not event.doubtful,
                doubtful=event.doubtful,
            )
        case e.ContainerSignalSent():
            yield c.ReportKilled(kill_id=event.kill_id)
        case e.ContainerSignalRejected(kill_id=kill_id) if kill_id:
            yield from _undelivered(state, event)
        case e.ContainerPaused() | e.ContainerResumed():
            if state.pausing is not None:
                yield c.ReportFrozen(pause_id=state.pausing.pause_id)
        case e.SandboxPaused() | e.SandboxResumed():
            yield c.ReportFrozen(pause_id=event.pause_id)
        case e.SandboxPauseRejected(pause_id=pause_id) if pause_id:
            yield c.ReportFrozen(pause_id=pause_id, error=_after(event.error, 1))


def _undelivered(state: Sandbox, event: e.ContainerSignalRejected) -> Iterator[c.Report]:
    """The worker's reason is only in the text: whichever gives that text."""
    kill_id = event.kill_id
    yield c.ReportKilled(kill_id=kill_id, errno=ERRNO_NO_SUCH_PROCESS)
    yield c.ReportKilled(kill_id=kill_id, untold=event.error.partition(f"{UNTOLD}: ")[2])
    for why in ("no-process", "no-group", "no-terminal", "unsupported"):
        yield c.ReportKilled(kill_id=kill_id, errno=ERRNO_NO_SUCH_PROCESS, why=why)
    for found in state.containers.values():
        if found.intent is not None:
            yield c.ReportKilled(
                kill_id=kill_id,
                errno=ERRNO_NO_SUCH_PROCESS,
                why="other-container",
                owner=found.intent.launch_id,
            )
    for errno in range(1, ERRNO_MAX + 1):
        yield c.ReportKilled(kill_id=kill_id, errno=errno)


def _process_reports(event: Event) -> Iterator[c.Report]:
    match event:
        case e.ProcessExecuted():
            yield c.ReportExecuted(exec_id=event.exec_id, pid=event.pid, launched=event.launched)
        case e.ProcessExecFailed(failure=failure):
            yield c.ReportExecFailed(
                exec_id=event.exec_id,
                stage=failure.stage,
                reason=failure.reason,
                errno=failure.errno,
            )
        case e.ProcessExited():
            yield c.ReportProcessExited(
                exec_id=event.exec_id,
                exit=event.exit,
                source=event.source,
                exited_at_ns=event.exited_at_ns,
            )
        case e.ProcessLost():
            yield c.ReportProcessLost(
                exec_id=event.exec_id, reason=event.reason, doubtful=event.doubtful
            )


def _image_reports(state: Sandbox, event: Event) -> Iterator[c.Report]:
    match event:
        case r.SandboxCheckpointed():
            yield c.ReportSaved(
                checkpoint_id=event.checkpoint_id,
                image_bytes=event.image_bytes,
                digest=event.digest,
                resumed=event.resumed,
                revived=event.revived,
            )
        case r.SandboxCheckpointFailed():
            stage, _, reason = _after(event.error, 1).partition(": ")
            yield c.ReportSaveFailed(
                checkpoint_id=event.checkpoint_id,
                stage=stage,
                reason=reason,
                revived=event.revived,
            )
        case r.SandboxRestoreFailed() if state.restore is not None:
            yield c.ReportImageLost(
                restore_id=state.restore.restore_id, reason=_after(event.error, 1)
            )


def _destructions(events: Sequence[Event]) -> Iterator[c.Report]:
    """Before a container is said to be destroyed, all that was still open about it is closed."""
    for event in events:
        if isinstance(event, e.ContainerDestroyed) and event.launch_id:
            yield c.ReportDestroyed(launch_id=event.launch_id, leftovers=event.leftovers)
            return


def _after(text: str, colons: int) -> str:
    """What stands after a text's first so many colons."""
    return text.split(": ", colons)[-1]
