"""Evidence that was exported once, against the log of today: does it still have every byte?"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from eventstore import (
    EventLog,
    Finding,
    LogCorrupt,
    NoteRejected,
    Outcome,
    ProvedEvent,
    RecordedEvent,
    Verifier,
    leaf_hash,
    open_log,
)
from eventstore.canonical import actor_json
from replay import verify_trail

LAYER: Final = "bundle"
READING: Final = (
    KeyError, TypeError, ValueError, AttributeError, RecursionError, zipfile.BadZipFile,
    msgspec.ValidationError,
)  # fmt: skip
"""What a file that is no proof may raise, whatever it is instead."""


class KeptBundle(Struct, frozen=True, kw_only=True):
    """What a bundle, or a proof, holds of a log.

    Attributes:
        events: As they were stored when it was made, by position.
        note: The checkpoint that covers them.
    """

    events: tuple[ProvedEvent, ...]
    note: str


def read_bundle(path: Path, trusted: Sequence[Verifier]) -> KeptBundle:
    """Read a bundle or a proof, and check that it fits itself.

    Raises:
        NoteRejected: It does not, or none of the keys has signed it: it says nothing of a log.
        OSError: It cannot be read.
    """
    keys = [verify_trail.read_key(each.text()) for each in trusted]
    try:
        proof = verify_trail.read_proof(path)
        _check(proof, keys, path)
        events = msgspec.convert(proof["events"], list[ProvedEvent])
    except READING as error:
        raise NoteRejected(f"{path} is neither a bundle nor a proof: {error}") from None
    in_order = tuple(sorted(events, key=lambda each: each.position))
    return KeptBundle(events=in_order, note=proof["checkpoint"])


def _check(proof: dict[str, Any], keys: list[verify_trail.Key], path: Path) -> None:
    try:
        verify_trail.check_proof(proof, keys, None)
    except verify_trail.ProofError as error:
        _, reason, text = error.args
        if reason != "no-key":  # then it fits itself, and that is all that anybody can say
            raise NoteRejected(f"{path} is no evidence: {text}") from None


async def judge_bundle(path: Path, bundle: KeptBundle, name: str) -> Finding:
    """Compare a log with what was exported of it.

    Args:
        path: The log's file.
        bundle: What was.
        name: What to call it.

    Raises:
        EventStoreError: The log cannot be read.
    """
    async with open_log(path, read_only=True) as log:
        for kept in bundle.events:
            try:
                found = await _record(log, kept.position)
            except LogCorrupt as error:
                return _failed(str(error), kept.position)
            if found is None:
                text = f"#{kept.position} of {name} is not in the log, which ends before it"
                return _failed(text, kept.position)
            if leaf_hash(found) != kept.leaf_hash():
                what = ", ".join(_differing(found, kept))
                text = f"#{kept.position} was another event when {name} was made: {what} differs"
                return _failed(text, kept.position)
    first, last = bundle.events[0].position, bundle.events[-1].position
    count = len(bundle.events)
    text = f"{count:,} events of {name}, #{first} to #{last}, are in the log byte for byte"
    return Finding(layer=LAYER, outcome=Outcome.PASS, text=text)


def _failed(text: str, first_bad: int) -> Finding:
    return Finding(layer=LAYER, outcome=Outcome.FAIL, text=text, first_bad=first_bad)


async def _record(log: EventLog, position: int) -> RecordedEvent | None:
    async for record in log.read(after=position - 1, until=position):
        return record
    return None


def _differing(found: RecordedEvent, kept: ProvedEvent) -> list[str]:
    """The columns that are not what they were."""
    now = {
        **{name: getattr(found, name) for name in ProvedEvent.__struct_fields__},
        "actor": None if found.actor is None else actor_json(found.actor).decode(),
        "data": bytes(found.data).decode(),
        "documents": tuple(found.documents),
    }
    return [name for name, value in now.items() if value != getattr(kept, name)]
