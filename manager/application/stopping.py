"""The end of every container, for a service that does not leave them running."""

import logging
import signal
from typing import Final

import anyio

from manager.application.calls import Calls
from manager.application.errors import CallRefused, NotRecorded
from manager.application.live_sandbox import LiveSandbox
from manager.domain.react import holds
from manager.domain.state import ALIVE, Sandbox
from manager.schema.node_fold import Origin

KILL_WAIT_S: Final = 10.0
"""How long to wait for the ends of containers after SIGKILL; longer only if a worker is gone."""

logger = logging.getLogger(__name__)


async def stop_containers(calls: Calls, grace_s: float) -> tuple[str, ...]:
    """End all containers, all sandboxes side by side; their ends are on record on return.

    Subcontainers get SIGTERM first, the root when they are gone; after ``grace_s`` seconds whatever
    is left gets SIGKILL. What was paused goes on first: nothing ends while it is frozen. What was
    created and not started loses its descriptors, and the next service says so.

    Args:
        calls: Of the node whose containers they are.
        grace_s: Seconds for all of them together, before SIGKILL.

    Returns:
        Sandbox ids that still have a container whose end is not on record, sorted.

    Cancellation: safe; what was signalled stays signalled.
    """
    origin = calls.node.own_origin()
    sandboxes = calls.node.registry.all()
    with anyio.move_on_after(grace_s):
        async with anyio.create_task_group() as tasks:
            for sandbox in sandboxes.values():
                tasks.start_soon(_ask_to_end, calls, sandbox, origin)
    with anyio.move_on_after(KILL_WAIT_S):
        async with anyio.create_task_group() as tasks:
            for sandbox in sandboxes.values():
                tasks.start_soon(_kill, calls, sandbox, origin)
    for sandbox in sandboxes.values():
        for hold_id in sorted(holds(sandbox.state)):
            await calls.node.release(hold_id)  # a worker that holds something stays
    left = tuple(sorted(key for key, sandbox in sandboxes.items() if _alive(sandbox.state)))
    for sandbox_id in left:
        logger.error("container.still_alive sandbox=%s", sandbox_id)
    return left


async def _ask_to_end(calls: Calls, sandbox: LiveSandbox, origin: Origin) -> None:
    root = sandbox.state.id
    if sandbox.state.paused:
        await _resume(calls, sandbox, origin)
    await _end(calls, sandbox, [cid for cid in _alive(sandbox.state) if cid != root], origin)
    await _end(calls, sandbox, [cid for cid in _alive(sandbox.state) if cid == root], origin)


async def _end(calls: Calls, sandbox: LiveSandbox, cids: list[str], origin: Origin) -> None:
    async with anyio.create_task_group() as tasks:
        for cid in cids:
            tasks.start_soon(_signal, calls, sandbox, cid, signal.SIGTERM, origin)
    await sandbox.until(lambda state: not set(cids).intersection(_alive(state)) or None)


async def _kill(calls: Calls, sandbox: LiveSandbox, origin: Origin) -> None:
    if sandbox.state.paused:
        await _resume(calls, sandbox, origin)
    async with anyio.create_task_group() as tasks:
        for cid in _alive(sandbox.state):
            tasks.start_soon(_signal, calls, sandbox, cid, signal.SIGKILL, origin)
    await sandbox.until(lambda state: not _alive(state) or None)


async def _resume(calls: Calls, sandbox: LiveSandbox, origin: Origin) -> None:
    try:
        await calls.pause(sandbox.state.id, origin, paused=False)
    except (CallRefused, NotRecorded) as error:
        logger.warning("sandbox.not_resumed sandbox=%s reason=%s", sandbox.state.id, error)


async def _signal(calls: Calls, sandbox: LiveSandbox, cid: str, signo: int, origin: Origin) -> None:
    def has_begun(state: Sandbox) -> bool | None:
        found = state.container(cid)
        return None if found is not None and found.status == "starting" else True

    await sandbox.until(has_begun)
    try:
        await calls.signal(sandbox.state.id, cid, signo, origin)
    except CallRefused:
        pass  # it has ended by itself meanwhile, and that is on record or about to be
    except NotRecorded as error:
        logger.warning("container.not_signalled cid=%s reason=%s", cid, error)


def _alive(state: Sandbox) -> list[str]:
    return [cid for cid, found in state.containers.items() if found.status in ALIVE]
