"""Where the state of a service lies, and its log."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

DEFAULT_ROOT: Final = "/var/lib/sandtrail"

root_option = click.option(
    "--root",
    type=click.Path(path_type=Path),
    envvar="SANDTRAIL_ROOT",
    default=DEFAULT_ROOT,
    show_default=True,
    show_envvar=True,
    help="State directory of the service.",
)
log_option = click.option(
    "--log",
    "log",
    type=click.Path(path_type=Path),
    envvar="SANDTRAIL_LOG",
    show_envvar=True,
    help="The log's file, instead of the one in --root.",
)


def complete_target_lazily(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    """As :func:`manager.terminal.completing.complete_target`, loaded when a shell asks."""
    from manager.terminal.completing import complete_target  # noqa: PLC0415 - it reads the log

    return complete_target(ctx, param, incomplete)
