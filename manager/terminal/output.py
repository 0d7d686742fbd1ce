"""What a command prints for programs, and the options by which one asks for it."""

from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from manager.terminal.manners import OUTPUTS, note_output, output_wanted
from manager.terminal.table import harmless_json

C = TypeVar("C", bound=Callable[..., Any])


def json_option(command: C) -> C:
    """Add ``--json``, and ``--output``, which has other forms beside it."""
    return output_option(OUTPUTS)(command)


def output_option(forms: tuple[str, ...]) -> Callable[[C], C]:
    """As :func:`json_option`, for a command with these forms."""

    def add(command: C) -> C:
        for option in (
            click.option("-o", "--output", type=click.Choice(forms), callback=note_output,
                         expose_value=False, is_eager=True, help="How to print."),
            click.option("--json", "as_json", is_flag=True, callback=_is_json,
                         help="Print JSON; as -o json."),
        ):  # fmt: skip
            command = option(command)
        return command

    return add


def _is_json(_: click.Context, __: click.Parameter, wanted: bool) -> bool:
    return wanted or output_wanted() in {"json", "jsonl"}


def print_json(schema: str, **members: Any) -> None:
    """Print one JSON object with the name of its schema; with ``-o jsonl`` on one line."""
    body = msgspec.json.encode({"schema": f"sandtrail.{schema}/v1", **members})
    on_one_line = output_wanted() == "jsonl"
    click.echo(harmless_json(body if on_one_line else msgspec.json.format(body, indent=2)))


def done(as_json: bool, schema: str, text: str, **members: Any) -> None:
    """Tell that a command has done its work: the id that it worked on, or JSON."""
    if as_json:
        print_json(schema, **members)
    else:
        click.echo(text)
