"""The grammar of points in a log, and where they lie."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from eventstore import ANY, EventLog, MemoryLog, NewEvent, memory_log
from manager.schema.moment import (
    CLOCK_STEP_NS,
    WhenOutside,
    position_at,
    window_end,
    window_start,
)
from manager.schema.when import (
    EventId,
    Head,
    Instant,
    MarkName,
    Position,
    When,
    WhenAmbiguous,
    WhenError,
    parse_when,
)

S = 1_000_000_000
NOW = 1_763_900_000 * S  # 2025-11-23T12:13:20Z
EAST = timezone(timedelta(hours=1))
MIDNIGHT = NOW - (12 * 3600 + 13 * 60 + 20) * S


def parse(text: str) -> When:
    return parse_when(text, now_ns=NOW, zone=UTC)


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("#1234", Position(1234)),
        (" 1234 ", Position(1234)),
        ("#20251123", Position(20251123)),
        ("20251323", Position(20251323)),
        ("0", Position(0)),
        ("head", Head(0)),
        ("head~10", Head(10)),
        ("evt:01JD-x", EventId("01JD-x")),
        ("mark:deploy", MarkName("deploy")),
        ("@1763900000", Instant(NOW)),
        ("@1763900000.5", Instant(NOW + S // 2)),
        ("@1763900000.000000001", Instant(NOW + 1)),
        ("now", Instant(NOW)),
        ("today", Instant(MIDNIGHT, day=True)),
        ("yesterday", Instant(MIDNIGHT - 86_400 * S, day=True)),
        ("2025-11-23", Instant(MIDNIGHT, day=True)),
        ("14:05", Instant(MIDNIGHT + (14 * 3600 + 5 * 60) * S)),
        ("1:02:03", Instant(MIDNIGHT + 3723 * S)),
        ("01:02:03.25", Instant(MIDNIGHT + 3723 * S + S // 4)),
        ("2025-11-23T12:13:20Z", Instant(NOW)),
        ("2025-11-23t12:13:20z", Instant(NOW)),
        ("2025-11-23 12:13:20", Instant(NOW)),
        ("2025-11-23T13:13:20+01:00", Instant(NOW)),
        ("2025-11-23T13:13:20+0100", Instant(NOW)),
        ("2025-11-23T12:13", Instant(NOW - 20 * S)),
        ("2025-11-23T12:13:20.123456789Z", Instant(NOW + 123_456_789)),
        ("2025-11-23T12:13:20,5Z", Instant(NOW + S // 2)),
        ("-90m", Instant(NOW - 5400 * S)),
        ("90m", Instant(NOW - 5400 * S)),
        ("2h30m", Instant(NOW - 9000 * S)),
        ("1d2h", Instant(NOW - 26 * 3600 * S)),
        ("250ms", Instant(NOW - S // 4)),
        ("3 days ago", Instant(NOW - 3 * 86_400 * S)),
        ("1 day", Instant(NOW - 86_400 * S)),
        ("1 week 2 hours ago", Instant(NOW - (7 * 24 + 2) * 3600 * S)),
        ("5 minutes ago", Instant(NOW - 300 * S)),
        ("999999999999w", Instant(0)),
    ],
)
def test_what_can_be_written(text: str, when: When) -> None:
    assert parse(text) == when


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("20251123", ("#20251123", "2025-11-23")),
        ("1763900000", ("#1763900000", "@1763900000")),
        ("1763900000123", ("#1763900000123", "@1763900000.123")),
    ],
)
def test_what_can_be_read_in_two_ways(text: str, readings: tuple[str, ...]) -> None:
    with pytest.raises(WhenAmbiguous) as refused:
        parse(text)
    assert refused.value.readings == readings
    for reading in readings:
        assert reading in str(refused.value)
        parse(reading)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "#",
        "head~",
        "head~-1",
        "evt:",
        "tomorrow",
        "25:00",
        "12:60",
        "2025-02-30",
        "2025-02-30T00:00Z",
        "2025-11-23T24:61Z",
        "3 fortnights ago",
        "ago",
        "-",
        "１２",  # noqa: RUF001 - digits, but not ASCII's
        "@",
        "@1.0000000001",
        "9" * 19,
        "mark:",
        "\x1b[31m",
    ],
)
def test_what_is_no_point(text: str) -> None:
    with pytest.raises(WhenError):
        parse(text)


def test_the_local_zone_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_when("2025-11-23T13:13:20", now_ns=NOW, zone=EAST) == Instant(NOW)
    monkeypatch.setenv("TZ", "UTC-1")
    time.tzset()
    try:
        assert parse_when("2025-11-23T13:13:20", now_ns=NOW) == Instant(NOW)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_times_at_which_clocks_are_changed() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    with pytest.raises(WhenAmbiguous) as twice:
        parse_when("2025-10-26T02:30", now_ns=NOW, zone=berlin)
    first, second = (parse(each) for each in twice.value.readings)
    assert isinstance(first, Instant)
    assert second == Instant(first.at_ns + 3600 * S)
    with pytest.raises(WhenError, match="the clocks skipped it"):
        parse_when("2025-03-30T02:30", now_ns=NOW, zone=berlin)


# --- where they lie ------------------------------------------------------------------------------


@pytest.fixture
async def log() -> AsyncIterator[EventLog]:
    """Recorded at 10, 20, 30 s, then with the clock set back at 15, 25 and 40 s."""
    times = iter([10, 20, 30, 15, 25, 40])
    async with memory_log(clock=lambda: next(times) * S) as log:
        for number in range(6):
            event = NewEvent(type="t", data={"n": number}, event_id=f"e{number}")
            await log.append("s", [event], expected=ANY)
        yield log


@pytest.mark.parametrize(
    ("when", "position"),
    [
        (Position(0), 0),
        (Position(6), 6),
        (Head(), 6),
        (Head(6), 0),
        (EventId("e2"), 3),
        (Instant(10 * S), 1),
        (Instant(11 * S), 1),
        (Instant(16 * S), 4),
        (Instant(30 * S), 5),
        (Instant(30 * S, day=True), 5),
        (Instant(40 * S, day=True), 5),
        (Instant(40 * S), 6),
        (Instant(50 * S), 6),
    ],
)
async def test_at(log: EventLog, when: When, position: int) -> None:
    assert await position_at(log, when, now_ns=50 * S) == position


@pytest.mark.parametrize(
    ("when", "says"),
    [
        (Position(7), "there is no #7; the log has #1 to #6"),
        (Head(7), "the log is not that long; the log has #1 to #6"),
        (EventId("nobody"), "no event has the id 'nobody'"),
        (Instant(9 * S), "nothing was recorded by then"),
        (Instant(10 * S, day=True), "nothing was recorded by then"),
        (Instant(51 * S), "that time is still to come"),
    ],
)
async def test_at_no_such_point(log: EventLog, when: When, says: str) -> None:
    with pytest.raises(WhenOutside, match=says):
        await position_at(log, when, now_ns=50 * S)


@pytest.mark.parametrize(
    ("when", "first", "last"),
    [
        (Position(2), 2, 2),
        (Head(1), 5, 5),
        (Instant(0), 1, 0),
        (Instant(15 * S), 2, 4),
        (Instant(20 * S), 2, 4),
        (Instant(25 * S, day=True), 3, 4),
        (Instant(26 * S), 3, 5),
        (Instant(41 * S), 7, 6),
        (Instant(99 * S), 7, 6),
    ],
)
async def test_windows(log: EventLog, when: When, first: int, last: int) -> None:
    assert await window_start(log, when) == first
    assert await window_end(log, when) == last


async def test_an_empty_log() -> None:
    async with memory_log() as log:
        assert await position_at(log, Head(), now_ns=S) == 0
        with pytest.raises(WhenOutside, match="the log is empty"):
            await position_at(log, Instant(0), now_ns=S)


async def test_the_beginning_of_a_window_is_not_looked_for_in_all_of_the_past() -> None:
    hour = CLOCK_STEP_NS
    times = iter([9 * hour, 1 * hour, 5 * hour])  # it was set back by far more than it ever should
    async with memory_log(clock=lambda: next(times)) as log:
        assert isinstance(log, MemoryLog)
        for _ in range(3):
            await log.append("s", [NewEvent(type="t", data={})], expected=ANY)
        assert await window_start(log, Instant(5 * hour)) == 3
