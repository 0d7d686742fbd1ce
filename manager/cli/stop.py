"""``sandtrail stop``."""

import signal
from pathlib import Path
from typing import Final

import click

from manager.adapters.client import SandboxClient
from manager.application.errors import CallRefused
from manager.cli.session import run_async, sandbox_of, target_argument
from manager.domain.exit_status import Exited, Signaled
from manager.domain.state import ALIVE
from manager.terminal.output import done, json_option
from manager.terminal.place import root_option
from manager.terminal.timeout import seconds

GRACE: Final = "10s"
"""As long as podman and docker wait."""

ENDING_S: Final = 2.0
"""Longest wait, after a signal was refused, for the end that may be the cause of that."""


@click.command("stop")
@root_option
@json_option
@click.option("-t", "--timeout", default=GRACE, show_default=True, metavar="TIME", callback=seconds,
              help="How long it has to end by itself; 0: no time at all.")  # fmt: skip
@target_argument
def command(root: Path, as_json: bool, timeout: float, target: str) -> None:
    """Ask a container to end with SIGTERM, and end it with SIGKILL if it has not in time.

    Of a sandbox the root container is meant; when that has ended, so has the sandbox. What has
    ended already is left as it is: that is no error. It can be inspected until `sandtrail rm`.
    """
    sandbox, cid = sandbox_of(root, target)

    async def call() -> tuple[bool, Exited | Signaled | None]:
        found = (await sandbox.state())["containers"].get(cid, {})
        if found.get("status") in {"stopped", "failed", "lost"}:
            return False, None if found["exit"] is None else await sandbox.wait(cid)
        if timeout > 0:
            await _send(sandbox, cid, signal.SIGTERM)
            ended = await _end_within(timeout, sandbox, cid)
            if ended is not None:
                return False, ended
        await _send(sandbox, cid, signal.SIGKILL)
        return True, await sandbox.wait(cid)

    killed, ended = run_async(call)
    done(as_json, "stop", target, container=target, killed=killed, exit=ended)


async def _send(sandbox: SandboxClient, cid: str, signo: int) -> None:
    """Send a signal, unless the container is just ending by itself."""
    try:
        await sandbox.signal(signo, cid)
    except CallRefused:
        containers = (await sandbox.state())["containers"]
        if cid not in containers or containers[cid]["status"] in {"creating", "destroyed"}:
            raise
        # The process may be gone a moment before its end is told.
        is_alive = containers[cid]["status"] in ALIVE
        if is_alive and await _end_within(ENDING_S, sandbox, cid) is None:
            raise


async def _end_within(grace_s: float, sandbox: SandboxClient, cid: str) -> Exited | Signaled | None:
    import anyio  # noqa: PLC0415 - the help needs no event loop

    with anyio.move_on_after(grace_s):
        return await sandbox.wait(cid)
    return None
