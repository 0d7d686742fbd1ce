"""What a log must hold after its writer came to a sudden end, whatever that end was."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from eventstore import (
    ANY,
    EventStoreError,
    NewEvent,
    RecordedEvent,
    SealPolicy,
    Signer,
    Verdict,
    open_log,
    verify_log,
)

Said: TypeAlias = dict[str, Any]
"""A line of the writer: ``will`` and ``ids``, or ``did``, ``first`` and ``leaves``."""


class LostError(AssertionError):
    """An acknowledged append is not in the image, or not as it was acknowledged."""


class BrokenError(AssertionError):
    """The image is no log, or has what was never appended as a whole."""


async def check_log(path: Path, signer: Signer, said: Sequence[Said]) -> None:
    """Open a log with the real code, hold it against what its writers said, append, verify.

    Raises:
        LostError: As it says.
        BrokenError: As it says.
    """
    try:
        async with open_log(path, seal=SealPolicy(signer=signer, seconds=3600)) as log:
            records = [record async for record in log.read()]
            check_whole(records, [each for each in said if "will" in each])
            check_kept(records, [each for each in said if "did" in each])
            head = await log.head()
            (added,) = await log.append(AFTER, [NewEvent(type="t", data={})], expected=ANY)
            if added.position != head + 1:
                raise BrokenError(f"the next append is at {added.position}, not {head + 1}")
    except EventStoreError as error:
        raise BrokenError(f"{type(error).__name__}: {error}") from error
    found = verify_log(path, trusted=[signer.verifier])  # integrity_check is its first layer
    if (found.verdict, found.sealed) != (Verdict.INTACT, head + 1):
        raise BrokenError(f"{found}")


AFTER = "after"
"""The stream of the events that :func:`check_log` appends itself."""


def check_whole(records: list[RecordedEvent], wills: Sequence[Said]) -> None:
    """Positions without gaps; of each append all events or none, together and in order."""
    if [record.position for record in records] != list(range(1, len(records) + 1)):
        raise BrokenError("positions have gaps")
    stored = [record.event_id for record in records if record.stream != AFTER]
    expected = {will["ids"][0]: will["ids"] for will in wills}
    at = 0
    while at < len(stored):
        ids = expected.pop(stored[at], None)
        if ids is None or stored[at : at + len(ids)] != ids:
            raise BrokenError(f"half an append, or one that nobody made, at position {at + 1}")
        at += len(ids)


def check_kept(records: list[RecordedEvent], acknowledged: Sequence[Said]) -> None:
    leaves = [record.leaf_hash.hex() for record in records]
    for said in acknowledged:
        first, acked = said["first"], said["leaves"]
        if leaves[first - 1 : first - 1 + len(acked)] != acked:
            raise LostError(f"append {said['did']}, acknowledged at position {first}")
