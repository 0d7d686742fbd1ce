"""A verification beside a service at full rate is never a false alarm."""

from pathlib import Path

import anyio.lowlevel
import anyio.to_thread

from eventstore import EventLog, SealPolicy, Snapshot, Verdict, load_signer, open_log
from manager.demo.node_story import Story, jobs
from manager.demo.scribe import Clock, Scribe
from manager.schema.layout import LOG_FILE, SEAL_KEY_FILE
from manager.schema.node_fold import NodeFold
from manager.schema.node_snapshot import advance, encode_sandboxes, node_snapshots
from replay.evidence.verification import AuditReport, verify_file

VERIFICATIONS = 6
SLOTS = 8


async def test_while_events_seals_and_snapshots_come(tmp_path: Path) -> None:
    signer = load_signer(tmp_path / SEAL_KEY_FILE)
    ended = anyio.Event()

    def verify() -> AuditReport:
        return verify_file(tmp_path / LOG_FILE, trusted=[signer.verifier])

    policy = SealPolicy(signer=signer, events=16)
    async with (
        open_log(tmp_path / LOG_FILE, seal=policy) as log,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(write, log, ended)
        tasks.start_soon(snap, log, tmp_path, ended)
        reports = [await anyio.to_thread.run_sync(verify) for _ in range(VERIFICATIONS)]
        ended.set()
    reports.append(await anyio.to_thread.run_sync(verify))
    assert [each.findings for each in reports if each.verdict is Verdict.BROKEN] == []
    heads = [each.head for each in reports]
    assert heads == sorted(heads)
    assert heads[0] < heads[-1] == reports[-1].sealed
    assert reports[-1].verdict is Verdict.INTACT
    history = next(each for each in reports[-1].findings if each.layer == "history")
    assert "is the head that you last saw here" in history.text


async def write(log: EventLog, ended: anyio.Event) -> None:
    clock = Clock()
    scribe = Scribe(log, clock, seed=7, round_ns_max=1_000)
    story = Story(7, scribe.new_id, clock)
    slots = [jobs(story) for _ in range(SLOTS)]
    while not ended.is_set():
        for slot in slots:
            scribe.take(next(slot))
        await scribe.end_round()


async def snap(log: EventLog, root: Path, ended: anyio.Event) -> None:
    """Write a snapshot and remove the ones before, as a service does, but all the time."""
    files, fold = node_snapshots(root), NodeFold()
    while not ended.is_set():
        await advance(fold, log)
        async for record in log.read(after=fold.position - 1, limit=1):
            body = encode_sandboxes(fold.live.items())
            files.save(Snapshot(position=fold.position, leaf_hash=record.leaf_hash, body=body))
        for position in files.positions()[1:]:
            files.discard(position)
        await anyio.lowlevel.checkpoint()
