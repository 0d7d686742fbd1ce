"""``--timeout``: how long a command waits for something that may never come."""

import math
import re
from typing import Any, Final

import click
from typing_extensions import override

DURATION: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s|m|h|)")
SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "": 1}


class Seconds(click.FloatRange):
    """A number of seconds that is one: NaN is in every range, and what is infinite never comes."""

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return number


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
