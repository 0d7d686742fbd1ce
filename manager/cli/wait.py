"""``sandtrail wait``."""

import sys
from pathlib import Path

import click

from manager.cli.session import run_async, sandbox_of, target_argument
from manager.domain.exit_status import to_shell_code
from manager.terminal.output import json_option, print_json
from manager.terminal.place import root_option


@click.command("wait")
@root_option
@json_option
@click.option("--pass", "pass_on", is_flag=True, help="Exit with the container's status.")
@target_argument
def command(root: Path, as_json: bool, pass_on: bool, target: str) -> None:
    """Wait until a container has ended and print its exit code (128 plus a signal's number).

    The log remembers: the same answer comes every time, also after the container was destroyed.
    """
    sandbox, cid = sandbox_of(root, target)
    ended = run_async(lambda: sandbox.wait(cid))
    if as_json:
        print_json("wait", container=target, exit=ended)
    else:
        click.echo(to_shell_code(ended))
    sys.exit(to_shell_code(ended) if pass_on else 0)
