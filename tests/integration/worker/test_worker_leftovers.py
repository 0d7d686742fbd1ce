"""What former workers left without a record is found and removed; what is another's stays."""

import os
import subprocess
import uuid
from pathlib import Path

import pytest

from manager.schema import worker as w
from manager.worker.cgroups import Cgroups
from manager.worker.hierarchies import parse_hierarchies
from manager.worker.leftovers import find_leftovers
from manager.worker.records import Records
from tests.integration.worker.test_worker_life import LOOP, start, wait_until
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime


def cgroup_of(engine_id):
    mountinfo = Path("/proc/self/mountinfo").read_text()
    return Cgroups(parse_hierarchies(mountinfo)).of_launch(engine_id)


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_what_belongs_to_nobody_is_removed(own_worker, sleeper):
    own_worker.stop()
    ours, second, third, foreign = (uuid.uuid4().hex for _ in range(4))
    cgroup, others = cgroup_of(ours), cgroup_of(foreign)
    worker = own_worker.state / "worker"
    state = worker / "engines" / "crun" / ours
    state.mkdir()
    (state / "status").write_text("{")
    lock = worker / "engines" / "runsc" / f"{second}_sandbox:{second}.lock"
    lock.parent.mkdir(exist_ok=True)
    lock.touch()
    # Of a `create` that gVisor of 2024 did not finish.
    control = lock.with_name(f"runsc-{third}.sock")
    control.touch()
    (worker / "launches" / ours).write_text("not finished")
    try:
        cgroup.create()
        others.create()
        cgroup.add(sleeper.pid)
        own_worker.start()
        welcome = own_worker.conversation.welcome
        assert {each.partition(" /")[0] for each in welcome.leftovers} == {
            f"record {ours}",
            f"crun state {ours}",
            f"runsc state {lock.name}",
            f"runsc state {control.name}",
            "cgroup",
        }
        assert welcome.launches == (), "they are nobody's launches"
        assert sleeper.wait(PATIENCE_S) == -9
        wait_until(lambda: not cgroup.existing())
        wait_until(lambda: not any(each.exists() for each in (state, lock, control)))
        wait_until(lambda: not any((worker / "launches").iterdir()))
        assert others.existing(), "that may be another service's"
    finally:
        cgroup.remove()
        others.remove()
    own_worker.stop()
    own_worker.start()
    assert own_worker.conversation.welcome.leftovers == (), "said once, done once"


def test_what_lives_is_no_leftover(own_worker, make_spec, busybox_rootfs):
    launched, _ = start(own_worker, "crun", make_spec(["sh", "-c", LOOP]), busybox_rootfs)
    os.kill(own_worker.pid, 9)
    own_worker.process.wait()
    own_worker.start()
    welcome = own_worker.conversation.welcome
    assert welcome.leftovers == ()
    assert [fact.launch_id for fact in welcome.launches] == [launched.id]
    assert own_worker.destroy(launched).leftovers == ()


def test_what_could_not_be_removed_is_on_record_for_the_next(tmp_path):
    (tmp_path / "engines").mkdir()
    records = Records(tmp_path / "launches", "boot")
    command = w.Launch(launch_id="L-1", engine_id="e" * 32, engine="crun", spec=b"", plan=None)
    records.starting(command, {})
    records.left(command)
    cgroups = Cgroups(parse_hierarchies(""))
    read = records.read()
    [found] = find_leftovers(tmp_path / "engines", records.names(), read, cgroups)
    assert (found.engine, found.found) == ("crun", (f"record {'e' * 32}",))
