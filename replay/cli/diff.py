"""``sandtrail replay diff``."""

import sys
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from manager.schema.past import AsOf
from manager.terminal.ending import EXIT_NO
from manager.terminal.manners import page, say
from manager.terminal.output import json_option, print_json
from manager.terminal.place import WHEN, log_option, root_option
from manager.terminal.reading import log_path, read_log, unknown
from manager.terminal.table import full_time, printable
from manager.terminal.tree import scalar
from replay.cli.log_table import log_row, print_events
from replay.comparison import states
from replay.difference import Difference, as_patch, differences
from replay.selection import Selection
from replay.trail import Trail, Window

VALUE_CHARS_MAX: Final = 120
SIGNS: Final = {"added": "+", "removed": "-", "changed": "~"}


@click.command("diff")
@root_option
@log_option
@json_option
@click.option("--events", "with_events", is_flag=True, help="Print the events between, too.")
@click.argument("before", type=WHEN)
@click.argument("after", type=WHEN)
@click.argument("ids", nargs=-1, metavar="[SANDBOX]...")
def command(
    root: Path,
    log: Path | None,
    as_json: bool,
    with_events: bool,
    before: str,
    after: str,
    ids: tuple[str, ...],
) -> None:
    """Compare the states at two points, field by field: all sandboxes, or those named.

    What was added or removed comes first. Exits 1 if they differ. With --json the differences are
    there as a JSON patch, too.
    """
    path = log_path(root, log)

    async def call() -> tuple[AsOf, AsOf, list[Difference], list[Any]]:
        async with Trail.open(path) as trail:
            first, from_ = await states(trail, before)
            second, to = await states(trail, after)
            if missing := [each for each in ids if each not in first and each not in second]:
                unknown("sandbox", missing[0], [*first, *second])
            if ids:
                first, second = _only(first, ids), _only(second, ids)
            low, high = sorted((from_.position, to.position))
            window = Window(first=low + 1, last=high)
            between = trail.events(Selection(), window)
            events = [each async for each in between] if with_events else []
            found = sorted(differences(first, second), key=lambda each: each.kind == "changed")
            return from_, to, found, events

    from_, to, found, events = read_log(call)
    page()
    if as_json:
        print_json(
            "diff",
            **{"from": msgspec.to_builtins(from_), "to": msgspec.to_builtins(to)},
            differences=[_item(each) for each in found],
            patch=as_patch(found),
        )
    else:
        say(f"from {_point(from_)} to {_point(to)}")
        for each in found:
            click.echo(difference_line(each))
        say(f"{len(found)} differences" if found else "no difference")
        if events:
            print_events([log_row(record) for record in events])
    sys.exit(EXIT_NO if found else 0)


def _only(states: dict[str, dict[str, Any]], ids: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    return {name: shown for name, shown in states.items() if name in ids}


def _item(found: Difference) -> dict[str, Any]:
    """A difference as JSON; a side that lacks the field has no member for it."""
    item: dict[str, Any] = {"path": list(found.path), "kind": found.kind}
    if found.kind != "added":
        item["before"] = found.before
    if found.kind != "removed":
        item["after"] = found.after
    return item


def _point(moment: AsOf) -> str:
    return f"#{moment.position}" + (f" {full_time(moment.time_ns)}" if moment.time_ns else "")


def difference_line(found: Difference) -> str:
    """A difference for people, long values cut."""
    path = printable(".".join(found.path))
    match found.kind:
        case "added":
            text = _short(found.after)
        case "removed":
            text = _short(found.before)
        case _:
            text = f"{_short(found.before)} -> {_short(found.after)}"
    return f"{SIGNS[found.kind]} {path}: {text}"


def _short(value: Any) -> str:
    text = scalar(value)
    return text if len(text) <= VALUE_CHARS_MAX else text[: VALUE_CHARS_MAX - 3] + "..."
