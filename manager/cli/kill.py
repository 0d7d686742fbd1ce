"""``sandtrail kill``."""

import signal
from pathlib import Path
from typing import Final

import click

from manager.cli.session import run_async, sandbox_of, target_argument
from manager.terminal.output import done, json_option
from manager.terminal.place import root_option

DIGITS_MAX: Final = 3
"""Of a signal's number: the kernel's last one is 64."""


@click.command("kill")
@root_option
@json_option
@click.option("--all", "everyone", is_flag=True, help="Every process of the container.")
@target_argument
@click.argument("signal_name", metavar="[SIGNAL]", default="TERM")
def command(root: Path, as_json: bool, everyone: bool, target: str, signal_name: str) -> None:
    """Send SIGNAL (a name or a number, TERM if absent) to a container."""
    signo = parse_signal(signal_name)
    sandbox, cid = sandbox_of(root, target)
    run_async(lambda: sandbox.signal(signo, cid, everyone=everyone))
    done(as_json, "kill", target, container=target, signal=signo)


def parse_signal(text: str) -> int:
    """A signal's number from its name (with or without SIG) or its number."""
    if text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX:
        return int(text)
    name = text.upper()
    name = name if name.startswith("SIG") else f"SIG{name}"
    try:
        return signal.Signals[name].value
    except KeyError:
        raise click.BadParameter(
            f"{text!r} is no signal; try TERM, KILL or a number", param_hint="SIGNAL"
        ) from None
