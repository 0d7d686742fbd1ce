"""What seals say of the state: the truth at some position, now and then, and at the end."""

from collections.abc import AsyncIterator, Callable

import pytest

from manager.application import state_sealing
from manager.application.state_sealing import STATE_SECONDS, StateSealing
from manager.schema.state_check import verify_states
from manager.schema.state_seal import StateSeal
from manager.urpc.fds import FdBundle
from tests.unit.application.conftest import World
from tests.unit.application.test_snapshots import live

Donate = Callable[[], FdBundle]


async def seal_of(states: StateSealing, *, final: bool = False) -> StateSeal:
    (line,) = await states.lines(final)
    found = StateSeal.parse(line)
    assert found is not None
    return found


async def each_of(*seals: StateSeal) -> AsyncIterator[StateSeal]:
    for seal in seals:
        yield seal


async def test_nothing_is_said_before_the_log_is_replayed() -> None:
    assert await StateSealing().lines(True) == ()


async def test_what_is_said_is_what_the_log_folds_to(world: World, donate: Donate) -> None:
    states = StateSealing()
    async with world.manager() as (node, calls):
        states.follow(node.registry)
        await live(calls, "s1", donate)
        first = await seal_of(states)
        assert first.position == node.registry.frontier.position
        await live(calls, "s2", donate)
        await calls.delete("s1", calls.origin(None), force=True)
    last = await seal_of(states, final=True)
    assert last.position == await world.log.head()
    found = await verify_states(world.log, sealed=each_of(first, last))
    assert found.seals == {"same": 2}


async def test_a_new_one_is_taken_after_some_events_or_some_time(
    world: World, donate: Donate, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    states = StateSealing(lambda: now_s[0])
    async with world.manager() as (node, calls):
        states.follow(node.registry)
        first = await seal_of(states)
        await live(calls, "s1", donate)
        assert await seal_of(states) == first, "too soon, and too little has happened"
        now_s[0] = STATE_SECONDS
        second = await seal_of(states)
        assert second.position == node.registry.frontier.position > first.position
        await live(calls, "s2", donate)
        waiting = node.registry.frontier.position - second.position
        monkeypatch.setattr(state_sealing, "STATE_EVENTS", waiting + 1)
        assert await seal_of(states) == second
        monkeypatch.setattr(state_sealing, "STATE_EVENTS", waiting)
        assert (await seal_of(states)).position == second.position + waiting


async def test_between_two_positions_there_is_no_state_to_seal(
    world: World, donate: Donate
) -> None:
    states = StateSealing()
    async with world.manager() as (node, calls):
        states.follow(node.registry)
        first = await seal_of(states)
        await live(calls, "s1", donate)
        node.registry.frontier.position += 1  # as while an append comes back before an earlier one
        assert await seal_of(states, final=True) == first
        node.registry.frontier.position -= 1
        assert (await seal_of(states, final=True)).position > first.position
