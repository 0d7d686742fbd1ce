"""Marks of a log: read in order, found by name, and a wrong name gets a helpful answer."""

import pytest

from eventstore import ANY, Actor, EventLog, NewEvent, memory_log
from manager.domain.mark import MarkAdded, MarkRejected
from manager.schema.codec import MalformedEvent
from manager.schema.marks import Mark, mark_event, read_marks
from manager.schema.moment import WhenOutside, position_at
from manager.schema.node_events import (
    NODE_STREAM,
    ManagerStopped,
    NodeEvent,
    encode_node_event,
)
from manager.schema.when import MarkName

ALICE = Actor(uid=1000, gid=1000, pid=7)


async def note(log: EventLog, *events: NodeEvent) -> None:
    for event in events:
        tag, data = encode_node_event(event)
        await log.append(NODE_STREAM, [NewEvent(type=tag, data=data, actor=ALICE)], expected=ANY)


async def test_marks_are_read_in_order_of_their_making() -> None:
    async with memory_log(clock=lambda: 5) as log:
        await note(
            log,
            ManagerStopped(reason="r"),
            MarkAdded(name="deploy", message="v2"),
            MarkRejected(name="deploy", error="twice", head=2),
            MarkAdded(name="before", at=1),
            MarkAdded(name="deploy", at=1),
        )
        found = await read_marks(log)
        assert [*found.values()] == [
            Mark(name="deploy", at=2, position=2, recorded_at_ns=5, message="v2", actor=ALICE),
            Mark(name="before", at=1, position=4, recorded_at_ns=5, actor=ALICE),
        ]
        assert [*await read_marks(log, until=3)] == ["deploy"]
        assert await position_at(log, MarkName("before"), now_ns=9) == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("depoly", "no mark 'depoly': did you mean mark:deploy"),
        ("x", "no mark 'x': the log has 2, the newest: deploy, start"),
    ],
)
async def test_a_name_that_is_not_there(name: str, says: str) -> None:
    async with memory_log() as log:
        await note(log, MarkAdded(name="deploy"), MarkAdded(name="start"))
        with pytest.raises(WhenOutside, match=says):
            await position_at(log, MarkName(name), now_ns=9)


async def test_a_log_without_marks() -> None:
    async with memory_log() as log:
        assert await read_marks(log) == {}
        with pytest.raises(WhenOutside, match="the log has none; `sandtrail mark add`"):
            await position_at(log, MarkName("x"), now_ns=9)


async def test_a_damaged_mark_is_named_by_its_position() -> None:
    async with memory_log() as log:
        await log.append(NODE_STREAM, [NewEvent(type="mark.added", data={"name": 3})], expected=ANY)
        with pytest.raises(MalformedEvent, match=r"^#1: "):
            await read_marks(log)


async def test_other_events_are_about_no_mark() -> None:
    async with memory_log() as log:
        await note(log, ManagerStopped(reason="r"))
        assert [mark_event(record) async for record in log.read(NODE_STREAM)] == [None]
