"""What the answer of a restore rests on that is not in the chain of its causes."""

from collections.abc import Sequence

from eventstore import RecordedEvent
from manager.domain.events import Event, SandboxCreated
from manager.domain.restore_events import (
    RestoreBegun,
    RestoreValidated,
    SandboxCheckpointed,
    SandboxRestored,
    SandboxRestoreFailed,
)
from manager.schema.node_fold import decode_record
from replay.trail import Trail

DIGEST_PREFIX = "sha256:"


async def restore_basis(
    trail: Trail, records: Sequence[RecordedEvent], events: Sequence[Event]
) -> tuple[RecordedEvent, ...]:
    """Who set the policy, which image it was, and who made that.

    Args:
        trail: The log, which has the image's making, unless that was on another machine.
        records: The sandbox's, the last one being the answer.
        events: What they say.

    Returns:
        The creation of the sandbox, the begin of the restore, and the checkpoint, as far as there
        are any, the oldest first; nothing if the last event is no answer of a restore.

    Raises:
        EventStoreError: The log cannot be read.
        EventFormatError: An event is of a newer program, or damaged; the text names it.
    """
    if not isinstance(events[-1], RestoreValidated | SandboxRestored | SandboxRestoreFailed):
        return ()
    found: list[RecordedEvent] = []
    for record, event in zip(records, events, strict=True):
        if isinstance(event, SandboxCreated):
            found.append(record)
        elif isinstance(event, RestoreBegun):
            made = await _making(trail, event.image.digest, record.position)
            found += [record] if made is None else [made, record]
    return tuple(sorted(found, key=lambda each: each.position))


async def _making(trail: Trail, digest: str, before: int) -> RecordedEvent | None:
    types = ("sandbox.checkpointed",)
    async for record in trail.log.read(until=before, types=types, backwards=True):
        event = decode_record(record)
        if isinstance(event, SandboxCheckpointed) and digest == DIGEST_PREFIX + event.digest:
            return record
    return None
