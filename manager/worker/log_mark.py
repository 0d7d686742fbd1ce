"""How far the log was when the manager last acknowledged outcomes.

It is written down before these are forgotten. So a log that holds the mark also holds the outcome
of whatever no worker knows any more; one that does not was restored from an older copy.
"""

import os
from pathlib import Path
from typing import Final

import msgspec

from manager.schema import worker as w

_FILE_MODE: Final = 0o600


class LogMarkFile:
    """The file with the mark.

    Args:
        path: Made with the first mark.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> w.LogMark | None:
        """The last mark; `None` if there is none, or if it cannot be read."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=w.LogMark)
        except (msgspec.MsgspecError, OSError):
            return None

    def write(self, mark: w.LogMark) -> None:
        """Replace it. Not synced: a mark tells under which boot it was noted."""
        draft = self._path.with_suffix(".new")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _FILE_MODE), "wb") as file:
            file.write(msgspec.json.encode(mark))
        draft.rename(self._path)
