"""The ``sandtrail`` command.

Every command lives in a module of its own, which is imported only when it is called: help and
completion stay fast, and a command that reads the log loads no server.
"""

import sys
from typing import Final

import click

from manager.terminal.ending import EXIT_BUG, EXIT_INTERRUPTED, fail, leave_pipe
from manager.terminal.lazy import LazyGroup

COMMANDS: Final = {
    "serve": "manager.cli.serve",
    "create": "manager.cli.create",
    "start": "manager.cli.start",
    "run": "manager.cli.run",
    "exec": "manager.cli.exec",
    "ps": "manager.cli.ps",
    "inspect": "manager.cli.inspect",
    "wait": "manager.cli.wait",
    "kill": "manager.cli.kill",
    "pause": "manager.cli.pause",
    "resume": "manager.cli.resume",
    "checkpoint": "manager.cli.checkpoint",
    "restore": "manager.cli.restore",
    "top": "manager.cli.top",
    "stats": "manager.cli.stats",
    "rm": "manager.cli.rm",
    "log": "replay.cli.log",
    "replay": "replay.cli.replay",
    "audit": "replay.cli.audit",
    "doctor": "manager.cli.doctor",
    "help": "manager.cli.help",
}


@click.command(
    cls=LazyGroup,
    commands_in=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="sandtrail")
@click.option("--debug", is_flag=True, help="Show where an error that is a bug comes from.")
def cli(debug: bool) -> None:
    r"""Start containers from donated file descriptors, and keep a log of everything.

    \b
      sandtrail serve --root DIR &
      sandtrail run --rootfs ./busybox -- echo hello
      sandtrail exec -it SANDBOX sh
      sandtrail ps
      sandtrail log

    Exit codes: 0 fine, 1 refused or failed, 2 usage; all: `sandtrail help exit-codes`. `run`,
    `wait` and `exec` pass the status through.
    """


def main() -> None:
    """Run the command line; the process exits with its status."""
    try:
        sys.exit(cli.main(prog_name="sandtrail", standalone_mode=False))
    except click.Abort:
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        leave_pipe()
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        fail(f"a bug: {text}; `sandtrail --debug ...` shows where", EXIT_BUG)
