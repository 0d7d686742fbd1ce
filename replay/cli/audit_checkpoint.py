"""``sandtrail audit checkpoint``."""

import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
from msgspec import to_builtins

from eventstore import (
    Checkpoint,
    Note,
    NoteRejected,
    load_signer,
    newest_note,
    read_checkpoint,
)
from manager.schema.state_seal import StateSeal
from manager.terminal.ending import EXIT_INCONCLUSIVE, fail
from manager.terminal.output import json_option, print_json
from manager.terminal.place import log_option, root_option
from manager.terminal.reading import log_path
from manager.terminal.table import printable
from replay.cli.audit_options import evidence_errors


@click.command("checkpoint")
@root_option
@log_option
@click.option("--sign", "key", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              metavar="KEY", help="Sign it with this key, too.")  # fmt: skip
@click.option("--witness", metavar="COMMAND",
              help="A command that reads the note and prints its signature.")  # fmt: skip
@json_option
def command(
    root: Path, log: Path | None, key: Path | None, witness: str | None, as_json: bool
) -> None:
    """Print the newest checkpoint, a signed note, to be kept elsewhere.

    Keep it where nobody can change it. Later `sandtrail audit verify
    --checkpoint FILE` shows that nothing which it covers was changed since, by
    anybody. Its line sandtrail-state-v1 has the digest of the state that the
    events lead to; `sandtrail replay check` compares it with what they give now.

    Further signatures (--sign, --witness) are lines of the note; `audit verify
    --witness-key` asks for them.

    Exit codes: 0 printed, 4 the log was never sealed, or the witness did not sign,
    5 not found or unreadable.
    """
    path = log_path(root, log)
    with evidence_errors():
        note = newest_note(path)
        if note is None:
            fail(f"{path} was never sealed: that is done by the service", EXIT_INCONCLUSIVE)
        told = read_checkpoint(note)
        if key is not None:
            note = load_signer(key).cosign(Note.parse(note)).encode()
        if witness is not None:
            note = witnessed(note, witness)
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


def witnessed(note: str, command: str) -> str:
    """The note with the signature lines that a command answers it with.

    Raises:
        NoteRejected: It answers with something else.
        OSError: There is no such command.
    """
    try:
        program = shlex.split(command)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--witness") from None
    if not program:
        raise click.BadParameter("is empty", param_hint="--witness")
    name = printable(program[0])
    asked = note.encode()
    done = subprocess.run(program, input=asked, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        fail(f"the witness did not sign: {name} exited with {done.returncode}",
             EXIT_INCONCLUSIVE)  # fmt: skip
    lines = done.stdout.removeprefix(asked)  # some answer with the whole note
    whole = Note.parse(asked + lines)
    if whole.text != Note.parse(note).text:
        raise NoteRejected(f"{name} answered with another note")
    if whole.encode() == note:
        fail(f"the witness did not sign: {name} answered with nothing", EXIT_INCONCLUSIVE)
    return whole.encode()


def _state(told: Checkpoint) -> dict[str, Any] | None:
    """The state that a checkpoint seals, if it has one of a kind that is known here."""
    found = next(filter(None, map(StateSeal.parse, told.extensions)), None)
    return None if found is None else to_builtins(found)
