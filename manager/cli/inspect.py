"""``sandtrail inspect``."""

from pathlib import Path

import click

from manager.cli.session import run_async, sandbox_of, target_argument
from manager.terminal.output import json_option
from manager.terminal.past import print_inspection, show_target
from manager.terminal.place import log_option, root_option
from manager.terminal.reading import at_option


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
    shown = run_async(sandbox_of(root, target)[0].state)
    print_inspection(shown, target, as_json=as_json)
