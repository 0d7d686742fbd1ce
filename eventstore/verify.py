"""Checking a log from its bytes up: is it what was sealed?"""

from collections.abc import Iterator, Sequence
from typing import Final

from eventstore.note import Checkpoint, Verifier
from eventstore.verification import Evidence, Finding, Outcome, Progress, Verification
from eventstore.walk import Walk

PROGRESS_EVENTS: Final = 1024
PROBLEMS_SHOWN_MAX: Final = 3


def verify(
    evidence: Evidence,
    *,
    trusted: Sequence[Verifier] = (),
    pinned: Sequence[Checkpoint] = (),
    progress: Progress | None = None,
) -> Verification:
    """Check everything about a log that can be checked; see :func:`eventstore.verify_log`."""
    problems = evidence.problems()
    newest = evidence.newest_checkpoint()
    head = evidence.head()  # after the checkpoints: whatever they cover is there by now
    walk = Walk(evidence, trusted, pinned, newest, head)
    for stored in evidence.events(head):
        walk.take(stored)
        if progress is not None and stored.position % PROGRESS_EVENTS == 0:
            progress(stored.position, head)
    walk.finish(wrong_versions(evidence.versions(head)), evidence.documents())
    if progress is not None:
        progress(head, head)
    return Verification(
        findings=(
            _file_finding(problems),
            walk.sequence_finding(),
            walk.content_finding(),
            walk.tree_finding(),
            walk.signature_finding(),
            walk.history_finding(),
            *_tail_finding(walk.sealed, head),
        ),
        head=head,
        sealed=walk.sealed,
        unproven=_unproven(walk.sealed, head, pinned, trusted),
    )


def wrong_versions(versions: Iterator[tuple[int, int, int]]) -> Iterator[tuple[int, str]]:
    """Where versions are not 1, 2, 3, … along a stream, or go back in the log."""
    stream, version, position = -1, 0, 0
    for next_stream, next_version, next_position in versions:
        if next_stream != stream:
            stream, version, position = next_stream, 0, 0
        if next_version != version + 1:
            yield next_position, f"#{next_position} has version {next_version} after {version}"
        elif next_position <= position:
            yield next_position, f"#{next_position} is a later version than #{position}"
        version, position = next_version, next_position


def _file_finding(problems: Sequence[str]) -> Finding:
    if not problems:
        return Finding(layer="file", outcome=Outcome.PASS, text="SQLite finds it whole")
    more = len(problems) - PROBLEMS_SHOWN_MAX
    text = "; ".join(problems[:PROBLEMS_SHOWN_MAX]) + (f"; {more} more" if more > 0 else "")
    return Finding(layer="file", outcome=Outcome.FAIL, text=text)


def _tail_finding(sealed: int, head: int) -> tuple[Finding, ...]:
    if sealed >= head or not sealed:
        return ()
    text = f"#{sealed + 1} to #{head} are not sealed yet"
    return (Finding(layer="tail", outcome=Outcome.INFO, text=text),)


def _unproven(
    sealed: int, head: int, pinned: Sequence[Checkpoint], trusted: Sequence[Verifier]
) -> tuple[str, ...]:
    told = ["That what was recorded is true."]
    if not trusted:
        told.append("Who made the checkpoints: no key was given to check them with.")
    since = max((each.size for each in pinned), default=0)
    told.append(
        f"That whoever has the signing key did not rewrite what follows #{since}, or that nothing "
        "after the newest checkpoint here was cut off: only a later checkpoint kept elsewhere can."
    )
    if sealed < head:
        told.append(f"Anything about #{sealed + 1} to #{head}: no trusted checkpoint covers them.")
    told.append("Media types of documents, documents that no event names, and times of sealing.")
    return tuple(told)
