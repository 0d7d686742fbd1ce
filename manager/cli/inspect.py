"""``sandtrail inspect``."""

from pathlib import Path
from typing import Any

import click

from manager.cli.session import client_of, run_async, split_target, target_argument
from manager.terminal.output import json_option
from manager.terminal.past import print_inspection, show_target
from manager.terminal.place import log_option, root_option
from manager.terminal.reading import at_option, unknown
from manager.terminal.target import full_target


@click.command("inspect")
@root_option
@log_option
@json_option
@at_option
@target_argument
def command(root: Path, log: Path | None, as_json: bool, at: str | None, target: str) -> None:
    """Show everything that is known of a sandbox or a container; with --at, of that time.

    A container of which there is only one of that name needs no sandbox before it.
    """
    if at is not None or log is not None:
        show_target(root, log, target, at or "head", as_json=as_json)
        return
    client = client_of(root)

    async def call() -> tuple[dict[str, Any], str, list[str]]:
        known = {
            each["ID"]: [container["CID"] for container in each["Containers"]]
            for each in await client.sandboxes()
        }
        meant = full_target(target, known)
        sandbox_id, _ = split_target(meant)
        shown = await client.sandbox(sandbox_id).state() if sandbox_id in known else {}
        return shown, meant, list(known)

    shown, target, known = run_async(call)
    if not shown:
        unknown("sandbox", split_target(target)[0], known)
    print_inspection(shown, target, as_json=as_json)
