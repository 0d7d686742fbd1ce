"""Events for people and for programs: a line of a table, an object of JSON."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Raw

from eventstore import RecordedEvent
from manager.domain.checkpoint import NONE, POLICY_NAMES
from manager.terminal.table import harmless_json
from replay.outcome import outcome_of
from replay.selection import container_of, payload, sandbox_of

NS_PER_S: Final = 1_000_000_000
EVENT_SCHEMA: Final = "sandtrail.event/v1"
EVENT_FIELDS: Final = (
    "schema", "position", "stream", "version", "type", "event_id", "time", "recorded_at_ns",
    "sandbox", "container", "outcome", "correlation_id", "causation", "actor", "data", "documents",
    "leaf_hash",
)  # fmt: skip
"""The members of an event's JSON."""


def utc_time(at_ns: int) -> str:
    """A moment by RFC 3339, in UTC, to the nanosecond."""
    seconds, nanos = divmod(at_ns, NS_PER_S)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"


def event_object(record: RecordedEvent) -> dict[str, Any]:
    """An event as JSON shows it."""
    actor = record.actor
    data = payload(record)
    return {
        "schema": EVENT_SCHEMA,
        "position": record.position,
        "stream": record.stream,
        "version": record.version,
        "type": record.type,
        "event_id": record.event_id,
        "time": utc_time(record.recorded_at_ns),
        "recorded_at_ns": record.recorded_at_ns,
        "sandbox": sandbox_of(record),
        "container": container_of(record, data),
        "outcome": outcome_of(record.type, data),
        "correlation_id": record.correlation_id,
        "causation": record.causation,
        "actor": None if actor is None else {"uid": actor.uid, "gid": actor.gid, "pid": actor.pid},
        "data": Raw(bytes(record.data)),
        "documents": list(record.documents),
        "leaf_hash": record.leaf_hash.hex(),
    }


def event_line(record: RecordedEvent, fields: Sequence[str] = ()) -> str:
    """An event as a line of JSON, of all of it or of some fields."""
    shown = event_fields(record, fields) if fields else event_object(record)
    return harmless_json(msgspec.json.encode(shown))


def event_fields(record: RecordedEvent, fields: Sequence[str]) -> dict[str, Any]:
    """Members of an event's JSON by their dotted names; ``null`` where there is none."""
    whole = {**event_object(record), "data": payload(record)}
    return {name: _member(whole, name) for name in fields}


def _member(whole: Any, name: str) -> Any:
    for part in name.split("."):
        whole = whole.get(part) if isinstance(whole, dict) else None
    return whole


def where(record: RecordedEvent) -> str:
    """The sandbox and the container that an event concerns."""
    sandbox, container = sandbox_of(record), container_of(record, payload(record))
    if not sandbox:
        return record.stream
    return sandbox if container in {"", sandbox} else f"{sandbox}/{container}"


def detail(data: dict[str, Any]) -> str:
    """What a person wants to know first of an event's payload."""
    match data:
        case {"verdict": "differs", "mismatches": [first, *more]}:
            also = f", and {len(more)} more" if more else ""
            policy = f", under {_policy(data)}" if "policy" in data else ""
            return f"{first['container']}: {first['field']} differs{also}{policy}"
        case {"error": str(error)} if error:
            return error
        case {"failure": {"error": error}}:
            return str(error)
        case {"exit": {"type": "exited", "code": code}, "source": source}:
            return f"exit {code} (told by {source})"
        case {"exit": {"type": "signaled", "signal": signo}, "source": source}:
            return f"signal {signo} (told by {source})"
        case {"launched": {"pid": pid, "engine": engine}}:
            return f"pid {pid} by {engine}"
        case {"intent": {"executable": program, "engine": engine, "request": request}}:
            return f"{program} by {engine}, {len(request.get('files', ()))} files{_asked(data)}"
        case {"registered": number, "total": total}:
            return f"{number} of {total}"
        case {"image_bytes": size, "digest": digest}:
            return f"{size} bytes, {digest}"
    return _short_detail(data)


def _asked(data: dict[str, Any]) -> str:
    """How restores of a sandbox are to treat specs that differ, if its creation says it."""
    conf = data["intent"]["request"].get("conf") or {}
    policy = conf.get("RestoreSpecValidation")
    return f", {_policy({'policy': policy})} for restores" if policy and "sandbox" in data else ""


def _policy(data: dict[str, Any]) -> str:
    number = data["policy"]
    return f"policy {POLICY_NAMES.get(number, number)}"


def _short_detail(data: dict[str, Any]) -> str:
    match data:
        case {"policy": _, "image": {"digest": digest}}:
            return f"{_policy(data)}, image {digest}"
        case {"image": {"compression": how}} if how != NONE:
            return f"compressed, {how}"
        case {"request": {"argv": [str(program), *_]}}:
            return program
        case {"signo": signo}:
            return f"signal {signo}"
        case {"name": str(name), "at": int(at), "message": message}:
            return " ".join(filter(None, (name, f"at #{at}" if at else "", str(message))))
        case {"reason": reason}:
            return str(reason)
        case {"version": version, "kernel": kernel}:
            return f"sandtrail {version} on Linux {kernel}"
    return ""
