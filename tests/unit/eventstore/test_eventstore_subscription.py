"""The cursor of a subscription, over a log and a head that the test plays."""

from collections.abc import AsyncGenerator

import anyio
import pytest
from msgspec.structs import replace

from eventstore import ANY, NewEvent, RecordedEvent, StoreClosed, memory_log
from eventstore.subscription import CommittedHead, subscription


class PlayedHead:
    """Says what it is told to, and notes what it was asked."""

    def __init__(self, *heads: int) -> None:
        self.heads = list(heads)
        self.asked: list[int] = []

    async def wait_above(self, position: int) -> int:
        self.asked.append(position)
        if not self.heads:
            raise StoreClosed
        return self.heads.pop(0)


async def record_at(*positions: int) -> list[RecordedEvent]:
    async with memory_log() as log:
        (record,) = await log.append("s", [NewEvent(type="t", data=b"{}")], expected=ANY)
    return [replace(record, position=position) for position in positions]


@pytest.mark.parametrize(
    ("heads", "there", "asked", "seen"),
    [
        ([3], [1, 2, 3], [0, 3], [1, 2, 3]),
        ([9], [4], [0, 9], [4]),
        ([9], [], [0, 9], []),
        ([3], [1, 2, 3, 4, 5], [0, 5], [1, 2, 3, 4, 5]),
        ([2, 6], [1, 4], [0, 4, 6], [1, 4]),
    ],
    ids=["all", "a stream", "an idle stream", "read past the head", "in two goes"],
)
async def test_the_cursor_ends_where_the_log_was_read_to(
    heads: list[int], there: list[int], asked: list[int], seen: list[int]
) -> None:
    records = await record_at(*there)
    head = PlayedHead(*heads)

    async def read(stream: str | None, *, after: int) -> AsyncGenerator[RecordedEvent, None]:
        for record in records:
            if record.position > after:
                yield record

    async with subscription(read, head, after=0, stream=None) as followed:
        assert [(await anext(followed)).position for _ in seen] == seen
        with pytest.raises(StoreClosed):
            await anext(followed)

    assert head.asked == asked


async def test_a_head_is_waited_for_until_it_is_above() -> None:
    head = CommittedHead(3)
    assert await head.wait_above(2) == 3

    for _ in range(2):
        with anyio.move_on_after(0.01) as scope:
            await head.wait_above(3)
        assert scope.cancelled_caught
        head.advance(3)

    head.advance(4)
    assert await head.wait_above(3) == 4
    head.close()
    with pytest.raises(StoreClosed):
        await head.wait_above(3)
