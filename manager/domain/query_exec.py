"""Questions about executed processes; they change nothing and leave no event."""

from manager.domain.execution import EXECUTION_ALIVE, Execution
from manager.domain.exit_status import Exited, Signaled, to_wait_status
from manager.domain.gotext import quote
from manager.domain.query import PENDING, Ended, Pending, Refused, WaitAnswer, wait_answer
from manager.domain.state import Container, Sandbox

INIT_PID = 1
"""Number of a container's init, where it has a PID namespace of its own."""


def wait_pid_answer(state: Sandbox, cid: str, pid: int) -> WaitAnswer:
    """How a process of a container ended: an executed one, or init; the same until destroy."""
    if pid <= 0:
        return Refused(f"PID ({pid}) must be positive")
    found = state.container(cid)
    if found is None:
        return Refused(f"waiting for PID {pid}: container {quote(cid)} not found")
    execution = _by_pid(found, pid)
    if execution is not None:
        return execution_end(execution)
    if found.intent is None or found.status in {"creating", "starting", "failed"}:
        return Refused(f"waiting for PID {pid}: container {quote(cid)} not started")
    if pid == INIT_PID and found.intent.joins_pid_namespace is None:
        return wait_answer(state, cid)
    for other in state.containers.values():
        if _namespace(other) == _namespace(found) and _by_pid(other, pid):
            return Refused(f"process {pid} is part of a different container: {quote(other.cid)}")
    return Refused(f"waiting for PID {pid}: no such process")


def execution_end(execution: Execution) -> WaitAnswer:
    """How an executed process ended."""
    if execution.status in EXECUTION_ALIVE:
        return PENDING
    if isinstance(execution.exit, Exited | Signaled):
        return Ended(to_wait_status(execution.exit))
    reason = execution.loss if execution.exit is None else execution.exit.reason
    return Refused(f"exit status of process {execution.pid} is lost: {reason}")


def exec_answer(state: Sandbox, cid: str, exec_id: str) -> Pending | Refused | int:
    """The PID of a process that was to be executed, or why it never ran."""
    found = state.containers.get(cid)
    execution = found.executions.get(exec_id) if found is not None else None
    if execution is None:
        return Refused(f"container {quote(cid)} has stopped")
    if execution.status == "starting":
        return PENDING
    if execution.error:
        return Refused(execution.error)
    return execution.pid


def requested_execution(state: Sandbox, cid: str, request_id: str) -> str:
    """The exec id of the process that a request asked for; empty if it is forgotten."""
    found = state.containers.get(cid)
    for execution in found.executions.values() if found is not None else ():
        if execution.request_id == request_id:
            return execution.exec_id
    return ""


def _by_pid(found: Container, pid: int) -> Execution | None:
    """The last process of that number: numbers come again."""
    for execution in reversed(found.executions.values()):
        if execution.pid == pid:
            return execution
    return None


def _namespace(found: Container) -> str:
    """The container whose PID namespace it lives in."""
    joined = found.intent.joins_pid_namespace if found.intent is not None else None
    return joined or found.cid
