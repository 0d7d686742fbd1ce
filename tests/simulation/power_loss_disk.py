"""What a disk may hold after a power cut: everything that was synced, any part of the rest.

* A write, or a change of a file's length, counts as done for good once a sync of the file that
  began after it has ended. Before that, any set of its sectors may be there, whatever became of
  writes before and after it: that is what all reordering by kernel, bus and disk comes to.
* A sector holds the old or the new bytes, or, where a write was under way, now and then garbage.
* A file may have grown to its new length with nothing in it but zeros.
* A name that was made or removed is so for good once a sync of the directory that began after it
  has ended. Before that, either.

Not modelled: disks that say "synced" and lie, and bytes that rot later.
"""

import random
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from tests.simulation.power_loss_recording import (
    Create,
    Step,
    SyncDirectory,
    SyncFile,
    Truncate,
    Unlink,
    Write,
)

SECTOR_BYTES: Final = 512
GARBAGE_CHANCE: Final = 0.02
GROWN_CHANCE: Final = 0.3

Image: TypeAlias = dict[str, bytes]
"""Contents by name."""


@dataclass
class File:
    """Contents that are durable, and what was done since."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Write | Truncate] = field(default_factory=list)

    def sync(self, began: int) -> None:
        for step in self.pending:
            if step.ended < began:
                apply(self.durable, step)
        self.pending = [step for step in self.pending if step.ended >= began]

    def now(self) -> bytes:
        contents = bytearray(self.durable)
        for step in self.pending:
            apply(contents, step)
        return bytes(contents)

    def after_cut(self, chance: random.Random) -> bytes:
        contents = bytearray(self.durable)
        keeps = chance.choice(KEEPS)
        for index, step in enumerate(self.pending):
            if not keeps(chance, index / len(self.pending)):
                continue
            if isinstance(step, Truncate) or chance.random() < 0.5:
                apply(contents, step)
            else:
                tear(contents, step, chance)
        if chance.random() < GROWN_CHANCE:
            contents.extend(bytes(max(0, len(self.now()) - len(contents))))
        return bytes(contents)


KEEPS: Final = (
    lambda chance, place: True,
    lambda chance, place: False,
    lambda chance, place: chance.random() < 0.5,
    lambda chance, place: chance.random() < 0.9,
    lambda chance, place: place < 0.5,  # the older half
    lambda chance, place: place >= 0.5,  # the newer half
)


def apply(contents: bytearray, step: Write | Truncate) -> None:
    if isinstance(step, Truncate):
        del contents[step.size :]
        contents.extend(bytes(step.size - len(contents)))
        return
    contents.extend(bytes(max(0, step.offset - len(contents))))
    contents[step.offset : step.offset + len(step.data)] = step.data


def tear(contents: bytearray, step: Write, chance: random.Random) -> None:
    """Some sectors of a write."""
    at, end = step.offset, step.offset + len(step.data)
    while at < end:
        until = min(end, (at // SECTOR_BYTES + 1) * SECTOR_BYTES)
        data = step.data[at - step.offset : until - step.offset]
        if chance.random() < GARBAGE_CHANCE:
            data = chance.randbytes(len(data))
        if chance.random() < 0.5:
            apply(contents, Write(began=0, ended=0, name=step.name, offset=at, data=data))
        at = until


class Disk:
    """A directory, told step by step what is done to it."""

    def __init__(self) -> None:
        self._live: dict[str, File] = {}
        self._durable: dict[str, File] = {}
        self._pending: list[tuple[int, str, File | None]] = []

    def take(self, step: Step) -> None:
        """Writes and names are taken at their begin, syncs at their end."""
        match step:
            case Write(name=name) | Truncate(name=name):
                self._live[name].pending.append(step)
            case Create(name=name, empties=empties):
                if name in self._live:
                    assert not empties, f"{name} is emptied as it is opened: not modelled"
                    return
                self._live[name] = File()
                self._pending.append((step.ended, name, self._live[name]))
            case Unlink(name=name):
                del self._live[name]
                self._pending.append((step.ended, name, None))
            case SyncFile(name=name):
                self._live[name].sync(step.began)
            case SyncDirectory():
                self._sync_names(step.began)

    def _sync_names(self, began: int) -> None:
        for ended, name, file in self._pending:
            if ended < began:
                rename(self._durable, name, file)
        self._pending = [each for each in self._pending if each[0] >= began]

    def now(self) -> Image:
        """What a program sees while the power is on."""
        return {name: file.now() for name, file in self._live.items()}

    def after_cut(self, chance: random.Random) -> Image:
        """What may be found after the power was cut now."""
        names = dict(self._durable)
        lost: set[str] = set()
        forgets = chance.choice((0.0, 0.5, 1.0))
        for _, name, file in self._pending:
            # What is done to one name is done in order; names do not wait for each other.
            if chance.random() < forgets:
                lost.add(name)
            if name not in lost:
                rename(names, name, file)
        return {name: file.after_cut(chance) for name, file in names.items()}


def rename(names: dict[str, File], name: str, file: File | None) -> None:
    if file is None:
        names.pop(name, None)
    else:
        names[name] = file


def in_order(steps: list[Step]) -> list[Step]:
    """Steps in the order in which a disk is to be told of them."""
    late = (SyncFile, SyncDirectory, Create)
    return sorted(steps, key=lambda step: step.ended if isinstance(step, late) else step.began)
