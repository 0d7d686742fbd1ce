"""A trace for Perfetto and chrome://tracing: a process a sandbox, a track a container.

A container's statuses follow each other on its track, and its events stand there without length, so
that nothing overlaps. Causes are flows (``s``, ``f``).

Source: Trace Event Format (Google, 2016), as Perfetto reads it.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import msgspec

from eventstore import RecordedEvent
from manager.terminal.table import harmless_json
from replay.describe import detail
from replay.lanes import LaneTracker, Stretch
from replay.outcome import outcome_of
from replay.selection import container_of, payload, sandbox_of

NODE: Final = "node"
NS_PER_US: Final = 1000


class _Numbers:
    """Processes and threads of the trace: numbers for sandboxes and containers.

    Attributes:
        ends_ns: Where the last slice of a container's status ended, by its number.
    """

    def __init__(self) -> None:
        self.ends_ns: dict[int, int] = {}
        self._known: dict[tuple[str, str], int] = {}

    def of(self, sandbox: str, container: str) -> tuple[int, int, list[dict[str, Any]]]:
        """Their numbers, and the names to be told of those that are new."""
        container = container or sandbox
        told: list[dict[str, Any]] = []
        for key, kind, name in (
            ((sandbox, ""), "process_name", sandbox),
            ((sandbox, container), "thread_name", container),
        ):
            if key not in self._known:
                self._known[key] = len(self._known) + 1
                pid = self._known[sandbox, ""]
                told.append(
                    {"ph": "M", "name": kind, "pid": pid, "tid": self._known[key],
                     "args": {"name": name}}
                )  # fmt: skip
        return self._known[sandbox, ""], self._known[sandbox, container], told


async def perfetto_parts(
    tracker: LaneTracker,
    records: AsyncIterator[RecordedEvent],
    fits: Callable[[RecordedEvent], bool],
) -> AsyncIterator[str]:
    """The parts of one object of JSON.

    Args:
        tracker: At the beginning of the events.
        records: All events of the window, for the lanes.
        fits: Which of them are shown as events, too.
    """
    numbers, running, last_ns = _Numbers(), 0, 0
    yield '{"displayTimeUnit":"ms","traceEvents":[\n'
    yield _text({"ph": "M", "name": "process_name", "pid": 0, "args": {"name": "all sandboxes"}})
    async for record in records:
        last_ns = max(last_ns, record.recorded_at_ns)
        shown = [
            part for each in await tracker.take(record) for part in _slice(numbers, each, last_ns)
        ]
        if fits(record):
            shown += _event(numbers, record)
        if tracker.running != running:
            running = tracker.running
            shown.append(_counter(running, record.recorded_at_ns))
        for part in shown:
            yield ",\n" + _text(part)
    for stretch in tracker.rest():
        for part in _slice(numbers, stretch, last_ns):
            yield ",\n" + _text(part)
    yield "\n]}\n"


def _counter(running: int, at_ns: int) -> dict[str, Any]:
    shown = {"ph": "C", "name": "running containers", "pid": 0, "ts": _us(at_ns)}
    return {**shown, "args": {"count": running}}


def _slice(numbers: _Numbers, found: Stretch, last_ns: int) -> list[dict[str, Any]]:
    pid, tid, told = numbers.of(found.sandbox, found.container)
    # A clock that was set back must not make the slices of a track overlap.
    begin_ns = max(found.began_ns, numbers.ends_ns.get(tid, 0))
    end_ns = max(last_ns if found.ended_ns is None else found.ended_ns, begin_ns)
    numbers.ends_ns[tid] = end_ns
    shown = {
        "ph": "X", "cat": "container", "name": found.status, "pid": pid, "tid": tid,
        "ts": _us(begin_ns), "dur": _us(end_ns - begin_ns),
        "args": {"container": found.container, "from": f"#{found.first}", "to": f"#{found.last}"},
    }  # fmt: skip
    return [*told, shown]


def _event(numbers: _Numbers, record: RecordedEvent) -> list[dict[str, Any]]:
    data = payload(record)
    pid, tid, told = numbers.of(sandbox_of(record) or NODE, container_of(record, data))
    at = {"pid": pid, "tid": tid, "ts": _us(record.recorded_at_ns)}
    args = {
        "position": record.position,
        "outcome": outcome_of(record.type, data),
        "detail": detail(data),
        "correlation": record.correlation_id or "",
    }
    shown = {"ph": "X", "dur": 0, "cat": "event", "name": record.type, **at, "args": args}
    found = [*told, shown]
    flow = {"cat": "cause", "name": "causes"}
    if record.causation is not None:
        found.append({"ph": "f", "bp": "e", "id": record.causation, **flow, **at})
    elif record.type.endswith(("_requested", "_accepted", ".created")):
        found.append({"ph": "s", "id": record.position, **flow, **at})
    return found


def _us(at_ns: int) -> float:
    return at_ns / NS_PER_US


def _text(event: dict[str, Any]) -> str:
    return harmless_json(msgspec.json.encode(event))
