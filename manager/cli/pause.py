"""``sandtrail pause``."""

from pathlib import Path

import click

from manager.cli.session import run_async, whole_sandbox
from manager.terminal.output import done, json_option
from manager.terminal.place import root_option


@click.command("pause")
@root_option
@json_option
@click.argument("sandbox")
def command(root: Path, as_json: bool, sandbox: str) -> None:
    """Stop every process of SANDBOX until it is resumed."""
    found = whole_sandbox(root, sandbox)
    run_async(found.pause)
    done(as_json, "pause", sandbox, sandbox=sandbox)
