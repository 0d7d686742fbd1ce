"""``sandtrail run``."""

import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import click

from eventstore import new_event_id
from manager.adapters.client import SandboxClient
from manager.application.errors import ManagerError
from manager.cli.container_options import (
    ContainerOptions,
    build_spec,
    container_options,
    open_donation,
)
from manager.cli.session import after_start, client_of, remove_made, run_async, split_target
from manager.domain.exit_status import Exited, Signaled, to_shell_code
from manager.terminal.ending import EXIT_NOT_STARTED
from manager.terminal.output import json_option, print_json
from manager.terminal.place import root_option

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


@click.command("run")
@root_option
@json_option
@click.option(
    "--name",
    "target",
    default="",
    metavar="SANDBOX[/CONTAINER]",
    help="Id of the new sandbox, or of a new container in one that runs.",
)
@click.option("-d", "--detach", is_flag=True, help="Print the id and leave it running.")
@click.option("--rm/--keep", "remove", default=True, help="Remove it when it has ended.")
@container_options
def command(
    root: Path, as_json: bool, target: str, detach: bool, remove: bool, **described: Any
) -> None:
    """Create, start and wait for a container that runs COMMAND with this command's own stdio.

    With --detach its stdio is /dev/null.

    Exits with the container's status (128 plus the signal's number if a signal ended it). SIGTERM,
    SIGINT, SIGHUP and SIGQUIT are passed on to it.
    """
    options = ContainerOptions(**described)
    sandbox_id, cid = split_target(target or f"run-{new_event_id()[-12:]}")
    name = sandbox_id if cid == sandbox_id else f"{sandbox_id}/{cid}"

    async def call() -> Exited | Signaled | None:
        sandbox = client_of(root).sandbox(sandbox_id)
        # From before the start: a signal that comes meanwhile is the container's, too.
        with anyio.open_signal_receiver(*FORWARDED) as signals:
            await _start(root, sandbox, cid, options, attach=not detach)
            if detach:
                return None
            with after_start(name):
                ended = await _wait(sandbox, cid, signals)
        if remove:
            await remove_made(sandbox, cid)
        return ended

    ended = run_async(call, refused=EXIT_NOT_STARTED)
    if as_json:
        print_json("run", container=name, exit=ended)
    elif ended is None:
        click.echo(name)
    sys.exit(0 if ended is None else to_shell_code(ended))


async def _start(
    root: Path, sandbox: SandboxClient, cid: str, options: ContainerOptions, *, attach: bool
) -> None:
    """Create and start it; what was created and does not start is removed.

    What could not be created is left alone: one of that name may be somebody else's, and run.
    """
    is_root = cid == sandbox.id
    with open_donation(options, attach=attach) as donation:
        spec = build_spec(options, cid)
        if is_root:
            await client_of(root).create_sandbox(cid, spec, donation)
        else:
            await sandbox.create_subcontainer(cid)
        try:
            if is_root:
                await sandbox.start_root()
            else:
                await sandbox.start_subcontainer(cid, spec, donation)
        except ManagerError:
            await remove_made(sandbox, cid)
            raise


async def _wait(
    sandbox: SandboxClient, cid: str, signals: AsyncIterator[signal.Signals]
) -> Exited | Signaled:
    ended: list[Exited | Signaled] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_forward_signals, sandbox, cid, signals)
        ended.append(await sandbox.wait(cid))
        tasks.cancel_scope.cancel()
    return ended[0]


async def _forward_signals(
    sandbox: SandboxClient, cid: str, signals: AsyncIterator[signal.Signals]
) -> None:
    async for signo in signals:
        try:
            await sandbox.signal(signo, cid)
        except ManagerError as error:
            click.echo(f"sandtrail: {error}", err=True)
