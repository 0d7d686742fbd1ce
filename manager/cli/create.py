"""``sandtrail create``."""

from pathlib import Path
from typing import Any

import click

from manager.cli.container_options import (
    ContainerOptions,
    build_spec,
    container_options,
    open_donation,
)
from manager.cli.session import client_of, run_async
from manager.terminal.output import done, json_option
from manager.terminal.place import root_option


@click.command("create")
@root_option
@json_option
@click.option("-a", "--attach", is_flag=True, help="Lend it this command's own stdio.")
@click.argument("sandbox")
@container_options
def command(root: Path, as_json: bool, attach: bool, sandbox: str, **described: Any) -> None:
    """Register SANDBOX with its root container, which runs COMMAND once it is started.

    Its stdin, stdout and stderr are /dev/null unless --attach is given.
    """
    options = ContainerOptions(**described)

    async def call() -> None:
        with open_donation(options, attach=attach) as donation:
            await client_of(root).create_sandbox(sandbox, build_spec(options, sandbox), donation)

    run_async(call)
    done(as_json, "create", sandbox, sandbox=sandbox)
