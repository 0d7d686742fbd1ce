"""The head of each log that was verified here, so that the next look can demand more than that.

It lies in the user's own state directory, not beside the log: whoever can put back an older log
need not be able to put back an older memory of it.
"""

import hashlib
import os
from pathlib import Path
from typing import Final

from eventstore import Checkpoint, NoteRejected, read_checkpoint
from eventstore.whole_file import replace_whole

STATE_HOME: Final = "XDG_STATE_HOME"
STATE_HOME_DEFAULT: Final = ".local/state"
DIRECTORY: Final = "sandtrail/heads"
NAME_HEX_CHARS: Final = 32
NOTE_BYTES_MAX: Final = 2 * 1024 * 1024


def memory_file(log: Path) -> Path | None:
    """Where the head of the log at a path is remembered. Source: XDG Base Directory 0.8.

    ``None`` where nothing tells a home: neither the environment nor the list of users.
    """
    named = os.environ.get(STATE_HOME, "")
    try:
        home = Path(named) if named.startswith("/") else Path.home() / STATE_HOME_DEFAULT
    except RuntimeError:
        return None
    digest = hashlib.sha256(os.fsencode(os.path.realpath(log))).hexdigest()
    return home / DIRECTORY / f"{digest[:NAME_HEX_CHARS]}.note"


def recall(file: Path) -> Checkpoint | None:
    """The head that was remembered, if any. Its signature was looked at when it was.

    Raises:
        NoteRejected: The file holds something else. Remove it.
        OSError: It cannot be read.
    """
    try:
        with file.open("rb") as opened:
            raw = opened.read(NOTE_BYTES_MAX)
    except FileNotFoundError:
        return None
    try:
        return read_checkpoint(raw)
    except NoteRejected as error:
        raise NoteRejected(f"{file}: {error}; remove it to begin anew") from error


def remember(file: Path, note: str) -> None:
    """Remember a head instead of the one before, durably.

    Args:
        file: Of :func:`memory_file`.
        note: The head, a signed checkpoint that was verified.

    Raises:
        OSError: It cannot be written.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with replace_whole(file) as opened:
        opened.write(note)
