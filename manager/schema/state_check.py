"""Folding a log once more, and comparing with what was kept of its states before.

Two things were: snapshots beside the log, which only save time, and the digests in its
checkpoints, which are signed. One pass compares with all of them.
"""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

import anyio.to_thread
from msgspec import Struct

from eventstore import (
    Checkpoint,
    EventLog,
    SnapshotFiles,
    SnapshotUnusable,
    read_checkpoints,
)
from manager.schema.node_fold import NodeFold
from manager.schema.node_snapshot import decode_sandboxes, open_fold, recall
from manager.schema.state_seal import StateDigests, StateSeal, seal_state

FINDINGS_MAX: Final = 20
POSITION_NEVER: Final = 2**63

SealVerdict: TypeAlias = Literal["same", "different", "otherwise", "foreign"]


class SnapshotFinding(Struct, frozen=True, kw_only=True):
    """What came of the check of one snapshot; ``problem`` is empty if it is what the log says."""

    position: int
    problem: str = ""


class SealFinding(Struct, frozen=True, kw_only=True):
    """What came of the check of one sealed state.

    ``verdict`` is ``same``; ``different``, if the very code that sealed it now folds into another
    state; ``otherwise``, if other code did; ``foreign``, if its states have other members, so that
    nothing can be compared.
    """

    sealed: StateSeal
    now: StateSeal
    verdict: SealVerdict


class StatesFound(Struct, frozen=True, kw_only=True):
    """What came of a check of states.

    Attributes:
        snapshots: One finding a snapshot, the oldest first.
        seals: How many sealed states there are of each verdict.
        passed_over: How many were not compared, see ``every``.
        findings: Those that are neither the same nor foreign, the first FINDINGS_MAX.
        live: How many sandboxes lived at the end.
    """

    snapshots: tuple[SnapshotFinding, ...]
    seals: dict[SealVerdict, int]
    passed_over: int
    findings: tuple[SealFinding, ...]
    live: int


async def verify_states(
    log: EventLog,
    snapshots: SnapshotFiles | None = None,
    sealed: AsyncIterator[StateSeal] | None = None,
    *,
    first: int = 1,
    last: int | None = None,
    every: int = 1,
) -> StatesFound:
    """Fold a log, and compare on the way.

    Args:
        log: The log.
        snapshots: Those beside it, if they are to be looked at; with a ``first`` the fold begins
            with one of them.
        sealed: As of :func:`state_seals`, by position.
        first: The first position at which states are compared.
        last: The last one; without it, the log's head, and snapshots of later states are wrong.
        every: After one sealed state the next is compared that is so many events later, and the
            last in any case. Comparing costs some 2 us for each sandbox that lives.

    Raises:
        EventStoreError: The log cannot be read.
        EventFormatError: An event is of a newer program, or damaged; the text names it.
        NoteRejected: As of :func:`state_seals`.

    Cancellation: safe.
    """
    fold = await open_fold(log, snapshots if first > 1 else None, until=first - 1)
    until = await log.head() if last is None else last
    watch = StateWatch(snapshots, sealed, every=every)
    await watch.begin(fold, until)
    async for record in log.read(after=fold.position, until=until):
        await recall(fold, log, record)
        fold.apply(record)
        if record.position >= watch.due:
            await watch.compare()
    return watch.found(whole=last is None)


async def state_seals(path: Path) -> AsyncIterator[StateSeal]:
    """The states that the checkpoints of a log's file seal, the oldest first, each one once.

    Raises:
        EventStoreError: The log cannot be read; NoteRejected if a checkpoint is none.
    """
    size, before = 0, None
    while page := await anyio.to_thread.run_sync(_page, path, size):
        for checkpoint in page:
            size = checkpoint.size
            for seal in filter(None, map(StateSeal.parse, checkpoint.extensions)):
                if seal != before:
                    yield seal
                before = seal


def _page(path: Path, after: int) -> Sequence[Checkpoint]:
    return read_checkpoints(path, after=after)


class _SealsAhead:
    """The sealed states that are to be compared, one after the other."""

    def __init__(
        self, sealed: AsyncIterator[StateSeal] | None, positions: range, every: int
    ) -> None:
        self._sealed = sealed
        self._positions = positions
        self._from = positions.start
        self._every = every
        self._spare: StateSeal | None = None
        self.passed_over = 0

    async def next(self) -> StateSeal | None:
        """The next one, ``None`` after the last."""
        while self._sealed is not None:
            found = await anext(self._sealed, None)
            if found is None or found.position >= self._positions.stop:
                self._sealed = None
            elif found.position < self._positions.start:
                continue
            elif self._every == 1 or found.position >= self._from:
                self.passed_over += self._spare is not None
                self._spare = None
                self._from = found.position + self._every
                return found
            else:
                self.passed_over += self._spare is not None
                self._spare = found
        spare, self._spare = self._spare, None
        return spare


