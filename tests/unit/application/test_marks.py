"""Making marks: recorded before they are answered, once for each name and each request."""

import anyio
import pytest

from eventstore import Actor
from manager.application.errors import CallRefused
from manager.application.marks import Marker
from manager.schema.marks import read_marks
from manager.schema.node_events import NODE_STREAM
from tests.unit.application.conftest import World

ALICE = Actor(uid=1000, gid=1000, pid=7)


async def test_a_mark_is_on_record_with_who_made_it(world: World) -> None:
    async with world.manager() as (node, calls):
        position = await Marker(node).add("deploy", calls.origin(ALICE), message="v2")
        assert position == await world.log.head()
        (mark,) = (await read_marks(world.log)).values()
        assert (mark.name, mark.at, mark.message, mark.actor) == ("deploy", position, "v2", ALICE)
        assert await Marker(node).add("first", calls.origin(ALICE), at=1) == 1


async def test_a_refusal_is_on_record_with_its_text(world: World) -> None:
    async with world.manager() as (node, calls):
        marker = Marker(node)
        await marker.add("deploy", calls.origin(ALICE))
        with pytest.raises(CallRefused, match=r'^mark "deploy" already exists, at #'):
            await marker.add("deploy", calls.origin(ALICE))
        assert (await world.tags(NODE_STREAM))[-1] == "mark.rejected"
        assert node.registry.frontier.position == await world.log.head()


async def test_the_same_request_acts_once(world: World) -> None:
    async with world.manager() as (node, calls):
        marker = Marker(node)
        first = await marker.add("deploy", calls.origin(ALICE), request_id="r")
        assert await marker.add("deploy", calls.origin(ALICE), request_id="r") == first
        for _ in range(2):
            with pytest.raises(CallRefused, match="invalid mark"):
                await marker.add("", calls.origin(ALICE), request_id="s")
        tags = await world.tags(NODE_STREAM)
        assert [tag for tag in tags if tag.startswith("mark.")] == ["mark.added", "mark.rejected"]


async def test_of_many_at_once_one_gets_the_name_and_all_get_their_own(world: World) -> None:
    async with world.manager() as (node, calls):
        answers: list[str] = []

        async def add(name: str) -> None:
            try:
                await Marker(node).add(name, calls.origin(ALICE))
            except CallRefused:
                answers.append("refused")
            else:
                answers.append(name)

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(add, "same")
                tasks.start_soon(add, f"own-{number}")
        assert answers.count("same") == 1
        assert answers.count("refused") == 9
        assert set(await read_marks(world.log)) == {"same", *(f"own-{n}" for n in range(10))}
