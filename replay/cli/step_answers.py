"""What `replay step` asks the log about the event that one stands at."""

from pathlib import Path
from typing import Final

from eventstore import RecordedEvent
from replay.cli.check import finding_lines
from replay.cli.scrubber import Scrubber
from replay.cli.why import CONTAINER_FIELD, SANDBOX_FIELD, explanation_lines
from replay.explanation import why
from replay.redecide import Redecision, redecide
from replay.selection import container_of, payload, sandbox_of
from replay.settings import parse_settings
from replay.trail import Trail, Window

TOGETHER_MAX: Final = 1024
"""No decision has more events: APPEND_EVENTS_MAX of the log."""


async def why_lines(path: Path, scrubber: Scrubber) -> list[str]:
    """Why the event's container has its status, or the sandbox its phase.

    Raises:
        WhyError: The sandbox lived too long to be taken apart.
        EventStoreError: The log cannot be read.
        EventFormatError: An event is of a newer program, or damaged.
    """
    record = scrubber.record
    sandbox_id = sandbox_of(record)
    if sandbox_id in scrubber.after:
        state, position = scrubber.after[sandbox_id], record.position
    elif sandbox_id in scrubber.before:  # this event is its end
        state, position = scrubber.before[sandbox_id], record.position - 1
    else:
        return ["this event is about no sandbox that was there: nothing of it has a state"]
    cid = container_of(record, payload(record))
    field = ("containers", cid, CONTAINER_FIELD) if cid in state.containers else (SANDBOX_FIELD,)
    async with Trail.open(path) as trail:
        return list(explanation_lines(await why(trail, sandbox_id, field, position)))


async def whatif_lines(path: Path, scrubber: Scrubber) -> list[str]:
    """How the decision that the event belongs to would have been under the settings typed.

    Raises:
        SettingError: That is no setting; the text says what there is.
        EventStoreError: The log cannot be read.
        EventFormatError: An event is of a newer program, or damaged.
    """
    settings = parse_settings(scrubber.typed.split())
    record = scrubber.record
    found: Redecision | None = None
    async with Trail.open(path) as trail:
        async for each in redecide(trail, await _together(trail, record), settings):
            if each.position <= record.position:
                found = each
    if found is None:
        return ["this event was not decided: it tells of the node"]
    return list(finding_lines(found))


async def _together(trail: Trail, record: RecordedEvent) -> Window:
    """The events that were appended with one, as far as anybody can tell."""
    first = last = record.position
    async for each in trail.log.read(
        record.stream, until=first - 1, backwards=True, limit=TOGETHER_MAX
    ):
        if _mark(each) != _mark(record):
            break
        first = each.position
    async for each in trail.log.read(record.stream, after=last, limit=TOGETHER_MAX):
        if _mark(each) != _mark(record):
            break
        last = each.position
    return Window(first=first, last=last)


def _mark(record: RecordedEvent) -> tuple[int, str | None, int | None]:
    return record.recorded_at_ns, record.correlation_id, record.causation
