"""What the commands of ``sandtrail audit`` share: keys to trust, checkpoints, a bar."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from eventstore import (
    Checkpoint,
    EventStoreError,
    KeyUnusable,
    LogCorrupt,
    LogTooNew,
    Note,
    NoteRejected,
    Verdict,
    Verifier,
    load_verifier,
    load_witness,
    open_checkpoint,
    read_checkpoint,
)
from manager.schema.layout import PUBLIC_SUFFIX, SEAL_KEY_FILE
from manager.terminal.ending import (
    EXIT_BROKEN,
    EXIT_INCONCLUSIVE,
    EXIT_TOO_NEW,
    EXIT_UNREADABLE,
    fail,
)
from manager.terminal.table import printable
from replay.evidence.verification import Sighting

EXIT_OF: Final = {
    Verdict.INTACT: 0,
    Verdict.BROKEN: EXIT_BROKEN,
    Verdict.INCONCLUSIVE: EXIT_INCONCLUSIVE,
}
NOTE_BYTES_READ_MAX: Final = 2 * 1024 * 1024

keys_option = click.option(
    "--key",
    "keys",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Verifier key that is trusted; repeatable. Default: the one in the state directory.",
)


def trusted_keys(
    root: Path, log: Path | None, keys: tuple[Path, ...]
) -> tuple[tuple[Verifier, ...], bool]:
    """The keys to trust, and whether they are only those that lie beside the log."""
    if keys:
        return tuple(map(load_verifier, keys)), False
    own = root / (SEAL_KEY_FILE + PUBLIC_SUFFIX)
    if log is None and own.exists():
        return (load_verifier(own),), True
    return (), False


def kept_checkpoint(path: Path, trusted: tuple[Verifier, ...]) -> Checkpoint:
    """A checkpoint that was kept elsewhere; signed by a key that is trusted, if there are any.

    Raises:
        NoteRejected: It is none, or not signed so.
        OSError: It cannot be read.
    """
    raw = _read(path)
    return open_checkpoint(raw, trusted) if trusted else read_checkpoint(raw)


def sightings(checkpoints: Iterable[Path], keys: Iterable[Path]) -> list[Sighting]:
    """Which checkpoints witnesses have signed; each witness must have signed one of them.

    Raises:
        NoteRejected: One has not, or a signature is wrong.
        KeyUnusable: A key is none.
        OSError: A checkpoint cannot be read.
    """
    notes = [Note.parse(_read(path)) for path in checkpoints]
    found: list[Sighting] = []
    for witness in map(load_witness, keys):
        signed = [
            Sighting(size=Checkpoint.parse(note.text).size, witness=str(witness), at_s=at_s)
            for note in notes
            if (at_s := witness.signed_at(note)) is not None
        ]
        if not signed:
            raise NoteRejected(f"the witness {witness} has signed none of the given checkpoints")
        found += signed
    return found


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(NOTE_BYTES_READ_MAX)


@contextmanager
def evidence_errors() -> Iterator[None]:
    """End the process with the exit code of what is wrong with a log, a key or a checkpoint."""
    try:
        yield
    except (KeyUnusable, NoteRejected) as error:
        fail(printable(str(error)), EXIT_INCONCLUSIVE)
    except LogCorrupt as error:
        fail(printable(str(error)), EXIT_BROKEN)
    except LogTooNew as error:
        fail(printable(str(error)), EXIT_TOO_NEW)
    except BrokenPipeError:
        raise
    except (EventStoreError, OSError) as error:
        fail(printable(str(error)), EXIT_UNREADABLE)
