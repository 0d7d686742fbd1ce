"""How far the log was when the manager last acknowledged outcomes.

It is written down before these are forgotten. So a log that holds the mark also holds the outcome
of whatever no worker knows any more; one that does not was restored from an older copy.
"""

import contextlib
import logging
from pathlib import Path

import msgspec

from manager.schema import worker as w
from manager.worker.notes import write_note

logger = logging.getLogger(__name__)


class LogMarkFile:
    """The file with the mark.

    Args:
        path: Made with the first mark.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark = self._read()

    @property
    def mark(self) -> w.LogMark | None:
        """The last one, of this worker or one before it; `None` if there is none."""
        return self._mark

    def write(self, mark: w.LogMark) -> None:
        """Replace it. Not synced: a mark tells under which boot it was noted.

        Where the disk takes no more, the old one goes: the next worker is to know of none rather
        than of one that other things were forgotten after.
        """
        self._mark = mark
        try:
            write_note(self._path, msgspec.json.encode(mark))
        except OSError as error:
            logger.warning("worker.log_mark_not_written %s", error)
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _read(self) -> w.LogMark | None:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=w.LogMark)
        except (msgspec.MsgspecError, OSError):
            return None
