"""``sandtrail ps``."""

from pathlib import Path
from typing import Any

import click

from manager.terminal.output import json_option, print_json
from manager.terminal.place import WHEN, log_option, root_option
from manager.terminal.sandbox_filter import SandboxFilter, parse_filters
from manager.terminal.sandboxes import print_sandboxes


@click.command("ps")
@root_option
@log_option
@json_option
@click.option("--at", type=WHEN, help="A point of the past; see `sandtrail help when`.")
@click.option("-a", "--all", "everything", is_flag=True,
              help="Destroyed containers, too; what has ended is shown anyway.")  # fmt: skip
@click.option("--filter", "chosen", multiple=True, metavar="KEY=VALUE", callback=parse_filters,
              help="Only these: sandbox, container, state, engine or command; * and ? as in a "
              "shell. Repeatable: any of one key, all of several keys.")  # fmt: skip
def command(
    root: Path,
    log: Path | None,
    as_json: bool,
    at: str | None,
    everything: bool,
    chosen: SandboxFilter,
) -> None:
    """List sandboxes and their containers; with --at those of that time, from the log alone.

    With --all it is asked of the log, too, which has what was destroyed. Of a sandbox that was
    deleted `sandtrail log -s SANDBOX` tells, and `ps --at` of a point before.
    """
    if at is not None or log is not None or everything:
        from manager.terminal.past import show_sandboxes  # noqa: PLC0415 - only for the past

        show_sandboxes(
            root, log, at or "head", as_json=as_json, everything=everything, chosen=chosen
        )
        return
    from manager.cli.session import client_of, run_async  # noqa: PLC0415 - only for what lives

    found: list[dict[str, Any]] = run_async(lambda: client_of(root).sandboxes())
    if as_json:
        print_json("ps", items=chosen.chosen(found) if chosen else found)
    else:
        print_sandboxes(found, chosen)
