"""Making images: everything of a sandbox at one moment, or nothing of it."""

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias

from manager.kernel.fail_points import reached
from manager.schema import worker as w
from manager.schema.image import ImageRejected
from manager.urpc.fds import FdBundle, OwnedFd
from manager.worker.adoption import is_at_work
from manager.worker.engine import RevivingEngine
from manager.worker.executed import end_executed
from manager.worker.images import write_image
from manager.worker.launch import Launch
from manager.worker.loop import Loop, Pause, Steps
from manager.worker.outbox import Outbox

logger = logging.getLogger(__name__)

Stage: TypeAlias = Literal["freeze", "save", "write", "resume"]
DIRECTORY_MODE: Final = 0o700
DONE_POLL_SECONDS: Final = 0.01
FROZEN_PREFIX: Final = "frozen-"
"""Begins the name of a file that lists the launches of a save, as long as it is under way."""

SAVED_PREFIX: Final = "saved-"
"""The same, when the image is whole and nothing of them is to go on."""


class Running(Protocol):
    """Where the launches are."""

    def running(self, launch_id: str) -> Launch | None:
        """The launch of that id, if it is known."""
        ...

    def executed(self, launch_id: str) -> frozenset[int]:
        """What runs of all that was executed in it, by numbers of its PID namespace."""
        ...


class SaveFailed(Exception):  # noqa: N818 - named as the outcome that it becomes
    """There will be no image; says at which stage, and why."""

    def __init__(self, stage: Stage, reason: str) -> None:
        super().__init__(reason)
        self.stage: Stage = stage
        self.reason = reason


