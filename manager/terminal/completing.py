"""Ids that a shell may complete: those of the log, at the point that the line names."""

from pathlib import Path

import anyio
import click
from click.shell_completion import CompletionItem

from manager.schema.layout import LOG_FILE
from manager.schema.past import fold_at
from manager.terminal.place import DEFAULT_ROOT


def complete_target(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Sandboxes, and after a slash the containers of one.

    Nothing is completed where the log cannot be read: a shell is no place for errors.
    """
    log = ctx.params.get("log") or Path(ctx.params.get("root") or DEFAULT_ROOT) / LOG_FILE
    at = ctx.params.get("at") or "head"
    try:
        fold, _moment = anyio.run(fold_at, Path(log), at)
    except Exception:
        return []
    sandbox_id, slash, _rest = incomplete.partition("/")
    if not slash:
        names = list(fold.live)
    elif sandbox_id in fold.live:
        names = [f"{sandbox_id}/{cid}" for cid in fold.live[sandbox_id].state.containers]
    else:
        names = []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
