"""Pausing a sandbox and letting it go on: all of its containers at once, as gVisor's kernel is.

gVisor counts pauses; here a sandbox is paused or it is not.
"""

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain.events import Event
from manager.domain.gotext import quote
from manager.domain.repeat import check_request_id
from manager.domain.state import Sandbox

FEATURE = "pause"


def decide_pause(state: Sandbox, command: c.Pause) -> tuple[Event, ...]:
    """Stop or continue everything that runs; nothing to do is done already."""
    error = check_request_id(state, command) or _pause_error(state, command)
    if error:
        return (
            e.SandboxPauseRejected(
                paused=command.paused, error=error, request_id=command.request_id
            ),
        )
    if state.paused and command.paused:
        done = e.SandboxPaused(pause_id=command.pause_id, request_id=command.request_id)
        return (done,) if command.request_id else ()
    return (
        e.SandboxPauseRequested(
            pause_id=command.pause_id, paused=command.paused, request_id=command.request_id
        ),
    )


def _pause_error(state: Sandbox, command: c.Pause) -> str:
    doing = "pause" if command.paused else "resume"
    if state.phase not in {"started", "restored"}:
        return f"sandbox is not in started state, cannot {doing}: state={state.phase}"
    if state.pausing is not None:
        return f"sandbox {quote(state.id)} is already being paused or resumed"
    if not command.paused and not state.paused:
        return f"sandbox {quote(state.id)} is not paused"
    if state.checkpointing is not None:
        return f"sandbox is being checkpointed, cannot {doing}"
    if FEATURE in command.engine.lacks:
        return command.engine.refusal(FEATURE)
    return ""


def decide_frozen(state: Sandbox, report: c.ReportFrozen) -> tuple[Event, ...]:
    """Record what became of a pause or a resume, container by container."""
    intent = state.pausing
    if intent is None or intent.pause_id != report.pause_id:
        return ()
    if report.error:
        doing = "pausing" if intent.paused else "resuming"
        return (
            e.SandboxPauseRejected(
                paused=intent.paused,
                error=f"{doing} sandbox {quote(state.id)}: {report.error}",
                pause_id=report.pause_id,
                request_id=intent.request_id,
            ),
        )
    if intent.paused:
        stopped = tuple(e.ContainerPaused(container=cid) for cid in _in_status(state, "running"))
        done: Event = e.SandboxPaused(pause_id=report.pause_id, request_id=intent.request_id)
        return (*stopped, done)
    going = tuple(e.ContainerResumed(container=cid) for cid in _in_status(state, "paused"))
    return (*going, e.SandboxResumed(pause_id=report.pause_id, request_id=intent.request_id))


def launches_that_run(state: Sandbox) -> tuple[str, ...]:
    """Launch ids of the containers that a pause or a resume concerns."""
    return tuple(
        found.intent.launch_id
        for found in state.containers.values()
        if found.intent is not None and found.status in {"running", "paused"}
    )


def _in_status(state: Sandbox, status: str) -> list[str]:
    return [found.cid for found in state.containers.values() if found.status == status]
