"""The same answers for Python programs."""

from pathlib import Path

from eventstore import Verdict, load_verifier
from manager.schema.layout import LOG_FILE, SEAL_KEY_FILE
from replay import MachineView, Selection, Trail, reconcile, stats_of, verify


async def test_evidence_by_the_door(root: Path) -> None:
    key = load_verifier(root / f"{SEAL_KEY_FILE}.pub")
    async with Trail.open(root / LOG_FILE) as trail:
        report = await verify(trail, trusted=[key])
        stats = await stats_of(trail, Selection(outcome="refused"), await trail.window())
        told = await reconcile(trail, MachineView(root))
    assert report.verdict is Verdict.INTACT
    assert stats.by_outcome == {"refused": stats.events}
    assert {each.kind for each in told.found} == {"ghost"}