class StateWatch:
    """Compares a fold that somebody goes on with, event by event, with what was kept of its states.

    Args:
        snapshots: Those beside the log, if they are to be looked at.
        sealed: As of :func:`state_seals`, by position.
        every: As of :func:`verify_states`.

    Attributes:
        due: The next position at which there is something to compare with.
    """

    def __init__(
        self,
        snapshots: SnapshotFiles | None = None,
        sealed: AsyncIterator[StateSeal] | None = None,
        *,
        every: int = 1,
    ) -> None:
        self._files = snapshots
        self._sealed = sealed
        self._every = every
        self._fold = NodeFold()
        self._positions: Sequence[int] = ()
        self._beyond: Sequence[int] = ()
        self._ahead = _SealsAhead(None, range(0), every)
        self._next: StateSeal | None = None
        self._digests = StateDigests()
        self._snapshots: list[SnapshotFinding] = []
        self._counts: Counter[SealVerdict] = Counter()
        self._findings: list[SealFinding] = []
        self.due = POSITION_NEVER

    async def begin(self, fold: NodeFold, until: int) -> None:
        """Look for what comes first.

        Args:
            fold: It is watched from here on: :meth:`compare` whenever it comes to ``due``.
            until: The last position at which states are compared.

        Raises:
            EventStoreError: The log cannot be read.
            NoteRejected: As of :func:`state_seals`.
        """
        found = [] if self._files is None else await anyio.to_thread.run_sync(self._files.positions)
        self._fold = fold
        self._positions = sorted(each for each in found if fold.position < each <= until)
        self._beyond = sorted(each for each in found if each > until)
        self._ahead = _SealsAhead(self._sealed, range(fold.position + 1, until + 1), self._every)
        self._next = await self._ahead.next()
        self._set_due()

    async def compare(self) -> None:
        """Compare the fold with what there is of its position; raises as :meth:`begin`."""
        position = self._fold.position
        if self._positions and self._positions[0] == position:
            await self._compare_snapshot(position)
            self._positions = self._positions[1:]
        while self._next is not None and self._next.position <= position:
            self._compare_seal(self._next)
            self._next = await self._ahead.next()
        self._set_due()

    def found(self, *, whole: bool) -> StatesFound:
        """What came of it; ``whole`` if the log ends where the last comparison was to be."""
        end = self._fold.position
        beyond = [
            SnapshotFinding(position=each, problem=f"the log ends at position {end}")
            for each in self._beyond
            if whole
        ]
        return StatesFound(
            snapshots=(*self._snapshots, *beyond),
            seals=dict(self._counts),
            passed_over=self._ahead.passed_over,
            findings=tuple(self._findings),
            live=len(self._fold.live),
        )

    def _set_due(self) -> None:
        waiting = [] if self._next is None else [self._next.position]
        self.due = min((*waiting, *self._positions[:1]), default=POSITION_NEVER)

    def _compare_seal(self, sealed: StateSeal) -> None:
        now = seal_state(self._fold.position, self._digests.of(self._fold.live.items()))
        verdict = _verdict(sealed, now)
        self._counts[verdict] += 1
        if verdict in {"different", "otherwise"} and len(self._findings) < FINDINGS_MAX:
            self._findings.append(SealFinding(sealed=sealed, now=now, verdict=verdict))

    async def _compare_snapshot(self, position: int) -> None:
        problem = await anyio.to_thread.run_sync(self._difference, position)
        self._snapshots.append(SnapshotFinding(position=position, problem=problem))

    def _difference(self, position: int) -> str:
        assert self._files is not None, "positions are those of files"
        try:
            found = decode_sandboxes(self._files.load(position).body)
        except SnapshotUnusable as error:
            return error.problem
        except ValueError as error:
            return f"its body cannot be understood: {error}"
        live = self._fold.live
        different = [key for key in live | found if live.get(key) != found.get(key)]
        return f"other states than the log's: sandboxes {', '.join(different)}" if different else ""


def _verdict(sealed: StateSeal, now: StateSeal) -> SealVerdict:
    if sealed.digest == now.digest:
        return "same"
    if sealed.shape != now.shape:
        return "foreign"
    return "different" if sealed.code == now.code else "otherwise"
