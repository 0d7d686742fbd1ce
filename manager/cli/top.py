"""``sandtrail top``."""

from pathlib import Path

import click

from manager.cli.session import run_async, sandbox_of, target_argument
from manager.terminal.manners import say
from manager.terminal.output import json_option, print_json
from manager.terminal.place import root_option

COLUMNS = ("PID", "PPID", "UID", "C", "TTY", "STIME", "TIME", "CMD")


@click.command("top")
@root_option
@json_option
@target_argument
def command(root: Path, as_json: bool, target: str) -> None:
    """List the processes of a container, or of a whole sandbox.

    Pids are those that the container itself sees.
    """
    sandbox, cid = sandbox_of(root, target)
    found = run_async(lambda: sandbox.processes(cid if "/" in target else ""))
    if as_json:
        print_json("top", items=found)
        return
    from manager.terminal.table import print_table  # noqa: PLC0415 - rich, only for people

    print_table(COLUMNS, [[str(row[name.lower()]) for name in COLUMNS] for row in found])
    say(f"processes: {len(found)}")
