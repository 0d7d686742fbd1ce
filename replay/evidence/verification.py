"""Everything that can be checked about a log, layer by layer, with what was kept of it before."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct

from eventstore import (
    Checkpoint,
    Finding,
    NoteRejected,
    Outcome,
    Verdict,
    Verification,
    Verifier,
    newest_note,
    open_checkpoint,
    verify_log,
    verify_log_stretch,
)
from replay.evidence.remembered import STATE_HOME, memory_file, recall, remember
from replay.evidence.state_layer import COMPARED_EVERY, StateJudgement, judge_state
from replay.trail import Trail

NEEDS_HELP: Final = frozenset({"history", "witness"})
"""Layers that only what is kept elsewhere can check: without it the verdict is still told."""
LAST_S: Final = int(datetime.max.replace(microsecond=0, tzinfo=UTC).timestamp())
"""The last second that has a date."""
WITNESS: Final = Finding(
    layer="witness",
    outcome=Outcome.SKIP,
    text="none is asked: whoever has the signing key could have rewritten what follows the newest "
    "checkpoint that is kept elsewhere",
)


class Sighting(Struct, frozen=True, kw_only=True):
    """A checkpoint that a witness has signed.

    Attributes:
        size: Events that it covers.
        witness: The witness's key.
        at_s: When it says that it did, in seconds since 1970; 0 if it does not say.
    """

    size: int
    witness: str
    at_s: int

    @property
    def when(self) -> str:
        """The time, for people."""
        if not self.at_s:
            return ""
        if self.at_s > LAST_S:
            return f" in second {self.at_s} since 1970"
        return f" at {datetime.fromtimestamp(self.at_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


class AuditReport(Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        findings: One for each layer: file, sequence, content, tree, signature, history, witness,
            state; ``tail`` if events are not sealed yet, ``complete`` if events may be missing,
            ``memory`` if the head cannot be remembered; ``bundle`` if one was compared. Of a
            stretch the second to the fifth, and ``range``.
        head: Last position that was looked at.
        first: First position that was.
        sealed: Positions up to this one are covered by a checkpoint of a trusted key; 0 for none.
        unproven: What all this does not show, one sentence each.
        replaced: The path had another log when it was verified last.
        foreign_state: All states were sealed by another version of the program, so that this one
            cannot compare them; what it can check, it has.
    """

    findings: tuple[Finding, ...]
    head: int
    sealed: int
    unproven: tuple[str, ...]
    replaced: bool = False
    foreign_state: bool = False
    first: int = 1

    @property
    def verdict(self) -> Verdict:
        """BROKEN if any layer failed; INTACT if all was checked that needs no outside help."""
        if any(each.outcome is Outcome.FAIL for each in self.findings):
            return Verdict.BROKEN
        skipped = {each.layer for each in self.findings if each.outcome is Outcome.SKIP}
        helpless = NEEDS_HELP | ({"state"} if self.foreign_state else frozenset())
        return Verdict.INCONCLUSIVE if skipped - helpless or self.replaced else Verdict.INTACT

    @property
    def first_bad(self) -> int | None:
        """Lowest position at which something is wrong, if that can be told."""
        return min((each.first_bad for each in self.findings if each.first_bad), default=None)


def verify_file(
    path: Path,
    *,
    trusted: Sequence[Verifier] = (),
    kept: Sequence[Checkpoint] = (),
    seen: Sequence[Sighting] = (),
    progress: Callable[[int, int], None] | None = None,
    memory: bool = True,
    deep: bool = False,
) -> AuditReport:
    """Verify a log, also while it is being written.

    Args:
        path: The log's file.
        trusted: Keys whose checkpoints count.
        kept: Checkpoints that were kept elsewhere.
        seen: Those of them that witnesses have signed.
        progress: Called now and then with the events done and to do.
        memory: Demand that the log extends the head that it had here the last time, and remember
            the one that it has now.
        deep: Compare every sealed state, not only one in COMPARED_EVERY events.

    Raises:
        LogNotFound: No such file.
        LogUnusable: It cannot be read far enough to say anything.
        NoteRejected: What is remembered of it is no checkpoint.
        OSError: What is remembered of it cannot be read.
        StoreBusy: Another program holds the file. Try again.
    """
    file = memory_file(path) if memory else None
    remembered = None if file is None else recall(file)
    pinned = [*kept, *([] if remembered is None else [remembered])]
    found = verify_log(path, trusted=trusted, pinned=pinned, progress=progress)
    every = 1 if deep else COMPARED_EVERY
    report = _report(path, found, remembered, file, every)
    report = _with_witness(report, seen)
    if memory and report.verdict is Verdict.INTACT and found.sealed:
        try:
            _remember_newest(path, file, trusted)
        except OSError as error:
            text = f"the head cannot be remembered for the next time: {error}"
            forgotten = Finding(layer="memory", outcome=Outcome.INFO, text=text)
            return msgspec.structs.replace(report, findings=(*report.findings, forgotten))
    return report


