"""A defect in the middle of a container's life: its end is told, and it keeps no worker."""

import contextlib
import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from manager.kernel import pidfd
from manager.schema import worker as w
from manager.worker.cgroups import Cgroups
from manager.worker.engine import Running
from manager.worker.exec_records import ExecRecord, ExecRecords
from manager.worker.hierarchies import Hierarchies
from manager.worker.holds import Holds
from manager.worker.launches import Launches
from manager.worker.loop import Loop, Pause
from manager.worker.outbox import Outbox
from manager.worker.records import Record, Records
from manager.worker.stage import LaunchStage, Stage

BOOT = "5c8f"
DEFECT = "a defect of the worker: ZeroDivisionError: oh"


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


class Patient(Defective):
    """An engine that can wait for a container, and not for what is executed in it."""

    def adopt(self, running: Running) -> None:
        self.running = running

    def wait(self, running: Running):
        yield Pause(seconds=1000)

    def wait_executed(self, running: object, number: int, place: Path) -> None:
        raise ZeroDivisionError("oh")


class NoStage(Stage):
    """Mounts nothing: this process has no mount namespace of its own."""

    def of_launch(self, engine_id: str) -> LaunchStage:
        return NoPlace(super().of_launch(engine_id).path)


class NoPlace(LaunchStage):
    def create(self) -> None:
        raise PermissionError(errno.EPERM, "not here")


@pytest.fixture
def own() -> w.PidIdentity:
    ticks = pidfd.start_ticks(os.getpid())
    return w.PidIdentity(pid=os.getpid(), start_ticks=ticks, pidfd_inode=0, boot_id=BOOT)


def outcomes_of(
    directory: Path, engine: object, record: Record, *executed: ExecRecord
) -> tuple[list[w.Outcome], Launches]:
    """What a worker tells that has found these records."""
    told: list[w.Outcome] = []
    machine = SimpleNamespace(
        boot_id=BOOT,
        take_stock=lambda: ([], [record]),
        engine_of=lambda name: engine,
        records=Records(directory / "launches", BOOT),
        exec_records=ExecRecords(directory / "execs"),
        keeping=SimpleNamespace(keep=lambda *_: None, drop=lambda *_: None),
        cgroups=NoCgroup(Hierarchies()),
        stage=NoStage(directory),
    )
    for each in executed:
        machine.exec_records.write(each)
    with contextlib.closing(Loop()) as loop:
        launches = Launches(loop, machine, Holds(), Outbox(told.append), lambda: None)
        launches.adopt_all({})
    return told, launches


def record_of(identity: w.PidIdentity | None) -> Record:
    return Record(
        launch_id="launch", engine_id="0" * 32, engine="crun", boot_id=BOOT, identity=identity
    )


def test_of_one_that_ran(tmp_path: Path, own: w.PidIdentity) -> None:
    told, launches = outcomes_of(tmp_path, Defective(), record_of(own))
    last = told[-1]
    assert isinstance(last, w.Exited)
    assert (last.status, last.loss) == (None, DEFECT)
    assert launches.idle


def test_of_one_that_was_being_started(tmp_path: Path) -> None:
    told, launches = outcomes_of(tmp_path, Defective(), record_of(None))
    assert isinstance(told[-1], w.StartFailed)
    assert launches.idle


def test_of_a_process_that_was_executed(tmp_path: Path, own: w.PidIdentity) -> None:
    executed = ExecRecord(exec_id="exec", launch_id="launch", identity=own, pid=7)
    engine = Patient()
    told, launches = outcomes_of(tmp_path, engine, record_of(own), executed)
    engine.running.close()
    last = told[-1]
    assert isinstance(last, w.ProcessExited)
    assert (last.status, last.loss) == (None, DEFECT)
    assert launches.execs.idle
