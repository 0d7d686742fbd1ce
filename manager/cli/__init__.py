"""The ``sandtrail`` command.

Every command lives in a module of its own, which is imported only when it is called: help and
completion stay fast, and a command that reads the log loads no server.
"""

import sys
from typing import Final

import click

from manager.terminal.ending import EXIT_BUG, EXIT_INTERRUPTED, EXIT_UNREADABLE, fail, leave_pipe
from manager.terminal.lazy import LazyGroup
from manager.terminal.manners import before_any_command, note_json, output_wanted
from manager.terminal.streams import fill_closed_streams
from manager.version import __version__

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
    "stop": ("manager.cli.stop", "Ask a container to end, and end it if it does not."),
    "kill": ("manager.cli.kill", "Send a signal."),
    "pause": ("manager.cli.pause", "Stop everything in a sandbox for a while."),
    "resume": ("manager.cli.resume", "Let a paused sandbox go on."),
    "checkpoint": ("manager.cli.checkpoint", "Save a sandbox to a file."),
    "restore": ("manager.cli.restore", "Let a sandbox go on from such a file."),
    "top": ("manager.cli.top", "List the processes of a container."),
    "stats": ("manager.cli.stats", "Show what containers use."),
    "rm": ("manager.cli.rm", "Remove a sandbox or a container."),
    "log": ("replay.cli.log", "Print the log: any filter, any window, or as it grows."),
    "events": ("replay.cli.log", "As `log`, under the name that others have for it."),
    "replay": (
        "replay.cli.replay",
        "Ask for states of the past, why they are so, and what would have been.",
    ),
    "mark": ("manager.cli.mark", "Give points of the log names."),
    "audit": ("replay.cli.audit", "Show that the log is what was sealed, and what it says."),
    "demo": ("manager.cli.demo", "Make a log with an incident in it, to try all this on."),
    "doctor": ("manager.cli.doctor", "Try every engine on this machine."),
    "urpc": ("manager.cli.urpc", "Make one call of the protocol, as it is written."),
    "completion": (
        "manager.cli.completion",
        "Print a script that lets a shell complete commands and ids.",
    ),
    "help": ("manager.cli.help", "Explain a command or a topic."),
}
SECTIONS: Final = {
    "The service": ("serve", "doctor", "urpc"),
    "Containers": (
        "run", "create", "start", "exec", "wait", "stop", "kill", "pause", "resume",
        "checkpoint", "restore", "rm",
    ),
    "What there is, and was": ("ps", "inspect", "top", "stats"),
    "The log": ("log", "events", "replay", "mark", "audit", "demo"),
    "Help": ("help", "completion"),
}  # fmt: skip
"""How its help groups them."""


def tell_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print the version and end; with ``--json`` the versions of what is written and read, too."""
    if not wanted:
        return
    if output_wanted() != "json":
        click.echo(f"sandtrail {__version__}")
        ctx.exit()
    from eventstore import SCHEMA_VERSION  # noqa: PLC0415 - only this answer needs it
    from manager.schema.node_snapshot import fold_fingerprint  # noqa: PLC0415 - only this answer needs it
    from manager.terminal.output import print_json  # noqa: PLC0415 - only this answer needs it

    print_json(
        "version",
        version=__version__,
        log_format=SCHEMA_VERSION,
        fold=fold_fingerprint(),
        python=sys.version.partition(" ")[0],
    )
    ctx.exit()


@click.command(
    cls=LazyGroup,
    commands_in=COMMANDS,
    sections=SECTIONS,
    params=before_any_command(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--version", is_flag=True, expose_value=False, callback=tell_version,
              help="Print the version and exit; with --json those of the log's format and of the "
              "fold, too.")  # fmt: skip
@click.option("--json", is_flag=True, is_eager=True, expose_value=False,
              callback=note_json, help="As -o json.")  # fmt: skip
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
    fill_closed_streams()
    try:
        sys.exit(cli.main(prog_name="sandtrail", standalone_mode=False))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        leave_pipe()
    except OSError as error:  # of the output, for one: a disk that is full
        if "--debug" in sys.argv:
            raise
        fail(str(error), EXIT_UNREADABLE)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        fail(f"a bug: {text}; `sandtrail --debug ...` shows where", EXIT_BUG)
