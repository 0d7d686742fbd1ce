"""A container per engine: its output, its exit status, its failures, what it can see."""

import errno
import os
import signal
from pathlib import Path

import pytest

from manager.schema import worker as w
from manager.urpc.fds import OwnedFd

pytestmark = pytest.mark.runtime

WAIT = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"


def test_output_of_a_donated_pipe_arrives(worker, engine, make_spec, busybox_rootfs):
    status, output = worker.run(engine, make_spec(["sh", "-c", "echo hello"]), busybox_rootfs)
    assert (status, output) == (0, "hello\n")


@pytest.mark.parametrize("code", [0, 3, 255])
def test_exit_code(worker, engine, make_spec, busybox_rootfs, code):
    status, _ = worker.run(engine, make_spec(["sh", "-c", f"exit {code}"]), busybox_rootfs)
    assert status == code << 8


def test_init_is_a_child_of_the_worker(worker, engine, make_spec, busybox_rootfs):
    # Whom every kernel tells exit(137) from SIGKILL.
    script = WAIT.replace("exit 7", "exit 137")
    launched = worker.launch(engine, make_spec(["sh", "-c", script]), busybox_rootfs)
    pid = worker.expect(w.Started, launched).identity.pid
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    assert int(parent) == worker.process.pid
    assert launched.stdio.read_line() == "ready"
    assert worker.kill(launched, signal.SIGTERM) is None
    assert worker.expect(w.Exited, launched).status == 137 << 8


def test_each_step_of_a_start_is_told(worker, engine, make_spec, busybox_rootfs):
    launched = worker.launch(engine, make_spec(["true"]), busybox_rootfs)
    steps = worker.expect(w.Started, launched).phases_us
    waited_for = () if engine == "runsc" else ("execute",)
    assert tuple(steps) == ("mounts", "cgroup", "create", "start", *waited_for)
    assert min(steps.values()) >= 0
    worker.expect(w.Exited, launched)


@pytest.mark.parametrize("signo", [9, 15])
def test_signal_is_the_raw_wait_status(worker, engine, make_spec, busybox_rootfs, signo):
    # PID 1 is spared every signal that it has no handler for, but from outside not SIGKILL.
    launched = worker.launch(engine, make_spec(["sh", "-c", WAIT]), busybox_rootfs)
    started = worker.expect(w.Started, launched)
    assert started.identity.start_ticks > 0
    assert launched.stdio.read_line() == "ready"
    assert worker.kill(launched, signo) is None
    exited = worker.expect(w.Exited, launched)
    assert exited.status == (9 if signo == 9 else 7 << 8)


def test_signal_for_everyone(worker, engine, make_spec, busybox_rootfs):
    child = "(trap 'exit 0' USR1; echo ready; while :; do sleep 0.05; done) &"
    script = f"trap : USR1; {child} wait; wait; exit 5"
    launched = worker.launch(engine, make_spec(["sh", "-c", script]), busybox_rootfs)
    worker.expect(w.Started, launched)
    assert launched.stdio.read_line() == "ready"
    assert worker.kill(launched, signal.SIGUSR1, everyone=True) is None
    assert worker.expect(w.Exited, launched).status == 5 << 8


def test_signal_for_a_container_that_is_gone(worker, make_spec, busybox_rootfs):
    launched = worker.launch("crun", make_spec(["true"]), busybox_rootfs)
    worker.expect(w.Exited, launched)
    assert worker.kill(launched, 9) == errno.ESRCH


@pytest.mark.parametrize(("program", "number"), [("/nope", 2), ("nope", 2), ("/etc/passwd", 13)])
def test_program_that_cannot_be_executed(
    worker, engine, make_spec, busybox_rootfs, program, number
):
    failed = worker.fail(engine, make_spec([program]), busybox_rootfs)
    assert (failed.stage, failed.errno) == ("exec", number)
    assert program in failed.reason


def test_environment_directory_and_hostname(worker, engine, make_spec, busybox_rootfs):
    process = {"cwd": "/etc", "env": ["PATH=/bin", "COLOUR=blue=green", "EMPTY="]}
    process["args"] = ["sh", "-c", "pwd; env | sort; hostname; readlink /proc/self/cwd"]
    status, output = worker.run(engine, make_spec([], process=process), busybox_rootfs)
    lines = output.splitlines()
    assert status == 0
    assert lines[0] == lines[-1] == "/etc"
    assert {"COLOUR=blue=green", "EMPTY="} <= set(lines)
    assert "sandbox" in lines
    assert not [line for line in lines if line.startswith(("LC_ALL", "HOME=/root"))]


def test_env_values_are_in_no_failure_and_on_no_disk(own_worker, make_spec, busybox_rootfs):
    process = {"args": ["/nope"], "env": ["SECRET=hunter2"], "cwd": "/"}
    for engine in ("crun", "runc", "bwrap"):
        failed = own_worker.fail(engine, make_spec([], process=process), busybox_rootfs)
        assert "hunter2" not in failed.reason
    files = [path for path in own_worker.state.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"hunter2" in path.read_bytes()]


