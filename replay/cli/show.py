"""``sandtrail replay show``."""

from pathlib import Path

import click

from manager.terminal.output import json_option
from manager.terminal.past import show_sandboxes, show_target
from manager.terminal.place import WHEN, complete_target_lazily, log_option, root_option


@click.command("show")
@root_option
@log_option
@json_option
@click.option("--at", default="head", type=WHEN, help="The point; see `sandtrail help when`.")
@click.argument(
    "target",
    required=False,
    metavar="[SANDBOX[/CONTAINER]]",
    shell_complete=complete_target_lazily,
)
def command(root: Path, log: Path | None, as_json: bool, at: str, target: str | None) -> None:
    """Show what there was at a point: all sandboxes, or everything about one.

    The layout and the JSON are those of `ps` and `inspect`.
    """
    if target is None:
        show_sandboxes(root, log, at, as_json=as_json)
    else:
        show_target(root, log, target, at, as_json=as_json)
