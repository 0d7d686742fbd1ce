"""Exits that the manager has not made durable yet: on disk, so that none goes with a killed worker.

One small file each, written before the outcome is sent and removed when it is acknowledged.
"""

import hashlib
import logging
from pathlib import Path
from typing import TypeAlias

import msgspec

from manager.schema import worker as w
from manager.worker.notes import write_note

logger = logging.getLogger(__name__)

End: TypeAlias = w.Exited | w.ProcessExited


def subject_of(end: End) -> str:
    """The launch or the exec that has ended."""
    return end.exec_id if isinstance(end, w.ProcessExited) else end.launch_id


class Ends:
    """The directory of exits.

    Args:
        directory: Made if it is missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)

    def put(self, end: End) -> bool:
        """Write one. Where the disk takes no more, this worker alone knows; its log says so.

        Returns:
            Whether it is written.
        """
        try:
            write_note(self._path(subject_of(end)), msgspec.json.encode(end))
        except OSError as error:
            logger.warning("worker.end_not_written subject=%s %s", subject_of(end), error)
            return False
        return True

    def remove(self, end: End) -> None:
        """Forget one. If that cannot be, a later worker tells it once more, which harms nobody."""
        try:
            self._path(subject_of(end)).unlink(missing_ok=True)
        except OSError as error:
            logger.warning("worker.end_not_removed subject=%s %s", subject_of(end), error)

    def read(self) -> list[End]:
        """What a former worker left, oldest first; a file that was not finished says nothing."""
        ends = []
        for path in self._directory.iterdir():
            try:
                ends.append(msgspec.json.decode(path.read_bytes(), type=End))
            except (msgspec.MsgspecError, OSError):
                path.unlink(missing_ok=True)
        return sorted(ends, key=lambda end: end.exited_at_ns)

    def _path(self, subject: str) -> Path:
        return self._directory / hashlib.sha256(subject.encode()).hexdigest()
