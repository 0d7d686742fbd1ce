"""What the commands of ``sandtrail audit`` share: keys to trust, checkpoints, a bar."""

from collections.abc import Iterator
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
    NoteRejected,
    Verdict,
    Verifier,
    load_verifier,
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
    with path.open("rb") as file:
        raw = file.read(NOTE_BYTES_READ_MAX)
    return open_checkpoint(raw, trusted) if trusted else read_checkpoint(raw)


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
