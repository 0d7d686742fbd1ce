"""CloudEvents 1.0 in JSON, one a line.

Source: cloudevents.io, spec 1.0.2, JSON format 1.0.2; the extensions Sequence, Recorded Time,
Correlation and Auth Context.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import quote

import msgspec
from msgspec import Raw

from eventstore import RecordedEvent
from manager.terminal.table import harmless_json
from replay.describe import utc_time
from replay.outcome import outcome_of
from replay.selection import container_of, payload
from replay.trail import Trail

SEQUENCE_DIGITS: Final = 20
"""So that sequences sort as text."""
IDS_REMEMBERED_MAX: Final = 65_536
"""Ids of events that later ones may name as their cause; older ones are looked up."""
SEVERITIES: Final = {"": 9, "ok": 9, "refused": 13, "mismatch": 13, "failed": 17}
"""OpenTelemetry's numbers: INFO, WARN, ERROR. Source: its logs data model, SeverityNumber."""


class _Ids:
    def __init__(self, trail: Trail) -> None:
        self._trail = trail
        self._known: OrderedDict[int, str] = OrderedDict()

    def note(self, record: RecordedEvent) -> None:
        self._known[record.position] = record.event_id
        if len(self._known) > IDS_REMEMBERED_MAX:
            self._known.popitem(last=False)

    async def of(self, position: int) -> str | None:
        if position not in self._known:
            record = await self._trail.record(position)
            if record is None:
                return None
            self.note(record)
        return self._known[position]


async def cloud_event_lines(
    trail: Trail, records: AsyncIterator[RecordedEvent], origin: str
) -> AsyncIterator[str]:
    """One event a line.

    ``source`` is the log and the stream in it, ``subject`` the container, ``sequence`` the
    position.
    """
    ids = _Ids(trail)
    async for record in records:
        cause = None if record.causation is None else await ids.of(record.causation)
        ids.note(record)
        yield harmless_json(msgspec.json.encode(_event(record, origin, cause))) + "\n"


def _event(record: RecordedEvent, origin: str, cause: str | None) -> dict[str, Any]:
    data, actor = payload(record), record.actor
    outcome = outcome_of(record.type, data)
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": record.event_id,
        "source": f"//{quote(origin)}/{quote(record.stream, safe='')}",
        "type": f"sandtrail.{record.type}",
        "subject": container_of(record, data) or None,
        "time": utc_time(record.recorded_at_ns),
        "datacontenttype": "application/json",
        "sequence": f"{record.position:0{SEQUENCE_DIGITS}}",
        "correlationid": record.correlation_id,
        "causationid": cause,
        "authtype": None if actor is None else "user",
        "authid": None if actor is None else f"uid:{actor.uid}",
        "severitynumber": SEVERITIES[outcome],
        "outcome": outcome or None,
        "data": Raw(bytes(record.data)),
    }
    return {name: value for name, value in event.items() if value is not None}
