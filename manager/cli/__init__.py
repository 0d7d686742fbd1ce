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
    "serve": ("manager.cli.serve", "Run the service."),
    "create": ("manager.cli.create", "Register a sandbox or a container, to be started later."),
    "start": ("manager.cli.start", "Start what was created."),
    "run": ("manager.cli.run", "Create and start a container, and wait for its end."),
    "exec": ("manager.cli.exec", "Run one more process in a container."),
    "ps": ("manager.cli.ps", "List sandboxes and containers, now or at a point of the past."),
    "inspect": (
        "manager.cli.inspect",
        "Show everything about a sandbox or a container, now or then.",
    ),
    "wait": ("manager.cli.wait", "Wait for a container's end."),
    "kill": ("manager.cli.kill", "Send a signal."),
    "pause": ("manager.cli.pause", "Stop everything in a sandbox for a while."),
    "resume": ("manager.cli.resume", "Let a paused sandbox go on."),
    "checkpoint": ("manager.cli.checkpoint", "Save a sandbox to a file."),
    "restore": ("manager.cli.restore", "Let a sandbox go on from such a file."),
    "top": ("manager.cli.top", "List the processes of a container."),
    "stats": ("manager.cli.stats", "Show what containers use."),
    "rm": ("manager.cli.rm", "Remove a sandbox or a container."),
    "log": ("replay.cli.log", "Print the log: any filter, any window, or as it grows."),
    "replay": (
        "replay.cli.replay",
        "Ask for states of the past, why they are so, and what would have been.",
    ),
    "audit": ("replay.cli.audit", "Show that the log is what was sealed, and what it says."),
    "doctor": ("manager.cli.doctor", "Try every engine on this machine."),
    "completion": (
        "manager.cli.completion",
        "Print a script that lets a shell complete commands and ids.",
    ),
    "help": ("manager.cli.help", "Explain a command or a topic."),
}


@click.command(
    cls=LazyGroup,
    commands_in=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="sandtrail")
@click.option("--debug", is_flag=True, help="Show where an error that is a bug comes from.")
def cli(debug: bool) -> None:
    """Start containers from donated file descriptors, and keep a log of everything.

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