def test_unknown_engine_and_bad_spec(worker, make_spec, busybox_rootfs):
    failed = worker.fail("podman", make_spec(["true"]), busybox_rootfs)
    assert (failed.stage, "podman" in failed.reason) == ("create", True)
    failed = worker.fail("crun", {"process": {"args": 1}}, busybox_rootfs)
    assert (failed.stage, "args" in failed.reason) == ("create", True)
    failed = worker.fail("crun", make_spec([]), busybox_rootfs)
    assert "process.args" in failed.reason
    failed = worker.fail("crun", make_spec(["true"]), busybox_rootfs, engine_id="../x")
    assert "32 hexadecimal digits" in failed.reason


def test_what_an_engine_lacks_is_refused_by_name(worker, make_spec, busybox_rootfs):
    spec = make_spec(["true"], linux={"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}})
    failed = worker.fail("bwrap", spec, busybox_rootfs)
    assert (failed.stage, failed.reason) == ("create", "bwrap cannot give seccomp")


@pytest.fixture
def leaky_worker(tmp_path, own_worker_type):
    """A worker that was started with open directories of the host."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    harness = own_worker_type(state)
    leaks = [os.open(path, os.O_RDONLY) for path in ("/", "/etc", "/etc/passwd")]
    try:
        harness.start(pass_fds=leaks)
        yield harness
    finally:
        harness.stop()
        for leak in leaks:
            os.close(leak)


def test_descriptors_in_a_container_are_its_streams_alone(
    leaky_worker, engine, make_spec, busybox_rootfs
):
    leaky_worker.send(w.Hold(hold_id="h"), [OwnedFd(os.open("/", os.O_RDONLY))])
    extra = [OwnedFd(os.open("/", os.O_RDONLY)) for _ in range(3)]
    spec = make_spec(["ls", "/proc/self/fd"])
    status, output = leaky_worker.run(engine, spec, busybox_rootfs, extra=extra)
    # 3 is the directory that ls itself has open.
    assert (status, output.split()) == (0, ["0", "1", "2", "3"])
    leaky_worker.send(w.Release(hold_id="h"))


def test_limits_are_those_of_the_spec(worker, engine, make_spec, busybox_rootfs):
    process = {"args": ["sh", "-c", "ulimit -n; grep CapBnd /proc/self/status || true"]}
    process |= {"cwd": "/", "env": ["PATH=/bin"]}
    process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
    status, output = worker.run(engine, make_spec([], process=process), busybox_rootfs)
    assert (status, output.splitlines()[0]) == (0, "100")


def test_capabilities_are_those_of_the_spec(worker, engine, make_spec, busybox_rootfs):
    names = ["CAP_CHOWN", "CAP_KILL"]
    sets = ("bounding", "effective", "permitted", "inheritable")
    process = {"args": ["cat", "/proc/self/status"], "cwd": "/", "env": ["PATH=/bin"]}
    process["capabilities"] = dict.fromkeys(sets, names)
    status, output = worker.run(engine, make_spec([], process=process), busybox_rootfs)
    assert status == 0
    found = dict(line.split(":\t") for line in output.splitlines() if line.startswith("Cap"))
    assert int(found["CapEff"], 16) == 0x21


def test_resources_are_limited_and_oom_is_told(worker, engine, make_spec, busybox_rootfs):
    if engine == "runsc":
        pytest.skip("the memory of a gVisor sandbox is its kernel's, too")
    resources = {"memory": {"limit": 16 << 20}, "pids": {"limit": 20}}
    script = "a=0123456789abcdef; while :; do a=$a$a$a$a; done"
    spec = make_spec(["sh", "-c", script], linux={"resources": resources})
    launched = worker.launch(engine, spec, busybox_rootfs)
    worker.expect(w.Started, launched)
    exited = worker.expect(w.Exited, launched)
    assert (exited.status, exited.oom) == (9, True)


def test_a_limit_of_processes_is_the_containers_alone(worker, engine, make_spec, busybox_rootfs):
    if engine == "runsc":
        pytest.skip("a gVisor sandbox has processes of its kernel's, too")
    script = "for i in 1 2 3 4 5 6; do sleep 600 & echo forked; done"
    spec = make_spec(["sh", "-c", script], linux={"resources": {"pids": {"limit": 4}}})
    _, output = worker.run(engine, spec, busybox_rootfs)
    assert output.count("forked") == 3


def test_a_host_device_cannot_be_opened(worker, engine, make_spec, busybox_rootfs):
    if engine == "runsc":
        pytest.skip("gVisor has no devices of the host")
    sets = ("bounding", "effective", "permitted", "inheritable")
    names = ("CAP_MKNOD", "CAP_DAC_OVERRIDE")
    process = {"cwd": "/", "env": ["PATH=/bin"]}
    process["args"] = ["sh", "-c", "busybox mknod /dev/sda b 254 0; cat /dev/sda >/dev/null"]
    process["capabilities"] = dict.fromkeys(sets, names)
    spec = make_spec([], process=process)
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        # Rules for devices are kept by version 1 of control groups.
        assert worker.fail(engine, spec, busybox_rootfs).reason == f"{engine} cannot give mknod"
        return
    status, output = worker.run(engine, spec, busybox_rootfs)
    assert status != 0
    assert "can't open '/dev/sda'" in output
    assert "Operation not permitted" in output or "Permission denied" in output
