"""Exits that the manager has not made durable yet: on disk, so that none goes with a killed worker.

One small file each, written before the outcome is sent and removed when it is acknowledged.
"""

import hashlib
import os
from pathlib import Path
from typing import Final

import msgspec

from manager.schema import worker as w

_FILE_MODE: Final = 0o600


class Ends:
    """The directory of exits.

    Args:
        directory: Made if it is missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)

    def put(self, end: w.Exited) -> None:
        """Write one. Not synced: it is for a worker that is killed, not for a machine that is."""
        path = self._path(end.launch_id)
        draft = path.with_suffix(".new")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _FILE_MODE), "wb") as file:
            file.write(msgspec.json.encode(end))
        draft.rename(path)

    def remove(self, end: w.Exited) -> None:
        """Forget one."""
        self._path(end.launch_id).unlink(missing_ok=True)

    def read(self) -> list[w.Exited]:
        """What a former worker left, oldest first; a file that was not finished says nothing."""
        ends = []
        for path in self._directory.iterdir():
            try:
                ends.append(msgspec.json.decode(path.read_bytes(), type=w.Exited))
            except (msgspec.MsgspecError, OSError):
                path.unlink(missing_ok=True)
        return sorted(ends, key=lambda end: end.exited_at_ns)

    def _path(self, launch_id: str) -> Path:
        return self._directory / hashlib.sha256(launch_id.encode()).hexdigest()
