"""What a command prints for programs, and the options by which one asks for it."""

from typing import Any

import click
import msgspec

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(schema: str, **members: Any) -> None:
    """Print one JSON object with the name of its schema."""
    body = msgspec.json.encode({"schema": f"sandtrail.{schema}/v1", **members})
    click.echo(msgspec.json.format(body, indent=2).decode())


def done(as_json: bool, schema: str, text: str, **members: Any) -> None:
    """Tell that a command has done its work: the id that it worked on, or JSON."""
    if as_json:
        print_json(schema, **members)
    else:
        click.echo(text)