class Saves:
    """Does what the manager asks, once for each checkpoint id.

    Args:
        loop: Runs the tasks.
        launches: What is saved.
        outbox: Where outcomes go.
        directory: Room for the engines' files until they are in the image.
        changed: Called when one has come to its end.
    """

    def __init__(
        self,
        loop: Loop,
        launches: Running,
        outbox: Outbox,
        directory: Path,
        changed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._launches = launches
        self._outbox = outbox
        self._directory = directory
        self._changed = changed
        self._under_way: set[str] = set()

    @property
    def idle(self) -> bool:
        """Whether no image is being made."""
        return not self._under_way

    def names(self) -> tuple[str, ...]:
        """Checkpoint ids of which there is something to tell yet."""
        return (*self._under_way, *self._outbox.saves())

    def save(self, command: w.Save, fds: FdBundle) -> None:
        """Make an image; ownership of `fds` moves in."""
        known = command.checkpoint_id in self._under_way
        if known or self._outbox.send_again(command.checkpoint_id):
            fds.close()
            return
        reached("save.received")
        self._under_way.add(command.checkpoint_id)
        self._loop.start(self._save(command, fds))

    def adopt_all(self) -> None:
        """Let go on what a former worker had frozen and was killed over; once, before anything.

        What was saved by then ends, since its engine is done with it: there is no image of it.
        """
        for path in self._directory.glob(FROZEN_PREFIX + "*"):
            place = self._directory / path.name.removeprefix(FROZEN_PREFIX)
            self._loop.start(self._thaw(self._listed(path), path, place))
        for path in self._directory.glob(SAVED_PREFIX + "*"):
            self._loop.start(self._let_end(self._listed(path), path))

    def _listed(self, path: Path) -> list[Launch]:
        launch_ids = path.read_text(encoding="utf-8").split()
        found = (self._launches.running(launch_id) for launch_id in launch_ids)
        return [each for each in found if each is not None]

    def _thaw(self, launches: Sequence[Launch], path: Path, place: Path) -> Steps[None]:
        for launch in launches:
            if launch.inside is not None and not isinstance(launch.inside[0], RevivingEngine):
                # It has its hands in the container, and would leave it frozen as it found it.
                yield from _until_done(str(place / launch.command.engine_id))
            error = yield from launch.freeze(frozen=False)
            if error:
                logger.warning("worker.not_thawed launch_id=%s %s", launch.launch_id, error)
        path.unlink()

    def _let_end(self, launches: Sequence[Launch], path: Path) -> Steps[None]:
        """What is saved has nothing left to do: its engine ends it as soon as it may go on."""
        for launch in launches:
            yield from launch.let_end()
        path.unlink()

    def _place(self, command: w.Save) -> Path:
        """The save's directory, of which nothing is left: its name is no path that others chose."""
        return self._directory / hashlib.sha256(command.checkpoint_id.encode()).hexdigest()

    def _frozen_path(self, command: w.Save) -> Path:
        return self._directory / f"{FROZEN_PREFIX}{self._place(command).name}"

    def _saved_path(self, command: w.Save) -> Path:
        return self._directory / f"{SAVED_PREFIX}{self._place(command).name}"

    def _save(self, command: w.Save, fds: FdBundle) -> Steps[None]:
        place = self._place(command)
        try:
            with fds:
                yield from self._make(command, fds, place)
        except Exception as error:
            logger.exception("worker.save_crashed checkpoint_id=%s", command.checkpoint_id)
            self._failed(command, SaveFailed("save", f"a defect of the worker: {error!r}"))
        finally:
            shutil.rmtree(place, ignore_errors=True)
            self._frozen_path(command).unlink(missing_ok=True)
            self._under_way.discard(command.checkpoint_id)
            self._changed()

    def _make(self, command: w.Save, fds: FdBundle, place: Path) -> Steps[None]:
        launches = [self._launches.running(each) for each in command.launch_ids]
        found = [each for each in launches if each is not None and each.inside is not None]
        saved: list[Launch] = []
        try:
            _check(found, len(launches), fds)
            self._frozen_path(command).write_text("\n".join(command.launch_ids), encoding="utf-8")
            yield from self._end_executed(found)
            yield from _freeze(found)
            reached("save.frozen")
            place.mkdir(mode=DIRECTORY_MODE)
            for launch in found:
                yield from _save_one(launch, place)
                saved.append(launch)
                reached("save.one")
            length, digest = yield from self._write(command, fds[0], found, place)
        except Exception as error:
            failure = _as_failure(command, error)
            yield from self._undo(command, failure, found, saved, place)
            return
        revived: list[w.Revived] = []
        if command.resume:
            revived = yield from _revive(saved, place)
        else:
            self._frozen_path(command).rename(self._saved_path(command))
        self._outbox.put(
            w.Saved(
                seq=self._outbox.next_seq(),
                checkpoint_id=command.checkpoint_id,
                image_bytes=length,
                digest=digest,
                resumed=command.resume,
                revived=tuple(revived),
            )
        )
        reached("save.reported")
        if not command.resume:
            yield from self._let_end(saved, self._saved_path(command))

    def _end_executed(self, found: Sequence[Launch]) -> Steps[None]:
        for launch in found:
            numbers = self._launches.executed(launch.launch_id)
            if numbers and not (yield from end_executed(launch, numbers)):
                raise SaveFailed(
                    "freeze", "a process that was executed in a container does not end"
                )

    def _write(
        self, command: w.Save, image: OwnedFd, found: Sequence[Launch], place: Path
    ) -> Steps[tuple[int, str]]:
        directories = {each.command.engine_id: place / each.command.engine_id for each in found}
        try:
            return (yield from write_image(image, command.metadata, directories))
        except OSError as error:
            raise SaveFailed("write", error.strerror or str(error)) from error
        except ImageRejected as error:
            raise SaveFailed("write", str(error)) from error

    def _undo(
        self,
        command: w.Save,
        failure: SaveFailed,
        found: Sequence[Launch],
        saved: Sequence[Launch],
        place: Path,
    ) -> Steps[None]:
        revived = yield from _revive(saved, place)
        for launch in found:
            if launch not in saved:
                yield from launch.freeze(frozen=False)
        self._failed(command, failure, revived)

    def _failed(
        self, command: w.Save, failure: SaveFailed, revived: Sequence[w.Revived] = ()
    ) -> None:
        self._outbox.put(
            w.SaveFailed(
                seq=self._outbox.next_seq(),
                checkpoint_id=command.checkpoint_id,
                stage=failure.stage,
                reason=failure.reason,
                revived=tuple(revived),
            )
        )


def _as_failure(command: w.Save, error: Exception) -> SaveFailed:
    """Whatever went wrong: what was frozen is to go on."""
    if isinstance(error, SaveFailed):
        return error
    if isinstance(error, OSError):
        return SaveFailed("save", f"{error.filename or 'the image'}: {error.strerror or error}")
    logger.error("worker.save_crashed checkpoint_id=%s", command.checkpoint_id, exc_info=error)
    return SaveFailed("save", f"a defect of the worker: {error!r}")


def _check(found: Sequence[Launch], wanted: int, fds: FdBundle) -> None:
    if len(fds) != 1:
        raise SaveFailed("write", f"{len(fds)} descriptors came with it instead of the image's")
    if len(found) < wanted or not found:
        raise SaveFailed("freeze", "a container has ended meanwhile")
    for launch in found:
        if problem := launch.unsaveable:
            raise SaveFailed("freeze", problem)


def _freeze(found: Sequence[Launch]) -> Steps[None]:
    for launch in found:
        error = yield from launch.freeze(frozen=True)
        if error:
            raise SaveFailed("freeze", error)


def _until_done(place: str) -> Steps[None]:
    """Wait for the engine's command that writes there: it goes on without the worker."""
    while is_at_work(place.encode()):
        yield Pause(seconds=DONE_POLL_SECONDS)


def _save_one(launch: Launch, place: Path) -> Steps[None]:
    directory = place / launch.command.engine_id
    directory.mkdir(mode=DIRECTORY_MODE)
    error = yield from launch.save(directory)
    if error:
        raise SaveFailed("save", error)


def _revive(saved: Sequence[Launch], place: Path) -> Steps[list[w.Revived]]:
    """Let what is saved go on, as new processes if need be; one that cannot is told to end."""
    revived = []
    for launch in saved:
        with contextlib.suppress(OSError):
            found = yield from launch.revive(place / launch.command.engine_id)
            if found is not None:
                revived.append(found)
    return revived
