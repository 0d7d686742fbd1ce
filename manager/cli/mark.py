"""``sandtrail mark``: names for points of the log."""

from typing import Final

import click

from manager.terminal.lazy import LazyGroup

COMMANDS: Final = {
    "add": ("manager.cli.mark_add", "Give a point of the log a name."),
    "ls": ("manager.cli.mark_ls", "List the names that points were given."),
}


@click.command("mark", cls=LazyGroup, commands_in=COMMANDS)
def command() -> None:
    """Give points of the log names, by which every command finds them: --at mark:NAME."""
