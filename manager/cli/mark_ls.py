"""``sandtrail mark ls``."""

from pathlib import Path
from typing import Any

import click

from eventstore import open_log
from manager.schema.marks import Mark, read_marks
from manager.terminal.manners import say
from manager.terminal.output import json_option, print_json
from manager.terminal.place import log_option, root_option
from manager.terminal.reading import log_path, read_log
from manager.terminal.table import full_time, print_table

COLUMNS = ("NAME", "POINT", "MARKED", "BY", "MESSAGE")


@click.command("ls")
@root_option
@log_option
@json_option
def command(root: Path, log: Path | None, as_json: bool) -> None:
    """List marks, the oldest first, from the log alone."""
    path = log_path(root, log)

    async def call() -> list[Mark]:
        async with open_log(path, read_only=True) as events:
            return [*(await read_marks(events)).values()]

    marks = read_log(call)
    if as_json:
        print_json("marks", items=[_object(each) for each in marks])
        return
    if marks:
        print_table(COLUMNS, [_row(each) for each in marks])
    say(f"{len(marks)} marks")


def _row(mark: Mark) -> tuple[str, ...]:
    actor = mark.actor
    return (
        mark.name,
        f"#{mark.at}",
        full_time(mark.recorded_at_ns),
        "-" if actor is None else f"uid:{actor.uid}",
        mark.message,
    )


def _object(mark: Mark) -> dict[str, Any]:
    actor = mark.actor
    return {
        "name": mark.name,
        "at": mark.at,
        "position": mark.position,
        "recorded_at_ns": mark.recorded_at_ns,
        "message": mark.message,
        "actor": None if actor is None else {"uid": actor.uid, "gid": actor.gid, "pid": actor.pid},
    }
