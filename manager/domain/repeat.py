"""Calls that carry a request id act once: the same id again is answered from the log."""

from typing import TypeAlias

from manager.domain import commands as c
from manager.domain.gotext import quote
from manager.domain.ids import REQUEST_ID_CHARS_MAX
from manager.domain.state import RequestOutcome, Sandbox

Named: TypeAlias = tuple[str, str, str]
"""Request id (may be empty), method, cid."""


def naming(  # noqa: C901, PLR0912 - one arm a command
    state: Sandbox, command: c.Command
) -> Named:
    """How a client's command is remembered; reports have no name."""
    match command:
        case c.CreateSandbox(request=request, sandbox_id=cid):
            return request.request_id, "Create", cid
        case c.StartRoot(request_id=request_id):
            return request_id, "StartRoot", state.id
        case c.CreateSubcontainer(request_id=request_id, cid=cid):
            return request_id, "CreateSubcontainer", cid
        case c.StartSubcontainer(request=request):
            return request.request_id, "StartSubcontainer", request.cid
        case c.RestoreSubcontainer(request=request):
            return request.request_id, "RestoreSubcontainer", request.cid
        case c.Restore(request_id=request_id):
            return request_id, "Restore", state.id
        case c.DestroySubcontainer(request_id=request_id, cid=cid):
            return request_id, "DestroySubcontainer", cid
        case c.Signal(request_id=request_id, cid=cid):
            return request_id, "Signal", cid
        case c.Execute(request=request):
            return request.request_id, "ExecuteAsync", request.cid
        case c.Pause(request_id=request_id, paused=paused):
            return request_id, "Pause" if paused else "Resume", state.id
        case c.Checkpoint(request_id=request_id):
            return request_id, "Checkpoint", state.id
        case c.DeleteSandbox(request_id=request_id):
            return request_id, "Delete", state.id
        case _:
            return "", "", ""


def recorded(state: Sandbox, command: c.Command) -> RequestOutcome | None:
    """What the log already says about this very call, if it was made before."""
    request_id, method, cid = naming(state, command)
    known = state.requests.get(request_id)
    if known is None or (known.method, known.cid) != (method, cid):
        return None
    return known


def check_request_id(state: Sandbox, command: c.Command) -> str:
    """Refuse a request id that is too long, or was used for another call."""
    request_id, method, cid = naming(state, command)
    if len(request_id) > REQUEST_ID_CHARS_MAX:
        return (
            f"RequestID must have at most {REQUEST_ID_CHARS_MAX} characters, "
            f"but has {len(request_id)}"
        )
    known = state.requests.get(request_id)
    if known is None or (known.method, known.cid) == (method, cid):
        return ""
    return f"RequestID {quote(request_id)} was used for {known.method} of {quote(known.cid)} before"
