"""One small log for all tests of the auditor's tools: real decisions, a secret, hostile names."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from eventstore import SealPolicy, load_signer, open_log
from manager.application.default_spec import default_spec
from manager.application.spec_body import masked_document
from manager.demo.node_story import ENGINE, SandboxScript, Step, Story
from manager.demo.scribe import Clock, Scribe
from manager.domain import commands as c
from manager.domain.exit_status import Signaled
from manager.domain.spec import parse_spec_object
from manager.schema.layout import LOG_FILE, SEAL_KEY_FILE
from manager.schema.node_events import ManagerStarted, WorkerStarted
from manager.schema.worker import PidIdentity
from tests.patience import PATIENCE_S

BOOT_ID = "6f2d9a4e-8f8f-4a53-9d0c-2b7f0a1c9e11"
WORKER = PidIdentity(pid=900, start_ticks=90, pidfd_inode=0, boot_id=BOOT_ID)
SECRET = "hunter2-planted"
HOSTILE = "</script><img src=x onerror=alert(1)>\x1b[31m\u202eevil\n=cmd()"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def steps(story: Story) -> Iterator[Step]:
    script = SandboxScript(story)
    script.id = "web"
    yield from script.create()
    yield from script.run()
    yield from script.run()
    yield script.ask(c.CreateSubcontainer(cid=HOSTILE, request_id="again"))
    yield script.refused_signal()
    yield script.ask(c.Pause(paused=True, pause_id="p1", engine=ENGINE))
    yield script.tell(c.ReportFrozen(pause_id="p1"))
    yield script.ask(c.Pause(paused=False, pause_id="p2", engine=ENGINE))
    yield script.tell(c.ReportFrozen(pause_id="p2"))
    yield from script.signal("web.1", 15)
    yield script._exited("web.1", Signaled(signal=15))
    yield from script.destroy("web.1")


async def write(root: Path) -> None:
    clock = Clock()
    seal = SealPolicy(signer=load_signer(root / SEAL_KEY_FILE), events=10**6, seconds=3600)
    async with open_log(root / LOG_FILE, clock=clock, seal=seal) as log:
        scribe = Scribe(log, clock, seed=5, round_ns_max=20_000_000)
        story = Story(5, scribe.new_id, clock)
        spec = default_spec(args=["/bin/web"], env=[f"TOKEN={SECRET}"], readonly=True)
        story._specs = [(parse_spec_object(spec), masked_document(spec, b"key"))]
        await scribe.note(ManagerStarted(version="0.1.0", pid=1, boot_id="b", kernel="6.1"))
        await scribe.note(WorkerStarted(identity=WORKER, engines=(), capabilities={}))
        for step in steps(story):
            scribe.take(step)
            await scribe.end_round()
            clock.now_ns += 3_000_000


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with a sealed log; not to be changed."""
    made = tmp_path_factory.mktemp("audited")
    anyio.run(write, made)
    return made


@pytest.fixture(scope="session")
def audit(root: Path) -> Run:
    """Runs ``sandtrail audit`` on it."""

    def run(*args: str, **options: object) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "SANDTRAIL_ROOT": str(root), "TZ": "UTC"}
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            [sys.executable, "-m", "manager.cli", "audit", *args],
            check=False,
            **(
                {"capture_output": True, "text": True, "timeout": PATIENCE_S, "env": environment}
                | options
            ),
        )

    return run
