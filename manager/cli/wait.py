"""``sandtrail wait``."""

import sys
from pathlib import Path

import click

from manager.cli.session import run_async, sandbox_of, target_argument
from manager.domain.exit_status import Exited, Signaled, to_shell_code
from manager.terminal.ending import EXIT_TIMEOUT
from manager.terminal.output import json_option, print_json
from manager.terminal.place import root_option
from manager.terminal.timeout import timeout_option


@click.command("wait")
@root_option
@json_option
@click.option("--pass", "pass_on", is_flag=True, help="Exit with the container's status.")
@click.option(
    "--for",
    "what",
    type=click.Choice(["end", "restored"]),
    default="end",
    show_default=True,
    help="What for; restored is said of the whole sandbox.",
)
@timeout_option
@target_argument
def command(
    root: Path, as_json: bool, pass_on: bool, what: str, timeout: float | None, target: str
) -> None:
    """Wait until a container has ended and print its exit code (128 plus a signal's number).

    The log remembers: the same answer comes every time, also after the container was destroyed.
    """
    if pass_on and what != "end":
        raise click.UsageError("--pass passes on how a container ended: not with --for restored")
    sandbox, cid = sandbox_of(root, target)

    async def call() -> Exited | Signaled | None:
        import anyio  # noqa: PLC0415 - the help needs no event loop

        with anyio.move_on_after(timeout):
            if what == "end":
                return await sandbox.wait(cid)
            await sandbox.wait_restore()
            return None
        sys.exit(EXIT_TIMEOUT)

    ended = run_async(call)
    if as_json:
        print_json("wait", container=target, exit=ended)
    else:
        click.echo(what if ended is None else to_shell_code(ended))
    sys.exit(to_shell_code(ended) if pass_on and ended is not None else 0)
