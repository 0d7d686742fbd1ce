"""``sandtrail rm``."""

from pathlib import Path

import click

from manager.cli.session import run_async, sandbox_of, target_argument
from manager.terminal.output import done, json_option
from manager.terminal.place import root_option


@click.command("rm")
@root_option
@json_option
@click.option("-f", "--force", is_flag=True, help="End what still runs in a sandbox first.")
@target_argument
def command(root: Path, as_json: bool, force: bool, target: str) -> None:
    """Delete a sandbox, or destroy one container in it (which ends the container).

    What happened stays in the log.
    """
    sandbox, cid = sandbox_of(root, target)

    async def call() -> None:
        if cid == sandbox.id:
            await sandbox.delete(force=force)
        else:
            await sandbox.destroy(cid)

    run_async(call)
    done(as_json, "rm", target, container=target)
