"""What a shell may complete: ids of the log at the point that the line names, its marks, its types.

Nothing is completed where the log cannot be read: a shell is no place for errors.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import anyio
import click
import msgspec
from click.shell_completion import CompletionItem

from eventstore import open_log
from manager.schema.events import EVENT_TYPES
from manager.schema.layout import LOG_FILE
from manager.schema.marks import read_marks
from manager.schema.node_events import NODE_EVENT_TYPES
from manager.schema.node_fold import STREAM_PREFIX, NodeFold
from manager.schema.past import fold_at
from manager.terminal.manners import said_before
from manager.terminal.place import DEFAULT_ROOT

CREATED: Final = ("sandbox.created", "container.created")
CREATED_MAX: Final = 10_000
"""Containers that are looked at; a shell should not wait for those before."""
WORDS: Final = ("head", "now", "today", "yesterday")


def complete_target(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Sandboxes, and after a slash the containers of one."""
    fold = _fold(ctx)
    sandbox_id, slash, _rest = incomplete.partition("/")
    if not slash:
        names = list(fold.live)
    elif sandbox_id in fold.live:
        names = [f"{sandbox_id}/{cid}" for cid in fold.live[sandbox_id].state.containers]
    else:
        names = []
    return _those(names, incomplete)


def complete_sandbox(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Sandboxes that there are or were: those whose events the log has."""
    return _those(sorted({sandbox for sandbox, _ in _ever(ctx, None)}), incomplete)


def complete_container(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Containers that there are or were, of the sandbox that the line names or of all."""
    sandbox_id = ctx.params.get("sandbox") or None
    return _those(sorted({cid for _, cid in _ever(ctx, sandbox_id)}), incomplete)


def complete_type(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Tags of events."""
    return _those(sorted({**EVENT_TYPES, **NODE_EVENT_TYPES}), incomplete)


def complete_when(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Marks, and words that are points."""

    async def marks() -> Sequence[str]:
        async with open_log(_log(ctx), read_only=True) as log:
            return [f"mark:{name}" for name in await read_marks(log)]

    try:
        known = anyio.run(marks)
    except Exception:
        known = []
    return _those([*known, *WORDS], incomplete)


def _ever(ctx: click.Context, sandbox_id: str | None) -> Sequence[tuple[str, str]]:
    """Sandbox and cid of the containers that were created last."""
    stream = None if sandbox_id is None else STREAM_PREFIX + sandbox_id

    async def created() -> Sequence[tuple[str, str]]:
        found = []
        async with open_log(_log(ctx), read_only=True) as log:
            async for record in log.read(stream, types=CREATED, backwards=True, limit=CREATED_MAX):
                sandbox = record.stream.removeprefix(STREAM_PREFIX)
                body = msgspec.json.decode(record.data, type=_Created)
                found.append((sandbox, body.container or sandbox))
        return found

    try:
        return anyio.run(created)
    except Exception:
        return ()


class _Created(msgspec.Struct):
    """What names the container, but for the root's."""

    container: str = ""


def _fold(ctx: click.Context) -> NodeFold:
    at = ctx.params.get("at") or said_before(ctx, "at") or "head"
    try:
        fold, _moment = anyio.run(fold_at, _log(ctx), at)
    except Exception:
        return NodeFold()
    return fold


def _log(ctx: click.Context) -> Path:
    return Path(ctx.params.get("log") or Path(ctx.params.get("root") or DEFAULT_ROOT) / LOG_FILE)


def _those(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
