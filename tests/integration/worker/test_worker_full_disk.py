"""A worker whose own directory takes no more: what runs goes on, and its end is told."""

import contextlib
import os
import signal
from pathlib import Path

import pytest

from manager.schema import worker as w
from manager.urpc.fds import OwnedFd
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime

PAGE = os.sysconf("SC_PAGE_SIZE")
PLACE_KIB = 256
INODES = 100
LOOP = "trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done"
SMALL_DISK = f"""
mkdir -m 700 "$0/worker"
mount -t tmpfs -o size={PLACE_KIB}k,nr_inodes={INODES},mode=700 small "$0/worker"
exec "$@"
"""


class SmallDisk:
    """The worker's directory, a small file system in the worker's mount namespace alone."""

    def __init__(self, harness) -> None:
        self._harness = harness

    def start(self) -> None:
        shell = ("unshare", "--mount", "sh", "-ec", SMALL_DISK, str(self._harness.state))
        self._harness.start(through=shell)

    def start_again(self) -> None:
        """A worker that comes after one that was killed, where that one was."""
        namespace = f"--mount=/proc/{self.keeper}/ns/mnt"
        self._harness.start(through=("nsenter", namespace, f"--wd={Path.cwd()}"))

    def know_keeper(self) -> None:
        self.keeper = self._harness.keeper_pid()

    @property
    def place(self) -> Path:
        return Path(f"/proc/{self._harness.pid}/root{self._harness.state}/worker")

    def fill(self, *, free_pages: int = 0) -> None:
        fill = self.place / "fill"
        with fill.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(PAGE))
        os.truncate(fill, fill.stat().st_size - free_pages * PAGE)
        assert os.statvfs(self.place).f_bavail == free_pages

    def use_up_names(self) -> None:
        with contextlib.suppress(OSError):
            for number in range(INODES):
                (self.place / f"name-{number}").touch()

    def make_room(self) -> None:
        (self.place / "fill").unlink()


@pytest.fixture
def harness(own_worker_type, tmp_path):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    found = own_worker_type(state)
    yield found
    found.stop()


@pytest.fixture
def disk(harness) -> SmallDisk:
    small = SmallDisk(harness)
    small.start()
    return small


def test_an_end_that_cannot_be_written_is_told(harness, disk, engine, make_spec, busybox_rootfs):
    launched = harness.launch(engine, make_spec(["sh", "-c", LOOP]), busybox_rootfs)
    harness.expect(w.Started, launched)
    assert launched.stdio.read_line() == "ready"
    disk.fill()
    assert harness.kill(launched, signal.SIGTERM) is None
    assert harness.expect(w.Exited, launched).status == 42 << 8
    harness.destroy(launched)
    harness.send(w.Stop())
    assert harness.process.wait(PATIENCE_S) == 0


def test_what_cannot_be_recorded_is_refused(harness, disk, make_spec, busybox_rootfs):
    launched = harness.launch("bwrap", make_spec(["sh", "-c", LOOP]), busybox_rootfs)
    harness.expect(w.Started, launched)
    disk.use_up_names()
    refused = harness.fail("bwrap", make_spec(["true"]), busybox_rootfs)
    assert refused.reason == "it cannot be recorded: No space left on device"
    process = w.ExecProcess(args=("true",), cwd="/")
    harness.send(w.Execute(exec_id="e", launch_id=launched.id, process=process))
    assert harness.expect(w.ExecFailed, "e").reason == refused.reason
    harness.tidy()


def test_what_could_not_be_recorded_is_adopted(harness, disk, make_spec, busybox_rootfs):
    disk.know_keeper()
    # Room for the word that it is being started, not for a second one beside it.
    disk.fill(free_pages=1)
    launched = harness.launch("bwrap", make_spec(["sh", "-c", LOOP]), busybox_rootfs)
    started = harness.expect(w.Started, launched)
    assert launched.stdio.read_line() == "ready"
    assert "worker.record_not_written" in harness.log.read_text()
    disk.make_room()
    harness.process.kill()
    harness.process.wait()
    disk.start_again()
    (fact,) = harness.conversation.welcome.launches
    assert (fact.phase, fact.identity) == ("running", started.identity)
    assert harness.kill(launched, signal.SIGTERM) is None
    harness.expect_orphans_end(launched, 42 << 8)


def test_a_save_that_cannot_be_made_lets_its_container_go_on(
    harness, disk, make_spec, busybox_rootfs, tmp_path
):
    launched = harness.launch("runsc", make_spec(["sh", "-c", LOOP]), busybox_rootfs)
    harness.expect(w.Started, launched)
    assert launched.stdio.read_line() == "ready"
    disk.use_up_names()
    image = OwnedFd(os.open(tmp_path / "image", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    harness.send(
        w.Save(checkpoint_id="c", launch_ids=(launched.id,), metadata=b"{}", resume=False), [image]
    )
    failed = harness.expect(w.SaveFailed, "c")
    assert "No space left on device" in failed.reason
    assert harness.kill(launched, signal.SIGTERM) is None
    assert harness.expect(w.Exited, launched).status == 42 << 8
