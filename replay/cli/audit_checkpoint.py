"""``sandtrail audit checkpoint``."""

from pathlib import Path

import click

from eventstore import EventStoreError, newest_note
from manager.schema.layout import LOG_FILE
from manager.terminal.ending import EXIT_INCONCLUSIVE, EXIT_UNREADABLE, fail
from manager.terminal.place import log_option, root_option


@click.command("checkpoint")
@root_option
@log_option
def command(root: Path, log: Path | None) -> None:
    """Print the newest checkpoint, a signed note. Keep it where nobody can change it.

    Later `sandtrail audit verify --checkpoint FILE` shows that nothing which it covers was changed
    since, by anybody.
    """
    path = log or root / LOG_FILE
    try:
        note = newest_note(path)
    except (EventStoreError, OSError) as error:
        fail(str(error), EXIT_UNREADABLE)
    if note is None:
        fail(f"{path} was never sealed: that is done by the service", EXIT_INCONCLUSIVE)
    click.echo(note, nl=False)
