"""Small files by which a worker leaves word to the next one: whole, or as they were before.

Not synced: they are for a worker that is killed; after a crash of the machine no container runs.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

DRAFT_SUFFIX: Final = ".new"
"""Ends the name of a file that is being written; one that a killed writer left says nothing."""

_FILE_MODE: Final = 0o600


def write_note(path: Path, content: bytes) -> None:
    """Put a file in the place of the one that may be there.

    Args:
        path: Its name has no suffix.
        content: All of it.

    Raises:
        OSError: It could not be written, on a full disk say; the one that was there still is.
    """
    draft = path.with_suffix(DRAFT_SUFFIX)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with open(os.open(draft, flags, _FILE_MODE), "wb") as file:
            file.write(content)
        draft.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