def verify_part(
    path: Path,
    first: int,
    last: int,
    *,
    trusted: Sequence[Verifier] = (),
    progress: Callable[[int, int], None] | None = None,
) -> AuditReport:
    """Verify some events of a log, without reading what is before and after them.

    Args:
        path: The log's file.
        first: The first position.
        last: The last one.
        trusted: Keys whose checkpoints count.
        progress: Called now and then with the events done and to do.

    Raises:
        As :func:`verify_file`, but for what is remembered.
    """
    found = verify_log_stretch(path, first, last, trusted=trusted, progress=progress)
    return AuditReport(
        findings=found.findings,
        head=found.head,
        sealed=found.sealed,
        unproven=found.unproven,
        first=found.first,
    )


async def verify(
    trail: Trail,
    *,
    trusted: Sequence[Verifier] = (),
    kept: Sequence[Checkpoint] = (),
    memory: bool = False,
) -> AuditReport:
    """As :func:`verify_file`, in a thread, of a log that is open; remembers only if asked to.

    Cancellation: waits for the thread.
    """
    work = partial(verify_file, trail.path, trusted=trusted, kept=kept, memory=memory)
    return await anyio.to_thread.run_sync(work)


def _report(
    path: Path, found: Verification, remembered: Checkpoint | None, file: Path | None, every: int
) -> AuditReport:
    layers = {each.layer: each for each in found.findings}
    tail = [layers.pop(name) for name in ("tail", "complete") if name in layers]
    replaced = False
    if remembered is not None and file is not None:
        history = layers["history"]
        replaced = history.outcome is Outcome.SKIP
        layers["history"] = _with_memory(history, remembered, file)
    if found.verdict is Verdict.BROKEN:
        text = "not looked at: what would be folded is not what was recorded"
        finding = Finding(layer="state", outcome=Outcome.SKIP, text=text)
        state = StateJudgement(finding=finding)
    else:
        state = anyio.run(judge_state, path, found.head, every)
    return AuditReport(
        findings=(*layers.values(), WITNESS, state.finding, *tail),
        head=found.head,
        sealed=found.sealed,
        unproven=(
            *found.unproven,
            "That the rules gave the recorded decisions: `sandtrail replay check` decides again.",
        ),
        replaced=replaced,
        foreign_state=state.foreign,
    )


def _with_witness(report: AuditReport, seen: Sequence[Sighting]) -> AuditReport:
    """With what witnesses have seen of the log, which it extends or not."""
    if not seen:
        return report
    (history,) = (each for each in report.findings if each.layer == "history")
    newest = max(seen, key=lambda each: (each.size, each.at_s))
    text = f"#{newest.size} was seen by {newest.witness}{newest.when}"
    if history.outcome is not Outcome.PASS:
        text += "; this log does not extend all that was kept"
    witness = Finding(layer="witness", outcome=history.outcome, text=text)
    findings = tuple(witness if each is WITNESS else each for each in report.findings)
    return msgspec.structs.replace(report, findings=findings)


def _with_memory(history: Finding, remembered: Checkpoint, file: Path) -> Finding:
    seen = f"#{remembered.size} is the head that you last saw here"
    if history.outcome is not Outcome.PASS:
        seen += f"; if the log was changed on purpose, remove {file}"
    return msgspec.structs.replace(history, text=f"{history.text} ({seen})")


def _remember_newest(path: Path, file: Path | None, trusted: Sequence[Verifier]) -> None:
    if file is None:
        raise FileNotFoundError(f"no home directory is known; set {STATE_HOME} to one")
    note = newest_note(path)
    with suppress(NoteRejected):  # one that came meanwhile may be another's
        if note is not None:
            open_checkpoint(note, trusted)
            remember(file, note)
