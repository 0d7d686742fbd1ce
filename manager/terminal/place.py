"""Where the state of a service lies, and its log."""

from pathlib import Path
from typing import Final

import click

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
