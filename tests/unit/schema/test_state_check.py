"""A log folded once more: sealed states are the same, or it is told what that means."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from eventstore import ANY, EventLog, NewEvent, NoteMalformed, SealPolicy, load_signer, open_log
from manager.domain.decide import decide
from manager.domain.evolve import evolve
from manager.domain.state import ABSENT
from manager.schema import state_check
from manager.schema.events import encode_event
from manager.schema.node_fold import STREAM_PREFIX, NodeFold
from manager.schema.state_check import FINDINGS_MAX, SealVerdict, state_seals, verify_states
from manager.schema.state_seal import StateDigests, StateSeal, seal_state
from tests.unit.domain import builders as b

OTHER = "0" * 16
WRONG = "f" * 64


async def write(log: EventLog) -> None:
    """One sandbox and a container of it, each event in an append of its own."""
    state = ABSENT
    for command in (*b.STARTED, *b.STARTING[3:], b.reports_started(), b.reports_exited()):
        for event in decide(state, command):
            state = evolve(state, event)
            tag, data = encode_event(event)
            await log.append(STREAM_PREFIX + "s1", [NewEvent(type=tag, data=data)], expected=ANY)


async def true_states(log: EventLog) -> list[StateSeal]:
    fold, digests, found = NodeFold(), StateDigests(), []
    async for record in log.read():
        fold.apply(record)
        found.append(seal_state(record.position, digests.of(fold.live.items())))
    return found


async def each_of(seals: Sequence[StateSeal]) -> AsyncIterator[StateSeal]:
    for seal in seals:
        yield seal


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EventLog]:
    async with open_log(tmp_path / "events.db") as log:
        await write(log)
        yield log


async def test_true_states_are_the_same(log: EventLog) -> None:
    seals = await true_states(log)
    assert len({seal.digest for seal in seals}) == len(seals) >= 3
    found = await verify_states(log, sealed=each_of(seals))
    assert (found.seals, found.findings, found.live) == ({"same": len(seals)}, (), 1)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"digest": WRONG}, "different"),
        ({"digest": WRONG, "code": OTHER}, "otherwise"),
        ({"digest": WRONG, "code": OTHER, "shape": OTHER}, "foreign"),
        ({"code": OTHER, "shape": OTHER}, "same"),
    ],
)
async def test_who_sealed_another_state_decides_what_it_means(
    log: EventLog, changes: dict[str, str], verdict: SealVerdict
) -> None:
    seals = await true_states(log)
    seals[1] = replace(seals[1], **changes)
    found = await verify_states(log, sealed=each_of(seals))
    assert found.seals[verdict] == (len(seals) if verdict == "same" else 1)
    told = [(each.sealed.position, each.verdict) for each in found.findings]
    assert told == ([(2, verdict)] if verdict in {"different", "otherwise"} else [])


async def test_a_window_is_compared_with_what_is_sealed_in_it(log: EventLog) -> None:
    seals = await true_states(log)
    found = await verify_states(log, sealed=each_of(seals), first=2, last=3)
    assert found.seals == {"same": 2}


async def test_a_state_that_stands_after_a_later_one_is_not_the_state_there(log: EventLog) -> None:
    first, second, *_ = await true_states(log)
    found = await verify_states(log, sealed=each_of([second, first]))
    assert found.seals == {"same": 1, "different": 1}


async def test_of_many_some_are_compared_and_the_last_in_any_case(log: EventLog) -> None:
    seals = await true_states(log)
    seals[1] = replace(seals[1], digest=WRONG)
    found = await verify_states(log, sealed=each_of(seals), every=3)
    assert len(seals) == 7
    assert (found.seals, found.passed_over) == ({"same": 3}, len(seals) - 3)
    seals[-1] = replace(seals[-1], digest=WRONG)
    found = await verify_states(log, sealed=each_of(seals), every=len(seals))
    assert (found.seals, found.passed_over) == ({"same": 1, "different": 1}, len(seals) - 2)
    part = await verify_states(log, sealed=each_of(seals), every=99, last=len(seals) - 1)
    assert (part.seals, part.passed_over) == ({"same": 2}, len(seals) - 3)


async def test_no_more_findings_are_kept_than_anybody_reads(log: EventLog) -> None:
    wrong = [replace(seal_state(2, bytes(32)), digest=f"{n:064x}") for n in range(FINDINGS_MAX + 5)]
    found = await verify_states(log, sealed=each_of(wrong))
    assert len(found.findings) == FINDINGS_MAX
    assert found.seals == {"different": FINDINGS_MAX + 5}


async def test_they_are_read_from_the_checkpoints_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, said = tmp_path / "events.db", iter([(), ("a", "b"), ("a", "b"), ("b", "b"), ("c",)])
    lines = {name: seal_state(ord(name), bytes(32)).line() for name in "abc"}

    async def extensions(_: bool) -> Sequence[str]:
        return tuple(lines[name] for name in next(said))

    policy = SealPolicy(
        signer=load_signer(tmp_path / "k"), events=1, seconds=3600, extensions=extensions
    )
    for _ in range(5):
        async with open_log(path, seal=policy) as log:
            await log.append("s", [NewEvent(type="t", data={})], expected=ANY)
    real = state_check.read_checkpoints
    monkeypatch.setattr(
        state_check, "read_checkpoints", lambda path, *, after: real(path, after=after, limit=2)
    )
    read = [seal.line() async for seal in state_seals(path)]
    assert read == [lines[name] for name in ("a", "b", "a", "b", "c")]


async def test_a_broken_line_ends_the_reading(tmp_path: Path) -> None:
    async def extensions(_: bool) -> Sequence[str]:
        return ("sandtrail-state-v1 broken",)

    path = tmp_path / "events.db"
    policy = SealPolicy(signer=load_signer(tmp_path / "k"), extensions=extensions)
    async with open_log(path, seal=policy) as log:
        await log.append("s", [NewEvent(type="t", data={})], expected=ANY)
    with pytest.raises(NoteMalformed, match="is no state of a log"):
        _ = [seal async for seal in state_seals(path)]
