"""OTLP logs in JSON: one ExportLogsServiceRequest a line, as collectors read from files.

Source: opentelemetry.io, OTLP 1.x, JSON Protobuf Encoding; the logs data model; the semantic
conventions for containers.
"""

import hashlib
from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import UUID

import msgspec

from eventstore import RecordedEvent
from manager.terminal.table import harmless_json
from replay.describe import detail
from replay.export.cloud_events import SEVERITIES
from replay.outcome import outcome_of
from replay.selection import container_of, payload, sandbox_of

REQUEST_RECORDS_MAX: Final = 512
REQUEST_CHARS_MAX: Final = 512 * 1024
"""A request ends before it is longer, unless one record is: half of what a collector takes for a
line of a file unless it is told otherwise, and an eighth of a gRPC message.

Source: opentelemetry-collector-contrib, pkg/stanza/fileconsumer (max_log_size); grpc-go.
"""
SEVERITY_TEXTS: Final = {9: "INFO", 13: "WARN", 17: "ERROR"}
TRACE_ID_BYTES: Final = 16
INT64_MAX: Final = 2**63 - 1


async def otlp_lines(records: AsyncIterator[RecordedEvent], origin: str) -> AsyncIterator[str]:
    """Requests of REQUEST_RECORDS_MAX records or REQUEST_CHARS_MAX characters at most, in order.

    What belongs to one request of a client has one trace id: that of its correlation id, or the
    beginning of its SHA-256 if that is no UUID.
    """
    head, tail = _around(origin)
    batch: list[str] = []
    chars = 0
    async for record in records:
        text = harmless_json(msgspec.json.encode(_log_record(record)))
        chars += len(text)
        if batch and (chars > REQUEST_CHARS_MAX or len(batch) == REQUEST_RECORDS_MAX):
            yield f"{head}{','.join(batch)}{tail}\n"
            batch, chars = [], len(text)
        batch.append(text)
    if batch:
        yield f"{head}{','.join(batch)}{tail}\n"


def _around(origin: str) -> tuple[str, str]:
    """What stands before and after the records of a request."""
    attributes = _attributes({"service.name": "sandtrail", "service.instance.id": origin})
    scope = {"scope": {"name": "sandtrail.log"}, "logRecords": []}
    request = {"resourceLogs": [{"resource": {"attributes": attributes}, "scopeLogs": [scope]}]}
    head, bracket, tail = harmless_json(msgspec.json.encode(request)).rpartition("[]")
    return f"{head}{bracket[0]}", f"{bracket[1]}{tail}"


def _log_record(record: RecordedEvent) -> dict[str, Any]:
    data, actor = payload(record), record.actor
    outcome = outcome_of(record.type, data)
    severity = SEVERITIES[outcome]
    attributes = {
        "sandtrail.position": record.position,
        "sandtrail.stream": record.stream,
        "sandtrail.version": record.version,
        "sandtrail.event_id": record.event_id,
        "sandtrail.sandbox": sandbox_of(record) or None,
        "sandtrail.outcome": outcome or None,
        "sandtrail.correlation_id": record.correlation_id,
        "sandtrail.causation": record.causation,
        "sandtrail.detail": detail(data) or None,
        "container.id": container_of(record, data) or None,
        "process.user.id": None if actor is None else actor.uid,
        "process.pid": None if actor is None else actor.pid,
    }
    found: dict[str, Any] = {
        "timeUnixNano": str(record.recorded_at_ns),
        "observedTimeUnixNano": str(record.recorded_at_ns),
        "severityNumber": severity,
        "severityText": SEVERITY_TEXTS[severity],
        "eventName": f"sandtrail.{record.type}",
        "body": _any_value(data),
        "attributes": _attributes(attributes),
    }
    if record.correlation_id is not None:
        found["traceId"] = _trace_id(record.correlation_id)
    return found


def _trace_id(correlation_id: str) -> str:
    try:
        return UUID(correlation_id).hex
    except ValueError:
        return hashlib.sha256(correlation_id.encode()).digest()[:TRACE_ID_BYTES].hex()


def _attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": _any_value(value)}
        for key, value in values.items()
        if value is not None
    ]


def _any_value(value: Any) -> dict[str, Any]:
    """A value of JSON as OTLP's AnyValue."""
    match value:
        case None:
            return {}
        case bool():
            return {"boolValue": value}
        case int() if abs(value) <= INT64_MAX:
            return {"intValue": str(value)}
        case int():
            return {"stringValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list():
            return {"arrayValue": {"values": [_any_value(each) for each in value]}}
        case dict():
            return {"kvlistValue": {"values": [
                {"key": str(key), "value": _any_value(each)} for key, each in value.items()
            ]}}  # fmt: skip
    return {"stringValue": str(value)}
