"""``sandtrail stats``."""

from pathlib import Path
from typing import Any

import click

from manager.cli.session import run_async, sandbox_of, target_argument
from manager.terminal.output import json_option, print_json
from manager.terminal.place import root_option

COLUMNS = ("CONTAINER", "CPU", "MEMORY", "LIMIT", "PIDS")
MIB = 1024 * 1024


@click.command("stats")
@root_option
@json_option
@target_argument
def command(root: Path, as_json: bool, target: str) -> None:
    """Tell what a container uses: CPU time, memory, processes."""
    sandbox, cid = sandbox_of(root, target)
    found = run_async(lambda: sandbox.stats(cid))
    if as_json:
        print_json("stats", **found)
        return
    from manager.terminal.table import print_table  # noqa: PLC0415 - rich, only for people

    print_table(COLUMNS, [_row(found["event"])])


def _row(event: dict[str, Any]) -> tuple[str, ...]:
    data = event["data"]
    memory = data["memory"]["usage"]
    return (
        event["id"],
        f"{data['cpu']['usage'].get('total', 0) / 1e9:.2f}s",
        f"{memory.get('usage', 0) / MIB:.1f} MiB",
        f"{memory['limit'] / MIB:.0f} MiB" if memory["limit"] else "-",
        str(data["pids"].get("current", "-")),
    )
