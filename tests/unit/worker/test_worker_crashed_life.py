"""A defect in the middle of a container's life: its end is told, and it keeps no worker."""

import contextlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from manager.kernel import pidfd
from manager.schema import worker as w
from manager.worker.cgroups import Cgroups
from manager.worker.hierarchies import Hierarchies
from manager.worker.holds import Holds
from manager.worker.launches import Launches
from manager.worker.loop import Loop
from manager.worker.outbox import Outbox
from manager.worker.records import Record, Records
from manager.worker.stage import Stage

BOOT = "5c8f"


class Defective:
    """An engine that cannot even wait."""

    name, version = "crun", "1"

    def adopt(self, running: object) -> None:
        pass

    def wait(self, running: object) -> None:
        raise ZeroDivisionError("oh")

    def clean_up(self, engine_id: str):
        return []
        yield


class NoCgroup(Cgroups):
    """Nobody is in it, so nobody is killed."""

    def of_launch(self, engine_id: str):
        found = super().of_launch(engine_id)
        found.pids = tuple
        found.note_init = lambda pid: None
        return found


@pytest.mark.parametrize("identity", ["own", None])
def test_it_is_told(tmp_path: Path, identity: str | None) -> None:
    told: list[w.Outcome] = []
    own = w.PidIdentity(
        pid=os.getpid(),
        start_ticks=pidfd.start_ticks(os.getpid()),
        pidfd_inode=0,
        boot_id=BOOT,
    )
    record = Record(
        launch_id="launch",
        engine_id="0" * 32,
        engine="crun",
        boot_id=BOOT,
        identity=own if identity else None,
    )
    machine = SimpleNamespace(
        boot_id=BOOT,
        take_stock=lambda: ([], [record]),
        engine_of=lambda name: Defective(),
        records=Records(tmp_path / "launches", BOOT),
        exec_records=SimpleNamespace(read=list),
        keeping=SimpleNamespace(keep=lambda *_: None, drop=lambda *_: None),
        cgroups=NoCgroup(Hierarchies()),
        stage=Stage(tmp_path),
    )
    with contextlib.closing(Loop()) as loop:
        launches = Launches(loop, machine, Holds(), Outbox(told.append), lambda: None)
        launches.adopt_all({})
    last = told[-1]
    if identity:
        assert isinstance(last, w.Exited)
        assert (last.status, last.loss) == (None, "a defect of the worker: ZeroDivisionError: oh")
    else:
        assert isinstance(last, w.StartFailed)
    assert launches.idle
