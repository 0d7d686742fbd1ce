"""``sandtrail create``."""

import os
from pathlib import Path
from typing import Any

import click

from manager.cli.container_options import (
    ContainerOptions,
    build_spec,
    container_options,
    open_donation,
)
from manager.cli.session import client_of, done, json_option, root_option, run_async


@click.command("create")
@root_option
@json_option
@click.argument("sandbox")
@container_options
def command(root: Path, as_json: bool, sandbox: str, **described: Any) -> None:
    """Register SANDBOX with its root container, which runs COMMAND once it is started.

    The container's stdin, stdout and stderr are those of this command.
    """
    options = ContainerOptions(**described)

    async def call() -> None:
        with open_donation(options, stdio_of_caller()) as donation:
            await client_of(root).create_sandbox(sandbox, build_spec(options, sandbox), donation)

    run_async(call)
    done(as_json, "create", sandbox, sandbox=sandbox)


def stdio_of_caller() -> tuple[int, int, int]:
    """This process's own three streams; raises OSError if one of them is closed."""
    for fd in (0, 1, 2):
        os.fstat(fd)
    return 0, 1, 2
