"""``sandtrail inspect``."""

from pathlib import Path
from typing import Any

import click

from manager.cli.session import client_of, run_async, split_target, target_argument
from manager.terminal.output import json_option
from manager.terminal.past import print_inspection, show_target
from manager.terminal.place import log_option, root_option
from manager.terminal.reading import at_option, unknown


@click.command("inspect")
@root_option
@log_option
@json_option
@at_option
@target_argument
def command(root: Path, log: Path | None, as_json: bool, at: str | None, target: str) -> None:
    """Show everything that is known of a sandbox or a container; with --at, of that time."""
    if at is not None or log is not None:
        show_target(root, log, target, at or "head", as_json=as_json)
        return
    client, sandbox_id = client_of(root), split_target(target)[0]

    async def call() -> tuple[dict[str, Any], list[str]]:
        known = [each["ID"] for each in await client.sandboxes()]
        shown = await client.sandbox(sandbox_id).state() if sandbox_id in known else {}
        return shown, known

    shown, known = run_async(call)
    if not shown:
        unknown("sandbox", sandbox_id, known)
    print_inspection(shown, target, as_json=as_json)
