"""What every event log promises: one suite over the one in memory and the one in SQLite."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from eventstore import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    Actor,
    Document,
    DocumentNotFound,
    EventIdReused,
    EventLog,
    EventTooLarge,
    Exactly,
    ExpectedVersion,
    InvalidAppend,
    LimitExceeded,
    NewEvent,
    RecordedEvent,
    StoreClosed,
    WrongExpectedVersion,
    leaf_hash,
    memory_log,
    open_log,
)
from eventstore import limits as store_limits
from tests.patience import PATIENCE_S

WINDOW = 8
"""Event ids that the logs under test remember: few, so that a test can get beyond."""

OpenLog = Callable[[], AbstractAsyncContextManager[EventLog]]


@pytest.fixture(params=["memory", "sqlite"])
def open_new(request: pytest.FixtureRequest, tmp_path: Path) -> OpenLog:
    def opened() -> AbstractAsyncContextManager[EventLog]:
        ticks = count(1_000)
        if request.param == "memory":
            return memory_log(clock=lambda: next(ticks), window=WINDOW)
        return open_log(tmp_path / "events.db", clock=lambda: next(ticks), window=WINDOW)

    return opened


@pytest.fixture
async def log(open_new: OpenLog) -> AsyncIterator[EventLog]:
    async with open_new() as opened:
        yield opened


def event(number: int = 0, **members: Any) -> NewEvent:
    return NewEvent(type="counted", data=b'{"n":%d}' % number, **members)


def events(how_many: int) -> list[NewEvent]:
    return [event(number) for number in range(how_many)]


async def everything(log: EventLog, stream: str | None = None, **how: Any) -> list[RecordedEvent]:
    return [record async for record in log.read(stream, **how)]


# --- append ---------------------------------------------------------------------------------------


async def test_a_record_has_all_that_was_given_and_reads_back_the_same(log: EventLog) -> None:
    document = Document(media_type="text/plain", body=b"\x00body")
    given = NewEvent(
        type="container.started",
        data=b'{ "pid" : 7, "name": "\xc3\xa9" }',
        event_id="0190a2a6-0000-7000-8000-000000000001",
        correlation_id="request-1",
        causation=3,
        actor=Actor(uid=1, gid=2, pid=3),
        documents=(document,),
    )

    (record,) = await log.append("sandbox-é", [given], expected=NO_STREAM)

    assert record.position == 1
    assert (record.stream, record.version) == ("sandbox-é", 1)
    assert (record.type, record.event_id) == (given.type, given.event_id)
    assert record.recorded_at_ns == 1_000
    assert (record.correlation_id, record.causation) == ("request-1", 3)
    assert record.actor == Actor(uid=1, gid=2, pid=3)
    assert record.data == given.data
    assert record.documents == (document.digest,)
    assert record.leaf_hash == leaf_hash(record)
    assert await everything(log) == [record]


async def test_optional_members_may_be_absent(log: EventLog) -> None:
    (record,) = await log.append("s", [NewEvent(type="t", data=b"{}")], expected=ANY)

    assert (record.correlation_id, record.causation, record.actor) == (None, None, None)
    assert record.documents == ()
    assert await everything(log) == [record]


@pytest.mark.parametrize(
    ("data", "stored"),
    [
        ({"b": 1, "a": [None]}, b'{"b":1,"a":[null]}'),
        (msgspec.Raw(b'{"a": 1}'), b'{"a": 1}'),
        (b"[1, 2]", b"[1, 2]"),
    ],
)
async def test_payload_is_a_mapping_or_json_text(
    log: EventLog, data: bytes | msgspec.Raw, stored: bytes
) -> None:
    (record,) = await log.append("s", [NewEvent(type="t", data=data)], expected=ANY)

    assert record.data == stored


async def test_positions_and_versions_have_no_gaps(log: EventLog) -> None:
    first = await log.append("a", events(2), expected=NO_STREAM)
    second = await log.append("b", events(3), expected=NO_STREAM)
    third = await log.append("a", events(1), expected=Exactly(2))

    placed = [(r.stream, r.version, r.position) for r in first + second + third]
    assert placed == [
        ("a", 1, 1),
        ("a", 2, 2),
        ("b", 1, 3),
        ("b", 2, 4),
        ("b", 3, 5),
        ("a", 3, 6),
    ]
    assert await log.head() == 6


@pytest.mark.parametrize(
    ("stored", "expected", "accepted"),
    [
        (0, NO_STREAM, True),
        (0, Exactly(0), True),
        (0, ANY, True),
        (0, STREAM_EXISTS, False),
        (0, Exactly(1), False),
        (2, NO_STREAM, False),
        (2, Exactly(0), False),
        (2, Exactly(1), False),
        (2, Exactly(2), True),
        (2, Exactly(3), False),
        (2, STREAM_EXISTS, True),
        (2, ANY, True),
    ],
)
async def test_expected_version(
    log: EventLog, stored: int, expected: ExpectedVersion, accepted: bool
) -> None:
    await log.append("other", events(1), expected=ANY)
    if stored:
        await log.append("s", events(stored), expected=ANY)

    if accepted:
        (record,) = await log.append("s", events(1), expected=expected)
        assert record.version == stored + 1
    else:
        with pytest.raises(WrongExpectedVersion) as caught:
            await log.append("s", events(1), expected=expected)
        assert (caught.value.stream, caught.value.actual) == ("s", stored)
        assert caught.value.expected == expected
        assert f"has {stored} events" in str(caught.value)
        assert await log.head() == stored + 1


async def test_of_racing_appends_one_wins(log: EventLog) -> None:
    won: list[int] = []
    lost: list[int] = []

    async def race(number: int) -> None:
        try:
            await log.append("s", [event(number)], expected=NO_STREAM)
        except WrongExpectedVersion:
            lost.append(number)
        else:
            won.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(race, number)

    assert (len(won), len(lost)) == (1, 19)
    (record,) = await everything(log)
    assert record.data == b'{"n":%d}' % won[0]


async def test_concurrent_appends_get_one_total_order(log: EventLog) -> None:
    answers: list[RecordedEvent] = []

    async def append_some(stream: str) -> None:
        for number in range(10):
            answers.extend(
                await log.append(
                    stream, [event(number), event(-number)], expected=Exactly(2 * number)
                )
            )

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(append_some, f"s{number}")

    stored = await everything(log)
    assert [record.position for record in stored] == list(range(1, 201))
    assert sorted(answers, key=lambda record: record.position) == stored
    for number in range(10):
        versions = [record.version for record in stored if record.stream == f"s{number}"]
        assert versions == list(range(1, 21))


# --- what is refused ------------------------------------------------------------------------------

OVERSIZED = b'"' + b"x" * store_limits.EVENT_DATA_BYTES_MAX + b'"'


@pytest.mark.parametrize(
    ("stream", "batch", "error"),
    [
        ("s", [], InvalidAppend),
        ("s", events(store_limits.APPEND_EVENTS_MAX + 1), LimitExceeded),
        ("", events(1), InvalidAppend),
        ("a\nb", events(1), InvalidAppend),
        ("\ud800", events(1), InvalidAppend),
        ("s" * (store_limits.STREAM_NAME_CHARS_MAX + 1), events(1), LimitExceeded),
        ("s", [NewEvent(type="", data=b"{}")], InvalidAppend),
        (
            "s",
            [NewEvent(type="t" * (store_limits.EVENT_TYPE_CHARS_MAX + 1), data=b"{}")],
            LimitExceeded,
        ),
        ("s", [NewEvent(type="t", data=b"")], InvalidAppend),
        ("s", [NewEvent(type="t", data=b"{")], InvalidAppend),
        ("s", [NewEvent(type="t", data=b"{} {}")], InvalidAppend),
        ("s", [NewEvent(type="t", data=b'"\xff"')], InvalidAppend),
        ("s", [NewEvent(type="t", data=b"[" * 100_000)], InvalidAppend),
        ("s", [NewEvent(type="t", data={"x": object()})], InvalidAppend),
        ("s", [NewEvent(type="t", data={"x": "\ud800"})], InvalidAppend),
        ("s", [NewEvent(type="t", data=OVERSIZED)], EventTooLarge),
        ("s", [event(event_id="")], InvalidAppend),
        ("s", [event(event_id="i" * (store_limits.EVENT_ID_CHARS_MAX + 1))], LimitExceeded),
        ("s", [event(event_id="twice"), event(event_id="twice")], InvalidAppend),
        ("s", [event(correlation_id="")], InvalidAppend),
        (
            "s",
            [event(correlation_id="c" * (store_limits.CORRELATION_ID_CHARS_MAX + 1))],
            LimitExceeded,
        ),
        ("s", [event(causation=0)], InvalidAppend),
        ("s", [event(causation=store_limits.POSITION_MAX + 1)], InvalidAppend),
        ("s", [event(documents=(Document(media_type="", body=b""),))], InvalidAppend),
        (
            "s",
            [event(documents=(Document(media_type="t/x", body=b""),) * 65)],
            LimitExceeded,
        ),
        (
            "s",
            [
                event(
                    documents=(
                        Document(
                            media_type="t/x",
                            body=bytes(store_limits.DOCUMENT_BYTES_MAX + 1),
                        ),
                    )
                )
            ],
            EventTooLarge,
        ),
        ("s", [NewEvent(type="t", data=OVERSIZED[1:-2] + b'"')] * 5, InvalidAppend),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_what_cannot_be_stored_is_refused_whole(
    log: EventLog, stream: str, batch: list[NewEvent], error: type[InvalidAppend]
) -> None:
    with pytest.raises(error):
        await log.append(stream, [event(), *batch] if batch else [], expected=ANY)

    assert await log.head() == 0
    await log.append("s", events(1), expected=NO_STREAM)


async def test_an_append_may_not_weigh_more_than_all_appends_under_way(log: EventLog) -> None:
    body = bytes(store_limits.DOCUMENT_BYTES_MAX)
    document = Document(media_type="application/octet-stream", body=body)

    with pytest.raises(LimitExceeded, match="bytes in one append"):
        await log.append("s", [event(documents=(document, document))], expected=ANY)

    assert await log.head() == 0


async def test_an_append_of_the_largest_number_of_events(log: EventLog) -> None:
    records = await log.append("s", events(store_limits.APPEND_EVENTS_MAX), expected=NO_STREAM)

    assert [record.version for record in records] == list(
        range(1, store_limits.APPEND_EVENTS_MAX + 1)
    )


# --- the same append again ------------------------------------------------------------------------


@pytest.mark.parametrize("expected", [NO_STREAM, Exactly(0), ANY])
async def test_an_append_that_is_repeated_returns_the_first_records(
    log: EventLog, expected: ExpectedVersion
) -> None:
    batch = events(3)
    first = await log.append("s", batch, expected=expected)
    await log.append("s", events(2), expected=ANY)

    again = await log.append("s", batch, expected=expected)

    assert again == first
    assert await log.head() == 5


async def test_an_append_to_a_stream_that_exists_is_repeated(log: EventLog) -> None:
    await log.append("s", events(1), expected=NO_STREAM)
    batch = events(1)
    first = await log.append("s", batch, expected=STREAM_EXISTS)

    assert await log.append("s", batch, expected=STREAM_EXISTS) == first
    assert await log.head() == 2


@pytest.mark.parametrize("expected", [NO_STREAM, Exactly(0)])
async def test_a_numbered_append_is_recognised_however_old_it_is(
    log: EventLog, expected: ExpectedVersion
) -> None:
    batch = events(2)
    first = await log.append("s", batch, expected=expected)
    for _ in range(3 * WINDOW):
        await log.append("s", events(1), expected=ANY)

    assert await log.append("s", batch, expected=expected) == first
    assert await log.head() == 2 + 3 * WINDOW


async def test_an_unnumbered_append_is_recognised_within_the_window(log: EventLog) -> None:
    batch = events(1)
    first = await log.append("s", batch, expected=ANY)
    for _ in range(WINDOW - 1):
        await log.append("t", events(1), expected=ANY)

    assert await log.append("s", batch, expected=ANY) == first


async def test_an_unnumbered_append_is_new_again_after_the_window(log: EventLog) -> None:
    batch = events(1)
    await log.append("s", batch, expected=ANY)
    for _ in range(2 * WINDOW):
        await log.append("t", events(1), expected=ANY)

    (record,) = await log.append("s", batch, expected=ANY)

    assert record.version == 2


@pytest.mark.parametrize(
    ("stream", "ids"),
    [
        ("t", ["1", "2"]),
        ("s", ["2", "1"]),
        ("s", ["2", "3"]),
        ("s", ["1", "2", "3"]),
        ("s", ["0", "1"]),
        ("s", ["2", "new"]),
    ],
)
async def test_ids_of_other_events_are_refused(log: EventLog, stream: str, ids: list[str]) -> None:
    await log.append("s", [event(event_id="1"), event(event_id="2")], expected=ANY)
    await log.append("s", [event(event_id="3 of another append")], expected=ANY)

    with pytest.raises(EventIdReused):
        await log.append(stream, [event(event_id=each) for each in ids], expected=ANY)

    assert await log.head() == 3


async def test_a_repeat_and_its_first_may_be_under_way_together(log: EventLog) -> None:
    batch = events(2)
    answers: list[tuple[RecordedEvent, ...]] = []

    async def append() -> None:
        answers.append(await log.append("s", batch, expected=NO_STREAM))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(append)

    assert answers == [answers[0]] * 5
    assert await log.head() == 2


async def test_a_repeat_of_much_is_recognised_when_it_is_long_ago(log: EventLog) -> None:
    huge = [NewEvent(type="t", data=b'"%s"' % (b"x" * 5_000_000)) for _ in range(3)]
    first = await log.append("s", huge, expected=NO_STREAM)
    for _ in range(2):
        await log.append("t", events(WINDOW), expected=ANY)

    assert await log.append("s", huge, expected=NO_STREAM) == first


async def test_a_conflict_that_is_no_repeat_stays_a_conflict(log: EventLog) -> None:
    await log.append("s", events(2), expected=NO_STREAM)

    with pytest.raises(WrongExpectedVersion):
        await log.append("s", events(2), expected=NO_STREAM)


# --- documents ------------------------------------------------------------------------------------


async def test_documents_are_found_by_digest_and_kept_once(log: EventLog) -> None:
    spec = Document(media_type="application/json", body=b'{"root":"/"}')
    same = Document(media_type="text/plain", body=b'{"root":"/"}')
    other = Document(media_type="text/plain", body=b"")

    await log.append("a", [event(documents=(spec, other))], expected=ANY)
    (record,) = await log.append("b", [event(documents=(same,))], expected=ANY)

    assert spec.digest == (
        "sha256:43559204e45a03093fea312afe7467b18c58c03f6cd2401d37a25345e3d7a371"
    )
    assert record.documents == (spec.digest,)
    assert await log.document(spec.digest) == spec
    assert await log.document(other.digest) == other


async def test_documents_of_a_rejected_append_are_not_kept(log: EventLog) -> None:
    document = Document(media_type="text/plain", body=b"unseen")

    with pytest.raises(WrongExpectedVersion):
        await log.append("s", [event(documents=(document,))], expected=STREAM_EXISTS)

    with pytest.raises(DocumentNotFound) as caught:
        await log.document(document.digest)
    assert caught.value.digest == document.digest


# --- read -----------------------------------------------------------------------------------------


@pytest.fixture
async def filled(log: EventLog) -> EventLog:
    """Positions 1 to 12: streams a and b in turn, each with versions 1 to 6."""
    for number in range(6):
        for stream in ("a", "b"):
            await log.append(stream, [event(number)], expected=Exactly(number))
    return log


@pytest.mark.parametrize(
    ("stream", "how", "positions"),
    [
        (None, {}, range(1, 13)),
        (None, {"after": 0}, range(1, 13)),
        (None, {"after": -1}, range(1, 13)),
        (None, {"after": 5}, range(6, 13)),
        (None, {"after": 12}, []),
        (None, {"after": 99}, []),
        (None, {"limit": 0}, []),
        (None, {"limit": 3}, [1, 2, 3]),
        (None, {"limit": 99}, range(1, 13)),
        (None, {"after": 4, "limit": 2}, [5, 6]),
        ("a", {}, range(1, 13, 2)),
        ("b", {}, range(2, 13, 2)),
        ("a", {"after": 3}, [5, 7, 9, 11]),
        ("a", {"after": 4}, [5, 7, 9, 11]),
        ("a", {"after": 11}, []),
        ("a", {"after": 99}, []),
        ("b", {"after": 2, "limit": 2}, [4, 6]),
        ("b", {"limit": 0}, []),
        ("unknown", {}, []),
        ("unknown", {"after": 3}, []),
    ],
)
async def test_read(
    filled: EventLog, stream: str | None, how: dict[str, int], positions: range | list[int]
) -> None:
    found = await everything(filled, stream, **how)

    assert [record.position for record in found] == list(positions)
    assert all(stream in (None, record.stream) for record in found)


TICKS = [50, 10, 20, 30, 30, 40, 5, 60, 60, 70, 20, 90]
"""What the clock said at positions 1 to 12: it was set back twice."""


@pytest.fixture
async def jumping(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventLog]:
    """Streams a and b in turn; types x, y, z in turn; the times of TICKS."""
    ticks = iter(TICKS)
    opened: AbstractAsyncContextManager[EventLog] = (
        memory_log(clock=lambda: next(ticks))
        if request.param == "memory"
        else open_log(tmp_path / "events.db", clock=lambda: next(ticks))
    )
    async with opened as log:
        for number in range(12):
            new = NewEvent(type="xyz"[number % 3], data=b"{}")
            await log.append("ab"[number % 2], [new], expected=ANY)
        yield log


@pytest.mark.parametrize("jumping", ["memory", "sqlite"], indirect=True)
@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize(
    ("stream", "how", "positions"),
    [
        (None, {"until": 3}, [1, 2, 3]),
        (None, {"until": 0}, []),
        (None, {"until": -1}, []),
        (None, {"after": 3, "until": 5}, [4, 5]),
        (None, {"after": 5, "until": 5}, []),
        (None, {"after": 6, "until": 5}, []),
        (None, {"until": 99, "after": 10}, [11, 12]),
        ("b", {"after": 2, "until": 9}, [4, 6, 8]),
        ("b", {"until": 1}, []),
        (None, {"backwards": True}, range(12, 0, -1)),
        (None, {"backwards": True, "limit": 2}, [12, 11]),
        (None, {"backwards": True, "limit": 0}, []),
        (None, {"backwards": True, "after": 3, "until": 6}, [6, 5, 4]),
        ("a", {"backwards": True}, [11, 9, 7, 5, 3, 1]),
        ("a", {"backwards": True, "after": 3, "until": 10, "limit": 2}, [9, 7]),
        ("unknown", {"backwards": True}, []),
        (None, {"types": ("y",)}, [2, 5, 8, 11]),
        (None, {"types": {"x", "z"}, "limit": 3}, [1, 3, 4]),
        (None, {"types": ()}, []),
        (None, {"types": ("unknown",)}, []),
        (None, {"types": ("unknown", "z"), "backwards": True, "limit": 2}, [12, 9]),
        ("b", {"types": ["y"], "after": 1}, [2, 8]),
        ("b", {"types": ["y"], "backwards": True, "limit": 1}, [8]),
        (None, {"since_ns": 60}, [8, 9, 10, 12]),
        (None, {"before_ns": 20}, [2, 7]),
        (None, {"since_ns": 20, "before_ns": 40}, [3, 4, 5, 11]),
        (None, {"since_ns": 20, "before_ns": 40, "after": 3, "backwards": True}, [11, 5, 4]),
        ("a", {"since_ns": 20, "before_ns": 61, "types": ("x", "y")}, [1, 5, 11]),
        (None, {"since_ns": 91}, []),
    ],
)
async def test_read_what_is_asked_for(
    jumping: EventLog,
    stream: str | None,
    how: dict[str, Any],
    positions: range | list[int],
    size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("eventstore.sqlite.reads", "eventstore.memory"):
        monkeypatch.setattr(f"{module}.READ_CHUNK_EVENTS", size)
    monkeypatch.setattr("eventstore.sqlite.reader.READ_SCAN_EVENTS", size)

    found = await everything(jumping, stream, **how)

    assert [record.position for record in found] == list(positions)


@pytest.mark.parametrize("stream", [None, "s"])
async def test_read_over_many_chunks(
    log: EventLog, stream: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("eventstore.sqlite.reads", "eventstore.memory"):
        monkeypatch.setattr(f"{module}.READ_CHUNK_EVENTS", 7)
    monkeypatch.setattr("eventstore.sqlite.reader.READ_CHUNK_BYTES_MAX", 20)
    for _ in range(5):
        await log.append("s", events(10), expected=ANY)

    for limit in (None, 0, 6, 7, 8, 49, 50, 51):
        found = [record async for record in log.read(stream, after=3, limit=limit)]
        last = 50 if limit is None else min(50, 3 + limit)
        assert [record.version for record in found] == list(range(4, last + 1))
        back = [record async for record in log.read(stream, after=3, limit=limit, backwards=True)]
        first = 4 if limit is None else max(4, 51 - limit)
        assert [record.version for record in back] == list(range(50, first - 1, -1))
    assert len(await everything(log, stream, types=("counted",))) == 50


@pytest.mark.parametrize("stream", [None, "s"])
async def test_a_read_ends_where_the_log_ended_when_it_began(
    log: EventLog, stream: str | None
) -> None:
    await log.append("s", events(3), expected=ANY)

    seen = []
    async for record in log.read(stream):
        seen.append(record.position)
        await log.append("s", events(1), expected=ANY)

    assert seen == [1, 2, 3]
    assert await log.head() == 6


async def test_an_abandoned_read_leaves_the_log_usable(filled: EventLog) -> None:
    async for _ in filled.read():
        break

    await filled.append("a", events(1), expected=ANY)
    assert len(await everything(filled)) == 13


# --- subscribe ------------------------------------------------------------------------------------


async def take(records: AsyncIterator[RecordedEvent], how_many: int) -> list[int]:
    taken = []
    with anyio.fail_after(PATIENCE_S):
        while len(taken) < how_many:
            taken.append((await anext(records)).position)
    return taken


async def test_a_subscription_catches_up_and_goes_on(filled: EventLog) -> None:
    async with filled.subscribe(after=10) as records:
        assert await take(records, 2) == [11, 12]
        await filled.append("c", events(2), expected=ANY)
        assert await take(records, 2) == [13, 14]


async def test_a_subscription_to_a_stream_sees_only_that(filled: EventLog) -> None:
    async with filled.subscribe(after=8, stream="a") as records:
        assert await take(records, 2) == [9, 11]
        await filled.append("b", events(3), expected=ANY)
        await filled.append("a", events(1), expected=ANY)
        assert await take(records, 1) == [16]


async def test_a_subscription_waits_while_nothing_new_is_there(filled: EventLog) -> None:
    async with (
        filled.subscribe(after=12, stream="a") as records,
        anyio.create_task_group() as tasks,
    ):
        got: list[int] = []

        async def follow() -> None:
            got.extend(await take(records, 1))

        tasks.start_soon(follow)
        await filled.append("b", events(1), expected=ANY)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert got == []
        await filled.append("a", events(1), expected=ANY)

    assert got == [14]


async def test_nothing_is_lost_or_doubled_at_the_seam(log: EventLog) -> None:
    writers, each = 8, 25
    total = writers * each
    seen: dict[int, list[int]] = {}

    async def write(stream: str) -> None:
        for _ in range(each):
            await log.append(stream, events(1), expected=ANY)

    async def follow(after: int) -> None:
        async with log.subscribe(after=after) as records:
            seen[after] = await take(records, total - after)

    async with anyio.create_task_group() as tasks:
        for number in range(writers):
            tasks.start_soon(write, f"s{number}")
        for after in range(0, 60, 7):
            tasks.start_soon(follow, after)

    assert seen == {after: list(range(after + 1, total + 1)) for after in range(0, 60, 7)}


async def test_a_slow_subscriber_misses_nothing_and_holds_up_nobody(log: EventLog) -> None:
    async with log.subscribe() as records:
        await log.append("s", events(1), expected=ANY)
        assert await take(records, 1) == [1]
        for _ in range(50):
            await log.append("s", events(10), expected=ANY)
        assert await take(records, 500) == list(range(2, 502))


async def test_a_subscription_may_be_cancelled_and_resumed(filled: EventLog) -> None:
    async with filled.subscribe() as records:
        assert await take(records, 12) == list(range(1, 13))
        with anyio.move_on_after(0.05) as scope:
            await anext(records)
        assert scope.cancelled_caught

    await filled.append("c", events(1), expected=ANY)
    async with filled.subscribe(after=12) as records:
        assert await take(records, 1) == [13]


async def test_closing_the_log_ends_its_subscriptions(open_new: OpenLog) -> None:
    ended = anyio.Event()

    async def follow(log: EventLog, waiting: anyio.Event) -> None:
        async with log.subscribe() as records:
            assert await take(records, 1) == [1]
            waiting.set()
            with pytest.raises(StoreClosed):
                await anext(records)
        ended.set()

    async with anyio.create_task_group() as tasks:
        async with open_new() as log:
            waiting = anyio.Event()
            tasks.start_soon(follow, log, waiting)
            await log.append("s", events(1), expected=ANY)
            await waiting.wait()
        with anyio.fail_after(PATIENCE_S):
            await ended.wait()


# --- cancellation, pressure, end ------------------------------------------------------------------


@pytest.mark.parametrize("checkpoints_before", range(6))
async def test_a_cancelled_append_is_stored_whole_or_not_at_all(
    log: EventLog, checkpoints_before: int
) -> None:
    batch = events(3)
    async with anyio.create_task_group() as tasks:

        async def append() -> None:
            await log.append("s", batch, expected=NO_STREAM)

        tasks.start_soon(append)
        for _ in range(checkpoints_before):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()

    stored = await everything(log)
    assert [record.event_id for record in stored] in ([], [each.event_id for each in batch])
    again = await log.append("s", batch, expected=NO_STREAM)
    assert [record.version for record in again] == [1, 2, 3]
    assert await log.head() == 3


async def test_an_append_that_is_under_way_is_shielded(log: EventLog) -> None:
    answered = False

    async def append() -> None:
        nonlocal answered
        await log.append("s", events(1), expected=NO_STREAM)
        answered = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(append)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()

    assert answered
    assert await log.head() == 1


async def test_more_than_may_be_under_way_at_once_waits_its_turn(log: EventLog) -> None:
    size = 15 * 1024 * 1024
    payload = b'"' + b"x" * size + b'"'
    assert 5 * size > store_limits.PENDING_BYTES_MAX

    async with anyio.create_task_group() as tasks:
        for number in range(5):

            async def append(stream: str = f"s{number}") -> None:
                await log.append(stream, [NewEvent(type="t", data=payload)], expected=NO_STREAM)

            tasks.start_soon(append)

    assert await log.head() == 5


async def test_a_closed_log_refuses_everything(open_new: OpenLog) -> None:
    async with open_new() as log:
        await log.append("s", events(1), expected=ANY)

    with pytest.raises(StoreClosed):
        await log.append("s", events(1), expected=ANY)
    with pytest.raises(StoreClosed):
        await log.head()
    with pytest.raises(StoreClosed):
        await log.document("sha256:0")
    with pytest.raises(StoreClosed):
        await everything(log)
    with pytest.raises(StoreClosed):
        async with log.subscribe() as records:
            await anext(records)
