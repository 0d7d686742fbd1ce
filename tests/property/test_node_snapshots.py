"""A snapshot and the events after it give what all events give, at every position of every log."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore import ANY, EventLog, MemoryLog, NewEvent, Snapshot, memory_log
from manager.domain import commands as c
from manager.domain.decide import decide
from manager.domain.evolve import evolve
from manager.domain.state import ABSENT, Sandbox
from manager.schema.events import decode_event, encode_event
from manager.schema.node_fold import STREAM_PREFIX, FoldedSandbox, NodeFold
from manager.schema.node_snapshot import (
    advance,
    decode_sandboxes,
    encode_sandboxes,
    fold_fingerprint,
    node_snapshots,
    open_fold,
)
from manager.schema.state_check import verify_states
from tests.property.domain_strategies import struct
from tests.unit.domain import builders as b

SANDBOXES = ("s1", "s2")
LIKELY = st.sampled_from(
    [
        *(b.CREATED, b.STARTED[1:], b.STARTING[3:], (b.reports_started(),), (b.reports_exited(),)),
        *((b.kill("nobody", request_id=f"r-{number}"),) for number in range(4, 7)),
        *((b.kill(),), (c.ReportKilled(kill_id="K-1"),), (b.start("nobody"),)),
        *((c.DestroySubcontainer(cid="c1", request_id="r-1"),), (b.reports_destroyed(),)),
        *((c.DeleteSandbox(force=True, request_id="r-2"),), (b.reports_destroyed("root"),)),
        (b.create(b.a_request("s1", request_id="r-3")),),
        *[(c.DeleteSandbox(force=True), b.reports_destroyed("root"), b.reports_destroyed())] * 3,
    ]
)
HISTORIES = st.lists(st.tuples(st.sampled_from(SANDBOXES), LIKELY), max_size=25)


def events_of(story: list[tuple[str, Any]]) -> Iterator[tuple[str, NewEvent]]:
    """What the rules make of the commands."""
    states: dict[str, Sandbox] = {}
    for sandbox_id, commands in story:
        for command in commands:
            known = states.get(sandbox_id, ABSENT)
            for number, event in enumerate(decide(known, _of(sandbox_id, command))):
                known = states[sandbox_id] = evolve(known, event)
                tag, data = encode_event(event)
                yield sandbox_id, NewEvent(type=tag, data=data, correlation_id=f"call-{number}")


def _of(sandbox_id: str, command: Any) -> Any:
    if not isinstance(command, c.CreateSandbox):
        return command
    request = b.a_request(sandbox_id, request_id=command.request.request_id)
    return b.create(request, sandbox_id=sandbox_id)


async def log_of(story: list[tuple[str, Any]]) -> MemoryLog:
    log = memory_log()
    node = NewEvent(type="manager.started", data={})
    await log.append("node", [node], expected=ANY)
    for sandbox_id, event in events_of(story):
        await log.append(STREAM_PREFIX + sandbox_id, [event], expected=ANY)
    return log


async def states_of(log: EventLog, until: int) -> dict[str, Sandbox]:
    """The plain way, in which no sandbox is ever forgotten."""
    found: dict[str, Sandbox] = {}
    async for record in log.read(limit=until):
        if record.stream.startswith(STREAM_PREFIX):
            before = found.get(record.stream, ABSENT)
            found[record.stream] = evolve(before, decode_event(record.type, record.data))
    return {
        stream.removeprefix(STREAM_PREFIX): state
        for stream, state in found.items()
        if state.phase not in {"absent", "deleted"}
    }


@given(HISTORIES, st.data())
@settings(deadline=None)
def test_a_snapshot_and_its_tail_are_the_whole_log(
    story: list[tuple[str, Any]], data: st.DataObject
) -> None:
    async def check() -> None:
        log = await log_of(story)
        head = await log.head()
        at = data.draw(st.integers(1, head), label="position")
        until = data.draw(st.integers(at, head), label="until")
        records = [record async for record in log.read()]
        with TemporaryDirectory() as directory:
            files = node_snapshots(Path(directory))
            before = await open_fold(log, None, until=at)
            body = encode_sandboxes(before.live.items())
            leaf_hash = records[at - 1].leaf_hash
            files.save(Snapshot(position=at, leaf_hash=leaf_hash, body=body))
            opened = await open_fold(log, files, until=until)
            whole = await open_fold(log, None, until=until)
            assert [finding.problem for finding in (await verify_states(log, files)).snapshots] == [
                ""
            ]
        assert (opened.position, opened.live) == (until, whole.live)
        states = {key: folded.state for key, folded in whole.live.items()}
        assert states == await states_of(log, until)
        await advance(opened, log)
        assert opened.live == (await open_fold(log, None)).live

    anyio.run(check)


async def test_a_stream_is_never_folded_from_its_middle() -> None:
    log = await log_of([("s1", b.CREATED), ("s1", (c.StartRoot(),))])
    second = [record async for record in log.read("sandbox-s1")][1]
    fold = NodeFold(position=second.position - 1)
    assert fold.lacks(second)
    with pytest.raises(LookupError, match="sandbox-s1 was deleted"):
        fold.apply(second)


@given(st.dictionaries(st.text(), struct(FoldedSandbox), max_size=3))
@settings(deadline=None)
def test_whatever_a_state_may_hold_is_kept(live: dict[str, FoldedSandbox]) -> None:
    assert decode_sandboxes(encode_sandboxes(live.items())) == live


def test_the_fingerprint_is_of_the_very_sources(tmp_path: Path, monkeypatch: Any) -> None:
    """Any change of a file that takes part in the fold gives another fingerprint."""
    packages = {name: tmp_path / name for name in ("manager.domain", "manager.schema")}
    for path in packages.values():
        path.mkdir()
        (path / "a.py").write_text("a = 1\n")
        (path / "__pycache__").mkdir()
    monkeypatch.setattr("manager.schema.node_snapshot.files", packages.__getitem__)
    seen = {fold_fingerprint.__wrapped__()}
    (packages["manager.domain"] / "a.py").write_text("a = 2\n")
    seen.add(fold_fingerprint.__wrapped__())
    (packages["manager.schema"] / "b.py").write_text("")
    seen.add(fold_fingerprint.__wrapped__())
    (packages["manager.schema"] / "b.py").rename(packages["manager.schema"] / "c.py")
    seen.add(fold_fingerprint.__wrapped__())
    assert len(seen) == 4
    assert fold_fingerprint.__wrapped__() in seen
