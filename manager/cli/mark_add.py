"""``sandtrail mark add``."""

from pathlib import Path

import click

from manager.cli.session import client_of, run_async
from manager.schema.past import position_in
from manager.terminal.ending import EXIT_UNREADABLE, fail
from manager.terminal.output import done, json_option
from manager.terminal.place import WHEN, root_option
from manager.terminal.reading import log_path, read_log


@click.command("add")
@root_option
@json_option
@click.option("-m", "--message", default="", help="What for.")
@click.argument("name")
@click.argument("when", required=False, type=WHEN)
def command(root: Path, as_json: bool, message: str, name: str, when: str | None) -> None:
    """Give the point WHEN, or this moment, the name NAME.

    The mark is an event of its own: the service records it, with whoever asked. A name is given
    once. WHEN is as of `sandtrail help when`.
    """
    at = 0
    if when is not None:
        path = log_path(root, None)
        at = read_log(lambda: position_in(path, when))
        if not at:
            fail("there is no event before the first one, #1", EXIT_UNREADABLE)
    position = run_async(lambda: client_of(root).mark(name, at=at, message=message))
    done(as_json, "mark", f"mark:{name} is #{position}", name=name, position=position)
