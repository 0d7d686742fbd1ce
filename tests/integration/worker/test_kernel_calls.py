"""The thin wrappers of system calls, against the kernel."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from manager.kernel import mount, pidfd
from manager.kernel.paths import open_beneath
from manager.urpc.fds import OwnedFd
from manager.worker.cgroups import Cgroups
from manager.worker.errors import LaunchFailed
from manager.worker.hierarchies import Hierarchies, parse_hierarchies, parse_homes
from manager.worker.layers import overlay_takes_descriptors
from manager.worker.resources import Limit, Limits


@pytest.fixture(autouse=True)
def _root_only():
    if os.geteuid() != 0:
        pytest.skip("needs root")


def in_own_namespace(code, *arguments):
    """Run Python in a mount namespace of its own; returns what it prints."""
    prologue = """
        import os, sys
        from manager.kernel import mount, namespaces
        from manager.urpc.fds import OwnedFd
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mount.make_private("/")
    """
    script = textwrap.dedent(prologue) + textwrap.dedent(code)
    found = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_reopen_readonly_keeps_the_offset_and_cannot_be_written(tmp_path):
    path = tmp_path / "file"
    path.write_text("abcdef")
    with OwnedFd(os.open(path, os.O_RDONLY)) as donated:
        os.lseek(donated.number, 2, os.SEEK_SET)
        os.open(f"/proc/self/fd/{donated.number}", os.O_RDWR | os.O_CLOEXEC)
        with mount.reopen_readonly(donated.number) as again:
            assert os.read(again.number, 10) == b"cdef"
            with pytest.raises(OSError, match="Read-only") as caught:
                os.open(f"/proc/self/fd/{again.number}", os.O_RDWR)
    assert caught.value.errno == errno.EROFS
    assert path.read_text() == "abcdef"


def test_a_clone_stays_where_its_original_was(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here/mark").write_text("real")
    with OwnedFd(os.open(tmp_path / "here", os.O_PATH)) as directory:
        tree = mount.clone_tree(directory.number)
    (tmp_path / "here").rename(tmp_path / "there")
    (tmp_path / "here").mkdir()
    with tree, open_beneath(tree.number, "/mark", os.O_RDONLY) as file:
        assert os.read(file.number, 10) == b"real"


@pytest.mark.parametrize("path", ["/link", "/link/x", "/dir/link"])
def test_open_beneath_follows_no_symlink(tmp_path, path):
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("dir")
    (tmp_path / "dir/link").symlink_to("/etc")
    with OwnedFd(os.open(tmp_path, os.O_PATH)) as root:
        with pytest.raises(OSError, match="symbolic") as caught:
            open_beneath(root.number, path)
        open_beneath(root.number, "/../../dir").close()
    assert caught.value.errno == errno.ELOOP


@pytest.mark.parametrize("by_fd", [True, False])
def test_overlay_by_descriptors_and_by_links(tmp_path, by_fd):
    if by_fd and not overlay_takes_descriptors():
        pytest.skip("overlayfs takes no descriptors before Linux 6.13")
    for name in ("low", "high", "up", "work", "at"):
        (tmp_path / name).mkdir()
    (tmp_path / "low/file").write_text("low")
    (tmp_path / "high/file").write_text("high")
    code = """
        from manager.worker.layers import make_overlay
        base = sys.argv[1]
        fds = {n: os.open(f"{base}/{n}", os.O_PATH) for n in ("low", "high", "up", "work", "at")}
        tree = make_overlay(
            [fds["high"], fds["low"]], (fds["up"], fds["work"]), by_fd=sys.argv[2] == "True"
        )
        mount.attach(tree.number, fds["at"])
        print(open(f"{base}/at/file").read())
        open(f"{base}/at/new", "w").write("new")
    """
    assert in_own_namespace(code, tmp_path, by_fd) == "high\n"
    assert (tmp_path / "up/new").read_text() == "new"


def test_erofs_by_loop_device(tmp_path, busybox_rootfs):
    program = shutil.which("mkfs.erofs")
    if program is None or not os.path.exists("/dev/loop-control"):
        pytest.skip("no mkfs.erofs, or no loop devices")
    image = tmp_path / "image"
    subprocess.run([program, image, busybox_rootfs], check=True, capture_output=True)
    code = """
        from manager.kernel.loopdev import attach_loop_device
        image = os.open(sys.argv[1], os.O_RDONLY)
        with attach_loop_device(image) as device:
            with mount.FilesystemContext("erofs") as context:
                context.set_string("source", mount.at(device.number))
                context.set_flag("ro")
                tree = context.mount()
        print(sorted(os.listdir(os.open(".", os.O_RDONLY, dir_fd=tree.number))))
    """
    assert "'bin', 'dev', 'etc'" in in_own_namespace(code, image)


def test_messages_of_a_filesystem_are_passed_on():
    with pytest.raises(OSError, match=r"tmpfs.*size"):
        mount.tmpfs("many")


def test_inside_other_namespaces_and_back(tmp_path):
    code = """
        home = {n: os.readlink(f"/proc/self/ns/{n}") for n in ("net", "mnt")}
        pid = os.fork()
        if pid == 0:
            namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET)
            os.kill(os.getpid(), 19)
            os._exit(0)
        os.waitpid(pid, os.WUNTRACED)
        fds = {n: namespaces.open_namespace(pid, n) for n in ("net", "mnt")}
        with namespaces.entered({n: fd.number for n, fd in fds.items()}):
            there = {n: os.readlink(f"/proc/self/ns/{n}") for n in ("net", "mnt")}
        back = {n: os.readlink(f"/proc/self/ns/{n}") for n in ("net", "mnt")}
        print(back == home, there["net"] != home["net"], there["mnt"] != home["mnt"])
        os.kill(pid, 9)
    """
    assert in_own_namespace(code) == "True True True\n"


def test_the_status_of_a_process_that_somebody_else_reaped():
    child = subprocess.Popen(["sh", "-c", "exit 42"])
    with pidfd.open_pidfd(child.pid) as handle:
        assert pidfd.start_ticks(child.pid) > 0
        assert pidfd.parent(child.pid) == os.getpid()
        signal.pidfd_send_signal(handle.number, 0)
        child.wait()
        assert pidfd.has_exited(handle.number)
        try:
            status = pidfd.exit_status(handle.number)
        except OSError:
            pytest.skip("PIDFD_GET_INFO tells no exit status before Linux 6.15")
        assert status == 42 << 8
    assert pidfd.start_ticks(child.pid) == 0


def test_the_number_of_a_process_that_is_gone_is_nobodys_though_its_session_lives():
    leader = subprocess.Popen(
        ["sh", "-c", "sleep 1000 >/dev/null & echo $!"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    member = int(leader.communicate()[0])
    try:
        with pytest.raises(ProcessLookupError):
            pidfd.open_pidfd(leader.pid)
        assert os.getsid(member) == leader.pid
    finally:
        os.kill(member, signal.SIGKILL)


@pytest.fixture
def unified():
    for place in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
        if os.path.exists(f"{place}/cgroup.controllers"):
            return place
    pytest.skip("no cgroup2 here")
    return ""


def test_a_unified_cgroup(unified):
    cgroup = Cgroups(Hierarchies(unified=unified)).of_launch(f"test-{os.getpid()}")
    cgroup.create()
    child = subprocess.Popen(["sleep", "1000"])
    try:
        cgroup.add(child.pid)
        assert cgroup.pids() == (child.pid,)
        assert cgroup.signal_everyone(signal.SIGCONT) == 1
        assert cgroup.signal_everyone(signal.SIGTERM, spared=(child.pid,)) == 0
        assert not cgroup.ran_out_of_memory()
        limit = Limit(controller="memory", file="nonsense.max", value="1")
        with pytest.raises(LaunchFailed, match=r"nonsense\.max"):
            cgroup.limit(Limits(v2=(limit,)))
        assert cgroup.remove() != []
        cgroup.kill_everyone()
        assert child.wait() == -9
    finally:
        child.kill()
        child.wait()
        assert cgroup.remove() == []
    assert cgroup.pids() == ()


@pytest.fixture
def v1_cgroup():
    own = Path("/proc/self/cgroup").read_text()
    hierarchies = parse_hierarchies(Path("/proc/self/mountinfo").read_text())
    if not hierarchies.v1 or not all(
        os.access(place, os.W_OK) for place in hierarchies.v1.values()
    ):
        pytest.skip("no cgroup v1 that can be written")
    homes = parse_homes(own, hierarchies)
    cgroup = Cgroups(hierarchies, homes).of_launch(f"inhabited-{os.getpid()}")
    cgroup.create()
    yield cgroup
    cgroup.kill_everyone()
    for _ in range(500):
        if not cgroup.remove():
            return
        time.sleep(0.01)
    raise AssertionError("the cgroup does not go away")


def test_what_is_started_in_an_inhabited_cgroup_is_born_there(v1_cgroup):
    before = Path("/proc/thread-self/cgroup").read_text()
    with v1_cgroup.inhabited() as born_inside:
        child = subprocess.Popen(["sleep", "1000"])
    assert born_inside
    places = dict.fromkeys(v1_cgroup.existing())
    inside = [(place / "cgroup.procs").read_text().split() for place in places]
    assert inside == [[str(child.pid)]] * len(inside)
    assert Path("/proc/thread-self/cgroup").read_text() == before
    child.kill()
    child.wait()


def test_an_inhabited_cgroup_is_left_whatever_happens(v1_cgroup):
    before = Path("/proc/thread-self/cgroup").read_text()
    with pytest.raises(ZeroDivisionError), v1_cgroup.inhabited():
        raise ZeroDivisionError
    assert Path("/proc/thread-self/cgroup").read_text() == before
    assert v1_cgroup.pids() == ()


def test_nobody_enters_a_frozen_cgroup(v1_cgroup):
    v1_cgroup.freeze(True)
    try:
        with v1_cgroup.inhabited() as born_inside:
            assert not born_inside
    finally:
        v1_cgroup.freeze(False)


def test_a_cgroup_that_cannot_be_entered_leaves_this_process_where_it_was(v1_cgroup):
    before = Path("/proc/thread-self/cgroup").read_text()
    assert v1_cgroup.remove() == []
    with pytest.raises(LaunchFailed, match="cannot join the cgroup"), v1_cgroup.inhabited():
        pass
    assert Path("/proc/thread-self/cgroup").read_text() == before


def test_a_worker_whose_own_cgroup_is_gone_is_left_in_no_container(v1_cgroup, tmp_path):
    hierarchies = parse_hierarchies(Path("/proc/self/mountinfo").read_text())
    homes = parse_homes(Path("/proc/thread-self/cgroup").read_text(), hierarchies)
    lost = Cgroups(hierarchies, (tmp_path / "gone",)).of_launch(f"inhabited-{os.getpid()}")
    try:
        with lost.inhabited():
            pass
        assert v1_cgroup.pids() == ()
    finally:
        for home in homes:
            (home / "tasks").write_text("0")
