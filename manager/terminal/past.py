"""What a log says of the past, shown as the live commands show the present."""

from pathlib import Path
from typing import Any

import click
import msgspec

from eventstore import open_log
from manager.domain.state import Sandbox
from manager.schema.node_fold import NodeFold
from manager.schema.past import AsOf, fold_at, fold_log_at, lived_until
from manager.schema.summary import inspection, summary
from manager.terminal.manners import page
from manager.terminal.output import print_json
from manager.terminal.reading import log_path, read_log, say_as_of, unknown
from manager.terminal.sandbox_filter import NO_FILTER, SandboxFilter
from manager.terminal.sandboxes import print_sandboxes
from manager.terminal.target import full_target
from manager.terminal.tree import tree_lines


def show_sandboxes(
    root: Path,
    log: Path | None,
    when: str,
    *,
    as_json: bool,
    everything: bool = False,
    chosen: SandboxFilter = NO_FILTER,
) -> None:
    """As ``ps``, at a point of the past; ``everything``: with what was destroyed by then."""
    path = log_path(root, log)
    fold, moment = read_log(lambda: fold_at(path, when))
    items = [summary(folded.state, destroyed=everything) for folded in fold.live.values()]
    page()
    if as_json:
        shown = chosen.chosen(items) if chosen else items
        print_json("ps", as_of=msgspec.to_builtins(moment), items=shown)
        return
    say_as_of(moment)
    print_sandboxes(items, chosen)


def show_target(root: Path, log: Path | None, target: str, when: str, *, as_json: bool) -> None:
    """As ``inspect``, at a point of the past."""
    path = log_path(root, log)

    async def call() -> tuple[NodeFold, AsOf, str, int]:
        async with open_log(path, read_only=True) as opened:
            fold, moment = await fold_log_at(opened, path, when)
            owned = {each: folded.state.containers for each, folded in fold.live.items()}
            meant = full_target(target, owned)
            sandbox_id = meant.partition("/")[0]
            gone = sandbox_id not in fold.live
            last = await lived_until(opened, sandbox_id, moment.position) if gone else 0
            return fold, moment, meant, last

    fold, moment, target, last = read_log(call)
    sandbox_id = target.partition("/")[0]
    if sandbox_id not in fold.live:
        unknown("sandbox", sandbox_id, list(fold.live), lived_until=last)
    print_target(fold.live[sandbox_id].state, target, as_json=as_json, moment=moment)


def print_target(
    sandbox: Sandbox, target: str, *, as_json: bool, moment: AsOf | None = None
) -> None:
    """Show a sandbox, or one container of it if the target names one."""
    print_inspection(inspection(sandbox), target, as_json=as_json, moment=moment)


def print_inspection(
    shown: dict[str, Any], target: str, *, as_json: bool, moment: AsOf | None = None
) -> None:
    """Show what :func:`manager.schema.summary.inspection` gives, or one container of it."""
    _, slash, cid = target.partition("/")
    if slash:
        if cid not in shown["containers"]:
            unknown("container", cid, list(shown["containers"]))
        shown = shown["containers"][cid]
    page()
    if as_json:
        when = {} if moment is None else {"as_of": msgspec.to_builtins(moment)}
        print_json("inspect", **when, item=shown)
        return
    if moment is not None:
        say_as_of(moment)
    for line in tree_lines(shown):
        click.echo(line)
