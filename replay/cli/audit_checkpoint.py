"""``sandtrail audit checkpoint``."""

from pathlib import Path
from typing import Any

import click
from msgspec import to_builtins

from eventstore import Checkpoint, newest_note, read_checkpoint
from manager.schema.state_seal import StateSeal
from manager.terminal.ending import EXIT_INCONCLUSIVE, fail
from manager.terminal.output import json_option, print_json
from manager.terminal.place import log_option, root_option
from manager.terminal.reading import log_path
from replay.cli.audit_options import evidence_errors


@click.command("checkpoint")
@root_option
@log_option
@json_option
def command(root: Path, log: Path | None, as_json: bool) -> None:
    """Print the newest checkpoint, a signed note, to be kept elsewhere.

    Keep it where nobody can change it. Later `sandtrail audit verify
    --checkpoint FILE` shows that nothing which it covers was changed since, by
    anybody. Its line sandtrail-state-v1 has the digest of the state that the
    events lead to; `sandtrail replay check` compares it with what they give now.

    Exit codes: 0 printed, 4 the log was never sealed, 5 not found or unreadable.
    """
    path = log_path(root, log)
    with evidence_errors():
        note = newest_note(path)
        if note is None:
            fail(f"{path} was never sealed: that is done by the service", EXIT_INCONCLUSIVE)
        told = read_checkpoint(note)
    if as_json:
        print_json(
            "checkpoint-note",
            log=str(path),
            origin=told.origin,
            size=told.size,
            root=told.root.hex(),
            state=_state(told),
            note=note,
        )
        return
    click.echo(note, nl=False)


def _state(told: Checkpoint) -> dict[str, Any] | None:
    """The state that a checkpoint seals, if it has one of a kind that is known here."""
    found = next(filter(None, map(StateSeal.parse, told.extensions)), None)
    return None if found is None else to_builtins(found)
