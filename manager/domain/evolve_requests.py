"""What every fold needs: to change a container, and to note what became of a request."""

from msgspec.structs import replace

from manager.domain.ids import REQUEST_ID_CHARS_MAX
from manager.domain.state import RequestOutcome, Sandbox


def update_container(state: Sandbox, cid: str, **changes: object) -> Sandbox:
    """Change one container, if the state knows it."""
    found = state.containers.get(cid)
    if found is None:
        return state
    return replace(state, containers={**state.containers, cid: replace(found, **changes)})


def ask(state: Sandbox, request_id: str, method: str, cid: str = "") -> Sandbox:
    """Note that a request with an id has been accepted; its outcome is still to come."""
    return _note(state, request_id, RequestOutcome(method=method, cid=cid or state.id))


def answer(state: Sandbox, request_id: str, method: str, cid: str = "", error: str = "") -> Sandbox:
    """Note the outcome of a request with an id that was answered at once."""
    outcome = RequestOutcome(method=method, cid=cid or state.id, done=True, error=error)
    return _note(state, request_id, outcome)


def _note(state: Sandbox, request_id: str, outcome: RequestOutcome) -> Sandbox:
    if not 0 < len(request_id) <= REQUEST_ID_CHARS_MAX or request_id in state.requests:
        return state
    return replace(state, requests={**state.requests, request_id: outcome})


def settle(state: Sandbox, request_id: str, error: str = "") -> Sandbox:
    """Note the outcome of a request that was accepted before."""
    asked = state.requests.get(request_id)
    if asked is None or asked.done:
        return state
    outcome = replace(asked, done=True, error=error)
    return replace(state, requests={**state.requests, request_id: outcome})


def settle_all(state: Sandbox, method: str, cid: str, error: str = "") -> Sandbox:
    """Note the outcome for every open request of this kind: one deed answers all who asked."""
    done = {
        request_id: replace(asked, done=True, error=error)
        for request_id, asked in state.requests.items()
        if not asked.done and (asked.method, asked.cid) == (method, cid)
    }
    return replace(state, requests={**state.requests, **done}) if done else state
