"""The fold of executed processes."""

from msgspec.structs import replace

from manager.domain import events as e
from manager.domain.execution import (
    EXECUTION_ALIVE,
    EXECUTIONS_REMEMBERED_MAX,
    Execution,
)
from manager.domain.state import Sandbox


def accepted(state: Sandbox, event: e.ProcessExecAccepted) -> Sandbox:
    """A process is about to be executed; the oldest that have ended are forgotten."""
    found = state.containers.get(event.container)
    if found is None:
        return state
    request = event.request
    new = Execution(
        exec_id=event.exec_id,
        status="starting",
        executable=request.filename or (request.argv[0] if request.argv else ""),
        search_path=request.search_path,
        request_id=request.request_id,
    )
    kept = {**found.executions, event.exec_id: new}
    ended = [key for key, each in kept.items() if each.status not in EXECUTION_ALIVE]
    for key in ended[: max(0, len(ended) - EXECUTIONS_REMEMBERED_MAX)]:
        del kept[key]
    changed = replace(found, executions=kept)
    return replace(state, containers={**state.containers, event.container: changed})


def update(state: Sandbox, cid: str, exec_id: str, **changes: object) -> Sandbox:
    """The state with one executed process changed, if it is known."""
    found = state.containers.get(cid)
    if found is None or exec_id not in found.executions:
        return state
    changed = replace(found.executions[exec_id], **changes)
    container = replace(found, executions={**found.executions, exec_id: changed})
    return replace(state, containers={**state.containers, cid: container})


def request_of(state: Sandbox, cid: str, exec_id: str) -> str:
    """The request id that an executed process was asked for with, if any."""
    found = state.containers.get(cid)
    known = found.executions.get(exec_id) if found is not None else None
    return known.request_id if known is not None else ""
