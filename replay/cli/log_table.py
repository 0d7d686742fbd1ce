"""Events as a table, or where a terminal is too narrow for one as two lines each."""

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from eventstore import RecordedEvent
from manager.terminal.manners import page
from manager.terminal.table import (
    LAST_COLUMN_CHARS_MIN,
    console,
    is_plain,
    local_time,
    print_table,
    printable,
)
from replay.describe import detail
from replay.outcome import outcome_of
from replay.selection import container_of, payload, sandbox_of

COLUMNS: Final = (
    "#", "TIME", "SANDBOX", "CONTAINER", "EVENT", "OUTCOME", "ACTOR", "CAUSE", "DETAIL",
)  # fmt: skip
NONE: Final = "-"
GAP: Final = "  "
PLACE: Final = 2
"""Which part of an event's first line names what it is about."""
PADDING: Final = 3
"""Columns of a table on a terminal are so far from each other."""


def log_row(record: RecordedEvent, *, stepped: bool = False) -> tuple[str, ...]:
    """An event as the cells of COLUMNS; ``stepped`` if its time is before the last one's."""
    data = payload(record)
    clock = local_time(record.recorded_at_ns)
    return (
        str(record.position),
        f"\u27f2{clock}" if stepped else clock,
        sandbox_of(record) or NONE,
        container_of(record, data) or NONE,
        record.type,
        outcome_of(record.type, data) or NONE,
        f"uid:{record.actor.uid}" if record.actor is not None else NONE,
        f"#{record.causation}" if record.causation is not None else NONE,
        detail(data),
    )


def print_events(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows of :func:`log_row`."""
    page()
    columns = shutil.get_terminal_size().columns
    if is_plain() or _needed(rows) <= columns:
        print_table(COLUMNS, rows)
        return
    from rich.text import Text  # noqa: PLC0415 - heavy, and only people look at terminals

    shown = console()
    for line in narrow_lines(rows, columns):
        style = "" if line.startswith(" ") else "bold"
        shown.print(Text(line, style=style), soft_wrap=True)


def _needed(rows: Sequence[tuple[str, ...]]) -> int:
    """How wide a terminal has to be for a table of which no cell but the last is cut."""
    *widths, last = (max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True))
    return sum(widths) + PADDING * len(widths) + min(last, LAST_COLUMN_CHARS_MIN)


def narrow_lines(rows: Sequence[tuple[str, ...]], columns: int) -> Iterator[str]:
    """Each event on a line of its own, and below it, indented, what else there is to say of it.

    Args:
        rows: Of :func:`log_row`.
        columns: Nothing is wider, but for what is to be found by its first line alone.
    """
    heads = [_head(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*heads, strict=True)]
    # One long name makes its own line wide, and no other.
    widths[PLACE] -= min(widths[PLACE], max(0, sum(widths) + len(GAP) * len(widths) - columns))
    indent = " " * (widths[0] + len(GAP))
    for head, row in zip(heads, rows, strict=True):
        cells = (cell.ljust(width) for cell, width in zip(head, widths, strict=True))
        yield GAP.join(cells).rstrip()
        *_, actor, cause, about = map(printable, row)
        said = (each for each in (actor, f"cause {cause}", about) if each not in {NONE, "cause -"})
        text = " · ".join(filter(None, said))
        yield from textwrap.wrap(
            text, max(columns, 2 * len(indent)), initial_indent=indent, subsequent_indent=indent
        )


def _head(row: tuple[str, ...]) -> tuple[str, ...]:
    position, clock, sandbox, container, kind, outcome = map(printable, row[:6])
    where = sandbox if container in {NONE, sandbox} else f"{sandbox}/{container}"
    return position, clock, where, kind, outcome
