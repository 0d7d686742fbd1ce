"""``sandtrail replay``: states of the past, what led there, and what would have been."""

from typing import Final

import click

from manager.terminal.lazy import LazyGroup

COMMANDS: Final = {
    "show": "replay.cli.show",
    "diff": "replay.cli.diff",
    "why": "replay.cli.why",
    "check": "replay.cli.check",
    "whatif": "replay.cli.whatif",
    "bisect": "replay.cli.bisect",
}


@click.command("replay", cls=LazyGroup, commands_in=COMMANDS)
def command() -> None:
    """Ask the log for states of the past, what led to them, and what would have been otherwise.

    Everything is read from the log's file: no service needs to run, and nothing is changed.
    """
