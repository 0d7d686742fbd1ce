"""Questions about a sandbox that change nothing and leave no event."""

from collections.abc import Sequence
from typing import Final, TypeAlias

from msgspec import Struct

from manager.domain import events as e
from manager.domain.events import Event
from manager.domain.exit_status import Unknown, to_wait_status
from manager.domain.gotext import quote
from manager.domain.state import ALIVE, Container, Sandbox

RUNTIME_CREATING: Final = 1
RUNTIME_RUNNING: Final = 2
RUNTIME_STOPPED: Final = 3


class Pending(Struct, frozen=True):
    """No answer yet; ask again after the next event."""


class Refused(Struct, frozen=True):
    """The answer is an error with this text."""

    error: str


class Ended(Struct, frozen=True):
    """The raw wait status (wait(2))."""

    wait_status: int


WaitAnswer: TypeAlias = Pending | Refused | Ended
PENDING: Final = Pending()


def wait_answer(state: Sandbox, cid: str) -> WaitAnswer:
    """How a container ended. The log remembers: the answer stays the same for ever."""
    found = state.containers.get(cid)
    if found is not None and found.exit is not None:
        if isinstance(found.exit, Unknown):
            return Refused(f"exit status of container {quote(cid)} is lost: {found.exit.reason}")
        return Ended(to_wait_status(found.exit))
    if state.phase == "restoringUnstarted":
        return PENDING
    if state.restore_error and (found is None or found.status in {"creating", "failed"}):
        return Refused(restore_failure(state))
    if found is None:
        return Refused(f"container {quote(cid)} not found")
    if found.status in ALIVE:
        return PENDING
    if found.loss:
        return Refused(f"container {quote(cid)} is lost: {found.loss}")
    if found.status == "destroyed":
        return Refused(f"container {quote(cid)} not found")
    if state.phase in {"restoringStarted", "restored"} and found.status == "creating":
        return Refused(
            f"could not find init process of restored container {quote(cid)} "
            f"in state {quote(state.phase)}"
        )
    return Refused(f"container {quote(cid)} not started")


def runtime_state(state: Sandbox, cid: str) -> int:
    """ContainerRuntimeState of gVisor: 1 creating, 2 running, 3 stopped; unknown is stopped."""
    found = state.container(cid)
    if found is None:
        return RUNTIME_STOPPED
    if found.status in {"creating", "starting"}:
        return RUNTIME_STOPPED if state.phase == "restoreFailed" else RUNTIME_CREATING
    return RUNTIME_RUNNING if found.status in ALIVE else RUNTIME_STOPPED


def start_answer(state: Sandbox, cid: str, launch_id: str) -> Pending | Refused | None:
    """How a start of a container came out: ``None`` for well."""
    found = state.containers.get(cid)
    if found is None or found.intent is None or found.intent.launch_id != launch_id:
        return Refused("the start has been superseded")
    if found.status == "starting":
        return PENDING
    if found.failure is not None:
        return Refused(found.failure.error)
    return None


def launch_to_end(events: Sequence[Event], found: Container | None) -> str:
    """Which start's remains a destroy waits for."""
    for event in events:
        if isinstance(event, e.ContainerDestroyRequested):
            return event.launch_id
    return found.intent.launch_id if found is not None and found.intent is not None else ""


def is_paused(state: Sandbox, pause_id: str) -> bool:
    """Whether a pause or a resume has come to its end, well or not."""
    return state.pausing is None or state.pausing.pause_id != pause_id


def restore_answer(state: Sandbox) -> Pending | Refused | None:
    """How a restore came out: ``None`` for well."""
    if state.phase in {"restoringUnstarted", "restoringStarted"}:
        return PENDING
    if state.restore_error:
        return Refused(state.restore_error)
    if state.phase == "restored":
        return None
    return Refused(f"sandbox is not being restored, cannot wait for restore: state={state.phase}")


def restore_failure(state: Sandbox) -> str:
    """Why the sandbox could not be restored, as whoever waits is told; empty if it could."""
    return f"{state.restore_failed_in} failed: {state.restore_error}" if state.restore_error else ""


def checkpoint_answer(state: Sandbox, attempts: int) -> Pending | Refused | None:
    """How the checkpoint after that many attempts came out: ``None`` for well."""
    if state.checkpoint_attempts > attempts:
        return Refused(state.checkpoint_error) if state.checkpoint_error else None
    if state.phase in {"stopped", "deleted"}:
        return Refused("the sandbox has ended")
    return PENDING


def is_destroyed(container: Container | None, launch_id: str = "") -> bool:
    """Whether the destroy of a launch has come to its end; its container's id may be used anew."""
    if container is None or not container.exists:
        return True
    return container.intent is None or container.intent.launch_id != launch_id
