"""Tables for people: bounded to the terminal, and deaf to escapes in what clients named."""

import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NoReturn

import click
from typing_extensions import override

from manager.terminal.manners import output_wanted, page

if TYPE_CHECKING:
    from rich.console import Console

LAST_COLUMN_CHARS_MIN: Final = 28
UNUSUAL: Final = re.compile(r"[^\n\x20-\x7e]")
PLAIN: Final = re.compile(r"[\n\x20-\x7e]*")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; on a terminal the last column takes what room is left.

    Where nobody looks, or with ``-o plain``, it is neither wrapped nor cut, and has no rule.
    """
    page()
    if is_plain():
        click.echo("\n".join(plain_table(columns, list(rows))))
        return
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - heavy, and only people look at tables
    from rich.table import Table  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns[:-1]:
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    table.add_column(columns[-1], overflow="fold", min_width=LAST_COLUMN_CHARS_MIN)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console().print(table)


def console() -> "Console":
    """What prints for people; whoever leaves it early ends the command as any other reader."""
    from rich.console import Console  # noqa: PLC0415 - heavy, and only people look at terminals

    class Left(Console):
        """Rich itself would end the process with 1."""

        @override
        def on_broken_pipe(self) -> NoReturn:
            raise BrokenPipeError

    return Left()


def is_plain() -> bool:
    """Whether tables are for no person at a terminal: as wide as they are, without any escapes."""
    looked_at = sys.stdout.isatty() or os.environ.get("FORCE_COLOR")
    return (output_wanted() or ("table" if looked_at else "plain")) == "plain"


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table without any escapes, as wide as its cells need."""
    cells = [list(columns), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def printable(text: str) -> str:
    """Show what a terminal would obey (escapes, line ends, direction marks) by their numbers."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def harmless_json(body: bytes) -> str:
    """JSON text that says the same, with nothing in it that a terminal would obey."""
    text = body.decode()
    return text if PLAIN.fullmatch(text) else UNUSUAL.sub(_escaped, text)


def _escaped(found: "re.Match[str]") -> str:
    """A character as JSON escapes it, if it is not one that is shown."""
    char = found[0]
    if char.isprintable():
        return char
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def local_time(at_ns: int) -> str:
    """A time of day with milliseconds, in the local zone."""
    seconds, nanos = divmod(at_ns, 1_000_000_000)
    clock = time.strftime("%H:%M:%S", time.localtime(seconds))
    return f"{clock}.{nanos // 1_000_000:03d}"


def full_time(at_ns: int) -> str:
    """A moment with its date, to the millisecond, in the local zone with its offset."""
    seconds, nanos = divmod(at_ns, 1_000_000_000)
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", local)
    return f"{stamp}.{nanos // 1_000_000:03d}{zone[:3]}:{zone[3:]}"
