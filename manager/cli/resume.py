"""``sandtrail resume``."""

from pathlib import Path

import click

from manager.cli.session import run_async, whole_sandbox
from manager.terminal.output import done, json_option
from manager.terminal.place import root_option


@click.command("resume")
@root_option
@json_option
@click.argument("sandbox")
def command(root: Path, as_json: bool, sandbox: str) -> None:
    """Let a paused SANDBOX go on."""
    found = whole_sandbox(root, sandbox)
    run_async(found.resume)
    done(as_json, "resume", sandbox, sandbox=sandbox)
