"""Sentences for people, as wide as their terminal."""

import shutil
import sys
import textwrap


def folded(text: str, indent: int = 0, *, err: bool = False) -> str:
    """A line, broken between words where a terminal is full, what follows indented.

    Where no person looks it stays the one line that programs search for. ``err`` if it is for
    stderr.
    """
    stream = sys.stderr if err else sys.stdout
    # Absent if the process was started with the descriptor closed.
    if stream is None or not stream.isatty():
        return text
    return hanging(text, shutil.get_terminal_size().columns, indent)


def hanging(text: str, columns: int, indent: int = 0) -> str:
    """A line broken between words, what follows the first part indented; words stay whole."""
    lines = textwrap.wrap(
        text,
        columns,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)
