"""CSV, for spreadsheets."""

import csv
import io
from collections.abc import AsyncIterator
from typing import Final

from eventstore import RecordedEvent
from manager.terminal.table import harmless_json, printable
from replay.describe import detail, utc_time
from replay.outcome import outcome_of
from replay.selection import container_of, payload, sandbox_of

COLUMNS: Final = (
    "position", "time", "stream", "version", "type", "sandbox", "container", "outcome", "uid",
    "pid", "correlation_id", "causation", "event_id", "detail", "data",
)  # fmt: skip
FORMULA_BEGINS: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for a formula. Source: OWASP, CSV Injection."""


async def csv_lines(records: AsyncIterator[RecordedEvent]) -> AsyncIterator[str]:
    """A header and one line an event, as of RFC 4180; no cell is a formula or a control."""
    yield _line(COLUMNS)
    async for record in records:
        yield _line(_cells(record))


def _cells(record: RecordedEvent) -> tuple[str, ...]:
    data, actor = payload(record), record.actor
    return (
        str(record.position),
        utc_time(record.recorded_at_ns),
        printable(record.stream),
        str(record.version),
        record.type,
        printable(sandbox_of(record)),
        printable(container_of(record, data)),
        outcome_of(record.type, data),
        "" if actor is None else str(actor.uid),
        "" if actor is None else str(actor.pid),
        printable(record.correlation_id or ""),
        "" if record.causation is None else str(record.causation),
        printable(record.event_id),
        printable(detail(data)),
        harmless_json(bytes(record.data)),
    )


def _line(cells: tuple[str, ...]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(
        f"'{cell}" if cell.startswith(FORMULA_BEGINS) else cell for cell in cells
    )
    return buffer.getvalue()
