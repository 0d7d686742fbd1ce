"""What a worker must know of the launches of the one before it, should that one have been killed.

One small file per launch that is under way or running. They are hints, not truth: a record is
believed only as far as the process that it names is still the same one. The truth about what
happened is the manager's log.
"""

import logging
import os
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from manager.schema import worker as w
from manager.worker.notes import DRAFT_SUFFIX, write_note

logger = logging.getLogger(__name__)

TRIAL_PREFIX: Final = "trial:"
"""Begins the launch id of a container that only shows that an engine works: no manager's."""

LEFTOVER_PREFIX: Final = "leftover:"
"""Begins the launch id that stands for what a former worker left under some engine id."""

PRIVATE_PREFIXES: Final = (TRIAL_PREFIX, LEFTOVER_PREFIX)
"""Begin launch ids that no manager has heard of, or is to hear of."""


class Record(Struct, frozen=True, kw_only=True):
    """One launch. `identity` is absent while it was being started. No spec: it has secrets.

    `process` is what of the spec holds for processes that are executed in it later. `over`: it has
    ended and everybody was told, but something of it could not be removed.
    """

    launch_id: str
    engine_id: str
    engine: str
    boot_id: str
    identity: w.PidIdentity | None = None
    process: dict[str, Any] = {}
    over: bool = False


class Records:
    """The directory of records."""

    def __init__(self, directory: Path, boot_id: str) -> None:
        self._directory = directory
        self._boot_id = boot_id
        self._process: dict[str, dict[str, Any]] = {}
        directory.mkdir(mode=0o700, exist_ok=True)

    def starting(self, command: w.Launch, process: dict[str, Any]) -> None:
        """A cgroup, and then a process, of this launch may exist from now on."""
        self._process[command.engine_id] = process
        self._write(command, None)

    def running(self, command: w.Launch, identity: w.PidIdentity) -> None:
        """The container's init is this process.

        It runs, so a full disk is no reason to fail: the keeper has its pidfd as well.
        """
        self._try_to_write(command, identity)

    def left(self, command: w.Launch) -> None:
        """It is over, but not all of it could be removed: the next worker is to try again."""
        self._process.pop(command.engine_id, None)
        self._try_to_write(command, None, over=True)

    def names(self) -> frozenset[str]:
        """Engine ids of all records, whether they can be read or not."""
        return frozenset(path.name.removesuffix(DRAFT_SUFFIX) for path in _files(self._directory))

    def process_of(self, engine_id: str) -> dict[str, Any]:
        """What of a container's spec holds for what is executed in it."""
        return self._process.get(engine_id, {})

    def remove(self, engine_id: str) -> None:
        """Nothing is left of it."""
        self._process.pop(engine_id, None)
        try:
            os.unlink(self._directory / engine_id)
        except FileNotFoundError:
            pass
        except OSError as error:
            logger.warning("worker.record_not_removed engine_id=%s %s", engine_id, error)

    def read(self) -> list[Record]:
        """All records; one that cannot be read was never finished, and is removed."""
        records = []
        for path in _files(self._directory):
            try:
                records.append(msgspec.json.decode(path.read_bytes(), type=Record))
            except (msgspec.MsgspecError, OSError):
                path.unlink(missing_ok=True)
        self._process |= {each.engine_id: each.process for each in records if each.process}
        return records

    def _try_to_write(
        self, command: w.Launch, identity: w.PidIdentity | None, *, over: bool = False
    ) -> None:
        try:
            self._write(command, identity, over=over)
        except OSError as error:
            logger.warning("worker.record_not_written launch_id=%s %s", command.launch_id, error)

    def _write(
        self, command: w.Launch, identity: w.PidIdentity | None, *, over: bool = False
    ) -> None:
        record = Record(
            launch_id=command.launch_id,
            engine_id=command.engine_id,
            engine=command.engine,
            boot_id=self._boot_id,
            identity=identity,
            process=self.process_of(command.engine_id),
            over=over,
        )
        write_note(self._directory / command.engine_id, msgspec.json.encode(record))


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_file())
