"""``--timeout``: how long a command waits for something that may never come."""

import re
from typing import Final

import click

DURATION: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s|m|h|)")
SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "": 1}


def seconds(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """A duration as people write it (``90``, ``90s``, ``2m``, ``500ms``), in seconds."""
    if text is None:
        return None
    found = DURATION.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no duration, such as 90s, 2m or 500ms")
    return float(found[1]) * SECONDS[found[2]]


timeout_option = click.option(
    "--timeout", callback=seconds, metavar="TIME", help="Stop after so long, with 124."
)
