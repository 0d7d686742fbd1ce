"""Since when is it so? The first event after which a question about the state is answered by yes.

With an expression every state of a window is looked at, in one pass: a halving would trust that the
answer changes once, and it may change more often. A command, which is slow, is run for halves.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

from manager.schema.node_fold import STREAM_PREFIX
from manager.schema.node_snapshot import node_snapshots, open_fold, recall
from replay.subject import NodeSubject, SandboxSubject
from replay.trail import Trail, Window

Question: TypeAlias = Callable[[Mapping[str, Any]], bool]
Answer: TypeAlias = Literal["good", "bad", "skip"]
Probe: TypeAlias = Callable[[int], Awaitable[Answer]]
FLIPS_SHOWN_MAX: Final = 100


class Flip(Struct, frozen=True, kw_only=True):
    """An event that changed the answer, to ``bad`` or back."""

    position: int
    bad: bool


class Bisection(Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        first_bad: The first event after which it is so; ``None`` if it never was, or nobody can
            tell, as one of the ends could not be judged.
        bad_before: Whether it was so already before the window.
        flips: The events that changed the answer, the first FLIPS_SHOWN_MAX; ``flip_count`` of all.
        skipped: Positions that could not be judged, between the last good one and ``first_bad``;
            the end of the window if that is the one.
        looked_at: How many states were judged.
    """

    first_bad: int | None
    bad_before: bool = False
    flips: tuple[Flip, ...] = ()
    flip_count: int = 0
    skipped: tuple[int, ...] = ()
    looked_at: int = 0


async def bisect(
    trail: Trail, window: Window, question: Question, sandbox_id: str = ""
) -> Bisection:
    """Find every event of a window that changes the answer.

    Args:
        trail: The log.
        window: The events; the state before them comes from a snapshot if there is one.
        question: What is asked of :class:`replay.subject.NodeSubject`, or of
            :class:`replay.subject.SandboxSubject` if a sandbox is named.
        sandbox_id: The sandbox whose events alone matter; empty for all.

    Raises:
        EventStoreError: The log cannot be read.
        EventFormatError: An event is of a newer program, or damaged; the text names it.
    """
    fold = await open_fold(trail.log, node_snapshots(trail.path.parent), until=window.first - 1)
    subject = SandboxSubject(fold, sandbox_id) if sandbox_id else NodeSubject(fold)
    before = was = question(subject)
    first_bad, flips, flip_count, looked_at = None, list[Flip](), 0, 1
    stream = STREAM_PREFIX + sandbox_id if sandbox_id else None
    async for record in trail.log.read(stream, after=window.first - 1, until=window.last):
        await recall(fold, trail.log, record)
        fold.apply(record)
        now = question(subject)
        looked_at += 1
        if now is not was:
            flip_count += 1
            if len(flips) < FLIPS_SHOWN_MAX:
                flips.append(Flip(position=record.position, bad=now))
            if now and first_bad is None:
                first_bad = record.position
            was = now
    return Bisection(
        first_bad=first_bad,
        bad_before=before,
        flips=tuple(flips),
        flip_count=flip_count,
        looked_at=looked_at,
    )


async def bisect_by(window: Window, probe: Probe) -> Bisection:
    """Halve a window; the state before it is good and its last one bad, or nothing is found.

    Args:
        window: The events.
        probe: Judges the state at a position.

    Raises:
        Whatever ``probe`` raises.
    """
    good, bad = window.first - 1, window.last
    if (answer := await probe(bad)) != "bad":
        return Bisection(first_bad=None, skipped=(bad,) if answer == "skip" else (), looked_at=1)
    if (answer := await probe(good)) != "good":
        skipped = answer == "skip"
        return Bisection(
            first_bad=None,
            bad_before=not skipped,
            skipped=(good,) if skipped else (),
            looked_at=2,
        )
    unjudged: set[int] = set()
    looked_at = 2
    while (middle := _untried(good, bad, unjudged)) is not None:
        answer = await probe(middle)
        looked_at += 1
        if answer == "skip":
            unjudged.add(middle)
        elif answer == "bad":
            bad = middle
        else:
            good = middle
    left = tuple(sorted(each for each in unjudged if good < each < bad))
    return Bisection(first_bad=bad, skipped=left, looked_at=looked_at)


def _untried(good: int, bad: int, skipped: set[int]) -> int | None:
    """The position nearest the middle that can still tell something."""
    middle = (good + bad) // 2
    between = sorted(range(good + 1, bad), key=lambda at: (abs(at - middle), at)) if skipped else ()
    if not skipped:
        return middle if good < middle < bad else None
    return next((at for at in between if at not in skipped), None)


async def state_at(trail: Trail, position: int) -> Mapping[str, Any]:
    """What a question would be asked of at a position; raises as :func:`bisect`."""
    fold = await open_fold(trail.log, node_snapshots(trail.path.parent), until=position)
    return NodeSubject(fold)
