"""A trace of a log whose clock was set back."""

import json
from collections.abc import AsyncIterator

from eventstore import RecordedEvent
from replay.export.perfetto import perfetto_parts
from replay.lanes import Stretch

S = 10**9


class Lanes:
    """What a tracker would tell: one stretch that ends with each event."""

    running = 0

    def __init__(self, *stretches: tuple[int, int]) -> None:
        self._left = [
            Stretch(sandbox="a", container="a", status="running", first=1, began_ns=begin * S,
                    last=2, ended_ns=end * S)
            for begin, end in stretches
        ]  # fmt: skip

    async def take(self, record: RecordedEvent) -> list[Stretch]:
        return [self._left.pop(0)]

    def rest(self) -> list[Stretch]:
        return self._left


async def records(count: int) -> AsyncIterator[RecordedEvent]:
    for position in range(1, count + 1):
        yield RecordedEvent(
            position=position, stream="node", version=position, type="manager.started",
            event_id=str(position), recorded_at_ns=9 * S, correlation_id=None, causation=None,
            actor=None, data=b"{}", documents=(), leaf_hash=b"",
        )  # fmt: skip


async def test_slices_of_a_track_never_overlap() -> None:
    lanes = Lanes((1, 5), (5, 3), (3, 4), (4, 8))
    parts = [
        part
        async for part in perfetto_parts(lanes, records(4), lambda _: False)  # type: ignore[arg-type]  # no more of it is used
    ]
    trace = json.loads("".join(parts))["traceEvents"]
    found = [(each["ts"] / 1e6, each["dur"] / 1e6) for each in trace if each["ph"] == "X"]
    assert found == [(1, 4), (5, 0), (5, 0), (5, 3)]
