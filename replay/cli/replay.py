"""``sandtrail replay``: states of the past, what led there, and what would have been."""

from typing import Final

import click

from manager.terminal.lazy import LazyGroup

COMMANDS: Final = {
    "show": ("replay.cli.show", "Show the state at a point, as ps and inspect do."),
    "diff": ("replay.cli.diff", "Compare the states at two points, field by field."),
    "step": ("replay.cli.step", "Go through a log event by event, in the terminal."),
    "why": ("replay.cli.why", "Say which events made a value what it is."),
    "check": ("replay.cli.check", "Take every recorded decision again, and compare."),
    "whatif": ("replay.cli.whatif", "Take decisions again with other settings or other code."),
    "bisect": ("replay.cli.bisect", "Find the first event after which something is so."),
}


@click.command("replay", cls=LazyGroup, commands_in=COMMANDS)
def command() -> None:
    """Ask the log for states of the past, what led to them, and what would have been otherwise.

    Everything is read from the log's file: no service needs to run, and nothing is changed.
    """
