"""``sandtrail start``."""

from pathlib import Path

import click

from manager.cli.session import client_of, run_async, split_target, target_argument
from manager.terminal.ending import EXIT_NOT_STARTED
from manager.terminal.output import done, json_option
from manager.terminal.place import root_option


@click.command("start")
@root_option
@json_option
@target_argument
@click.pass_context
def command(ctx: click.Context, root: Path, as_json: bool, target: str) -> None:
    """Start the root container of SANDBOX.

    A further container needs to be described; see `sandtrail run SANDBOX/CONTAINER`.
    """
    sandbox_id, cid = split_target(target)
    if cid != sandbox_id:
        ctx.fail(f"{target} is no root container: use `sandtrail run -d {target} …` to start it")

    async def call() -> None:
        await client_of(root).sandbox(sandbox_id).start_root()

    run_async(call, refused=EXIT_NOT_STARTED)
    done(as_json, "start", target, sandbox=sandbox_id, container=cid)
