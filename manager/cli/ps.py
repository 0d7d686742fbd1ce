"""``sandtrail ps``."""

from pathlib import Path
from typing import Any

import click

from manager.terminal.output import json_option, print_json
from manager.terminal.place import WHEN, log_option, root_option
from manager.terminal.sandboxes import print_sandboxes


@click.command("ps")
@root_option
@log_option
@json_option
@click.option("--at", type=WHEN, help="A point of the past; see `sandtrail help when`.")
def command(root: Path, log: Path | None, as_json: bool, at: str | None) -> None:
    """List sandboxes and their containers; with --at those of that time, from the log alone."""
    if at is not None or log is not None:
        from manager.terminal.past import show_sandboxes  # noqa: PLC0415 - only for the past

        show_sandboxes(root, log, at or "head", as_json=as_json)
        return
    from manager.cli.session import client_of, run_async  # noqa: PLC0415 - only for what lives

    found: list[dict[str, Any]] = run_async(lambda: client_of(root).sandboxes())
    if as_json:
        print_json("ps", items=found)
    else:
        print_sandboxes(found)
