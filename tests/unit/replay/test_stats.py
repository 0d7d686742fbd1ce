"""What a log adds up to, and durations in buckets."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore import Actor, RecordedEvent
from replay.duration import duration_text
from replay.histogram import Histogram
from replay.stats import Latency, Reason, Stats, StatsBuilder

MS = 1_000_000


def record(position: int, type_: str, at_ms: int = 0, **data: Any) -> RecordedEvent:
    return RecordedEvent(
        position=position,
        stream=data.pop("stream", "sandbox-web"),
        version=position,
        type=type_,
        event_id=f"e{position}",
        recorded_at_ns=at_ms * MS,
        correlation_id=None,
        causation=None,
        actor=Actor(uid=7, gid=7, pid=1) if type_.endswith("accepted") else None,
        data=json.dumps(data).encode(),
        documents=(),
        leaf_hash=b"",
    )


def stats_of(records: Iterable[RecordedEvent]) -> Stats:
    builder = StatsBuilder()
    for each in records:
        builder.add(each)
    return builder.result()


def accepted(position: int, launch_id: str, at_ms: int) -> RecordedEvent:
    intent = {"launch_id": launch_id, "executable": "/x", "engine": "crun", "request": {}}
    return record(position, "container.start_accepted", at_ms, container="a", intent=intent)


def latency(what: str, *records: RecordedEvent) -> Latency:
    return next(each for each in stats_of(records).latencies if each.what == what)


def test_starts_by_launch_id() -> None:
    found = latency(
        "start",
        accepted(1, "l1", 0),
        accepted(2, "l2", 5),
        accepted(3, "l3", 6),
        accepted(4, "l4", 7),
        record(5, "container.started", 15, launch_id="l2", phases_us={"create": 9}),
        record(6, "container.started", 40, launch_id="l1", phases_us={"create": 1, "start": 2}),
        record(7, "container.start_failed", 50, launch_id="l3", failure={"error": "no"}),
        record(8, "container.started", 60, launch_id="unknown"),
    )
    assert (found.count, found.failed, found.pending, found.stepped) == (2, 1, 1, 0)
    assert (found.max_ns, found.max_position) == (40 * MS, 6)
    assert found.p50_ns == pytest.approx(10 * MS, rel=0.05)
    assert found.phases_us == {"create": 10, "start": 2}
    assert [(bar.to_ns, bar.count) for bar in found.bars] == [
        (20 * MS, 1), (50 * MS, 1),
    ]  # fmt: skip


def test_restores_by_sandbox() -> None:
    found = latency(
        "restore",
        record(1, "restore.begun", 0, stream="sandbox-a"),
        record(2, "restore.begun", 1, stream="sandbox-b"),
        record(3, "sandbox.restored", 30, stream="sandbox-b"),
        record(4, "sandbox.restore_failed", 40, stream="sandbox-a", error="no"),
    )
    assert (found.count, found.failed, found.pending, found.max_ns) == (1, 1, 0, 29 * MS)


def test_a_clock_that_was_set_back_gives_no_duration() -> None:
    found = latency("start", accepted(1, "l1", 9), record(2, "container.started", launch_id="l1"))
    assert (found.count, found.stepped, found.p50_ns, found.bars) == (0, 1, None, ())


def test_reasons_are_those_of_their_kind() -> None:
    error = 'container "{}" is already started, pid {}'
    stats = stats_of(
        [
            record(1, "container.start_rejected", error=error.format("a", 4711)),
            record(2, "container.exited", exit={"type": "exited", "code": 137}, source="waitid"),
            record(3, "container.start_rejected", error=error.format("b\\nc", 81234)),
            record(4, "container.exited", exit={"type": "exited", "code": 0}, source="waitid"),
        ]
    )
    assert stats.reasons == (
        Reason(text="container.start_rejected: container … is already started, pid …",
               count=2, first=1, last=3),
        Reason(text="container.exited: exit 137 (told by waitid)", count=1, first=2, last=2),
    )  # fmt: skip
    assert stats.by_outcome == {"refused": 2, "failed": 1, "ok": 1}
    assert stats.by_type == {"container.start_rejected": 2, "container.exited": 2}


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay.stats.REASONS_MAX", 2)
    monkeypatch.setattr("replay.stats.PENDING_MAX", 1)
    builder = StatsBuilder()
    for number in range(9):
        builder.add(record(number + 1, "container.start_rejected", error="x" * number))
        builder.add(accepted(number + 10, f"l{number}", 0))
    stats = builder.result()
    assert (stats.reasons[0].text, stats.reasons[0].count) == ("(other reasons)", 7)
    assert stats.latencies[0].pending == 1


@given(st.lists(st.integers(0, 10**13), min_size=1), st.floats(0.1, 100))
def test_a_percentile_is_at_most_five_per_cent_too_high(durations: list[int], of: float) -> None:
    histogram = Histogram()
    for each in durations:
        histogram.add(each)
    wanted = sorted(durations)[max(0, -int(-len(durations) * of // 100) - 1)]
    assert wanted <= histogram.percentile_ns(of) + 1
    assert histogram.percentile_ns(of) <= max(wanted * 1.05, 1) or histogram.percentile_ns(
        of
    ) <= max(durations)
    assert sum(bar.count for bar in histogram.bars()) == histogram.count == len(durations)


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="no durations"):
        Histogram().percentile_ns(50)
    assert Histogram().bars() == []


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "0 ns"), (999, "999 ns"), (1_500, "1.50 µs"), (10_400_000, "10.4 ms"), (2 * 10**9, "2 s"),
     (123_456 * 10**6, "123 s"), (700 * 10**9, "11 min 40 s"), (7_500 * 10**9, "2 h 5 min")],
)  # fmt: skip
def test_durations_for_people(ns: int, text: str) -> None:
    assert duration_text(ns) == text
