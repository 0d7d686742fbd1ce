"""The ``sandtrail`` command.

Every command lives in a module of its own, which is imported only when it is called: help and
completion stay fast, and a command that reads the log loads no server.
"""

from importlib import import_module
from typing import Final

import click
from typing_extensions import override

COMMANDS: Final = {
    "serve": "manager.cli.serve",
    "create": "manager.cli.create",
    "start": "manager.cli.start",
    "run": "manager.cli.run",
    "exec": "manager.cli.exec",
    "ps": "manager.cli.ps",
    "wait": "manager.cli.wait",
    "kill": "manager.cli.kill",
    "pause": "manager.cli.pause",
    "resume": "manager.cli.resume",
    "checkpoint": "manager.cli.checkpoint",
    "restore": "manager.cli.restore",
    "top": "manager.cli.top",
    "stats": "manager.cli.stats",
    "rm": "manager.cli.rm",
    "log": "manager.cli.log",
    "audit": "manager.cli.audit",
    "doctor": "manager.cli.doctor",
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports each when it is needed."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name]).command
        return command


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="sandtrail")
def cli() -> None:
    r"""Start containers from donated file descriptors, and keep a log of everything.

    \b
      sandtrail serve --root DIR &
      sandtrail run --rootfs ./busybox -- echo hello
      sandtrail exec -it SANDBOX sh
      sandtrail ps
      sandtrail log

    Exit codes: 0 fine, 1 refused or failed, 2 usage. `run`, `wait` and `exec` pass
    the status through; `run` and `exec` exit 125 when the process could not be started, 126 when
    its program cannot be executed, 127 when it is not there. `audit verify` has codes of its own.
    """


def main() -> None:
    """Run the command line; the process exits with its status."""
    cli(prog_name="sandtrail")
