"""HTML by functions: text is always escaped, so nothing that a log holds can become markup."""

from html import escape
from typing import TypeAlias

from manager.terminal.table import printable


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Part: TypeAlias = "str | Markup | int | float | list[Markup]"
VOID = frozenset({"meta", "input", "br"})


def text(value: object) -> Markup:
    """A value as text of a page; what a terminal or a browser would obey is shown by its number."""
    return Markup(escape(printable(str(value))))


def joined(parts: list[Markup]) -> Markup:
    """Parts side by side."""
    return Markup("".join(parts))


def tag(name: str, /, *children: Part, **attributes: object) -> Markup:
    """An element; ``class_`` and ``for_`` lose their underscore, others get hyphens for theirs.

    An attribute that is None is left out, one that is True has no value.
    """
    shown = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{shown}>")
    return Markup(f"<{name}{shown}>{''.join(map(_child, children))}</{name}>")


def _child(child: Part) -> str:
    if isinstance(child, list):
        return "".join(child)
    return child if isinstance(child, Markup) else text(child)


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    shown = name.rstrip("_").replace("_", "-")
    return f" {shown}" if value is True else f' {shown}="{text(value)}"'


def table(columns: list[str], rows: list[list[Part]], **attributes: object) -> Markup:
    """A table whose first column names the row."""
    head = tag("tr", [tag("th", column, scope="col") for column in columns])
    body = [
        tag("tr", tag("th", row[0], scope="row"), [tag("td", cell) for cell in row[1:]])
        for row in rows
    ]
    found = tag("table", tag("thead", head), tag("tbody", body), **attributes)
    return tag("div", found, class_="scroll")
