"""What a worker must know of executed processes of the one before it, should that have been killed.

A private directory for each exec, beside the launches' records and of the same nature: hints.
`record` says what it is, `pid` is the engine's word for the process it made.
"""

import hashlib
import shutil
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from manager.schema import worker as w
from manager.worker.notes import write_note

_RECORD: Final = "record"


class ExecRecord(Struct, frozen=True, kw_only=True):
    """One exec. `identity` is absent while it was being made; `pid` is the container's number."""

    exec_id: str
    launch_id: str
    identity: w.PidIdentity | None = None
    pid: int = 0
    started_at_ns: int = 0


class ExecRecords:
    """The directory of directories."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)

    def place(self, exec_id: str) -> Path:
        """The exec's directory; its name means nothing else."""
        return self._directory / hashlib.sha256(exec_id.encode()).hexdigest()

    def write(self, record: ExecRecord) -> None:
        """Say what is known now; makes the directory."""
        place = self.place(record.exec_id)
        place.mkdir(mode=0o700, exist_ok=True)
        write_note(place / _RECORD, msgspec.json.encode(record))

    def remove(self, exec_id: str) -> None:
        """Nothing is left of it."""
        shutil.rmtree(self.place(exec_id), ignore_errors=True)

    def read(self) -> list[ExecRecord]:
        """All records; what cannot be read was never finished, and is removed."""
        records = []
        for place in sorted(self._directory.iterdir()):
            try:
                body = (place / _RECORD).read_bytes()
                records.append(msgspec.json.decode(body, type=ExecRecord))
            except (msgspec.MsgspecError, OSError):
                shutil.rmtree(place, ignore_errors=True)
        return records
