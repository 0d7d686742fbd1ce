"""Nested values for people: one ``path: value`` a line, indented."""

from collections.abc import Iterator
from typing import Any

import msgspec

from manager.terminal.table import printable


def tree_lines(value: Any, indent: str = "") -> Iterator[str]:
    """Show an object of JSON; what is empty is left out."""
    for name, member in value.items():
        shown = printable(str(name))
        if isinstance(member, dict) and member:
            yield f"{indent}{shown}:"
            yield from tree_lines(member, indent + "  ")
        elif isinstance(member, list) and any(isinstance(each, dict) for each in member):
            yield f"{indent}{shown}:"
            for number, each in enumerate(member):
                yield f"{indent}  [{number}]"
                yield from tree_lines(each, indent + "    ")
        elif member not in (None, "", [], {}):
            yield f"{indent}{shown}: {scalar(member)}"


def scalar(value: Any) -> str:
    """A value on one line: text as it is, everything else as JSON."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return printable(text)
