"""``sandtrail audit reconcile``: is the machine as the log says?"""

import sys
from pathlib import Path

import click
import msgspec

from manager.schema.layout import LOG_FILE
from manager.terminal.ending import EXIT_NO
from manager.terminal.folding import folded
from manager.terminal.output import json_option, print_json
from manager.terminal.place import root_option
from manager.terminal.reading import log_path, read_log
from replay.evidence.machine_view import MachineView
from replay.evidence.reconcile import Reconciliation, reconcile
from replay.trail import Trail


@click.command("reconcile")
@root_option
@json_option
def command(root: Path, as_json: bool) -> None:
    """Compare the log's last state with processes, cgroups, mounts and sockets.

    A ghost is recorded and not there, an orphan is there and not recorded,
    drift is there in another way. Nothing is changed; a service that runs is
    not asked. What is found is looked for twice, half a second apart.

    \b
    Exit codes: 0 as recorded, 1 differences, 5 not found or unreadable.
    """
    path = log_path(root, None)

    async def call() -> Reconciliation:
        async with Trail.open(path) as trail:
            return await reconcile(trail, MachineView(root))

    told = read_log(call)
    if as_json:
        print_json("audit-reconcile", log=str(root / LOG_FILE), **msgspec.to_builtins(told))
    else:
        _tell(told)
    sys.exit(EXIT_NO if told.found else 0)


def _tell(told: Reconciliation) -> None:
    from manager.terminal.table import print_table  # noqa: PLC0415 - only for people

    if told.found:
        rows = [(each.kind, each.layer, each.subject, each.text) for each in told.found]
        print_table(("KIND", "LAYER", "WHERE", "WHAT"), rows)
    runs = "the service runs" if told.service_runs else "the service does not run"
    click.echo(
        f"#{told.position}: {told.containers} containers looked for, "
        f"{len(told.found)} differences; {runs}"
    )
    for sentence in told.skipped:
        click.echo(folded(f"not looked at: {sentence}", 2))
