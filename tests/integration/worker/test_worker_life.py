"""The worker over time: managers that come and go, commands twice, its death, what it leaves."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import msgspec
import pytest

from manager.domain.payload import LaunchPlan, LayerPlan
from manager.schema import worker as w
from manager.urpc.fds import OwnedFd
from manager.worker.adoption import kill_engine_processes
from manager.worker.turns import LAUNCHES_IN_FLIGHT_MAX
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime

LOOP = "echo ready; while :; do sleep 0.05; done"


def start(worker, engine, spec, root, **command):
    launched = worker.launch(engine, spec, root, **command)
    started = worker.expect(w.Started, launched)
    return launched, started


def namespaces(pid, *names):
    return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in names}


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def wait_for_traces(worker, before):
    deadline = time.monotonic() + PATIENCE_S
    while (now := worker.traces()) != before:
        if time.monotonic() > deadline:
            assert now == before
        time.sleep(0.01)


def test_subcontainers_share_the_namespaces_of_the_root(worker, engine, make_spec, busybox_rootfs):
    spec = make_spec(["sh", "-c", LOOP])
    root, root_started = start(worker, engine, spec, busybox_rootfs)
    sub, sub_started = start(worker, engine, spec, busybox_rootfs, sandbox=root.id)
    root_pid, sub_pid = root_started.identity.pid, sub_started.identity.pid
    shared = ("net", "ipc", "uts")
    if engine == "runsc":
        # Each container is a sandbox of its own, with its own kernel.
        assert root_pid != sub_pid
        return
    assert namespaces(root_pid, *shared) == namespaces(sub_pid, *shared)
    assert namespaces(root_pid, "pid", "mnt") != namespaces(sub_pid, "pid", "mnt")
    assert namespaces(root_pid, *shared).items().isdisjoint(namespaces("self", *shared).items())
    joined, started = start(
        worker, engine, spec, busybox_rootfs, sandbox=root.id, pid_namespace=sub.id
    )
    assert namespaces(started.identity.pid, "pid") == namespaces(sub_pid, "pid")
    # The end of a namespace's init is the end of everybody in it.
    assert worker.kill(sub, 9) is None
    assert worker.expect(w.Exited, sub).status == 9
    assert worker.expect(w.Exited, joined).status == 9
    assert worker.kill(root, 9) is None
    worker.expect(w.Exited, root)


def test_what_a_joined_container_leaves_in_a_shared_pid_namespace_ends_with_it(
    worker, make_spec, busybox_rootfs
):
    root, started = start(worker, "crun", make_spec(["sh", "-c", LOOP]), busybox_rootfs)
    spec = make_spec(["sh", "-c", "sleep 1000 & echo $!; exit 4"])
    joined = worker.launch("crun", spec, busybox_rootfs, sandbox=root.id, pid_namespace=root.id)
    worker.expect(w.Started, joined)
    assert worker.expect(w.Exited, joined).status == 4 << 8
    worker.destroy(joined)
    seen = Path("/proc", str(started.identity.pid), "root", "proc")
    assert seen.is_dir()
    left = seen / joined.stdio.read_line()
    wait_until(lambda: not left.exists())  # it is dead, and the init there has yet to reap it


@pytest.mark.parametrize("which", ["sandbox", "pid_namespace"])
def test_joining_what_is_gone(worker, make_spec, busybox_rootfs, which):
    failed = worker.fail("crun", make_spec(["true"]), busybox_rootfs, **{which: "nobody"})
    assert (failed.stage, "is gone" in failed.reason) == ("namespaces", True)


def test_held_descriptors_and_spec_start_a_root_container(
    worker, make_spec, busybox_rootfs, tree, stdio_type, encode_spec
):
    stdio = stdio_type()
    spec = encode_spec(make_spec(["echo", "held"]))
    worker.send(w.Hold(hold_id="hold-1", spec=spec), [*stdio.take(), tree(busybox_rootfs)])
    worker.expect(w.Held, "hold-1")
    plan = LaunchPlan(stdio=(0, 1, 2), root=LayerPlan(lower="lisafs", lower_fd=3))
    launched = worker.launch_raw("crun", None, plan, [], held_fds="hold-1")
    worker.expect(w.Started, launched)
    assert worker.expect(w.Exited, launched).status == 0
    assert stdio.read_all() == "held\n"
    again = worker.launch_raw("crun", None, plan, [], held_fds="hold-1")
    assert worker.expect(w.StartFailed, again).stage == "hold"


def test_release_closes_what_is_held(own_worker):
    read_end, write_end = os.pipe()
    own_worker.send(w.Hold(hold_id="h"), [OwnedFd(write_end)])
    own_worker.expect(w.Held, "h")
    assert own_worker.connect().welcome.held == ("h",)
    own_worker.send(w.Release(hold_id="h"))
    own_worker.send(w.Release(hold_id="unknown"))
    with OwnedFd(read_end):
        assert os.read(read_end, 1) == b""
    assert own_worker.connect().welcome.held == ()


def test_outcomes_wait_for_the_next_manager(own_worker, make_spec, busybox_rootfs):
    own_worker.connect(acknowledge=False)
    launched, started = start(own_worker, "crun", make_spec(["sh", "-c", LOOP]), busybox_rootfs)
    own_worker.conversation.close()
    os.kill(started.identity.pid, signal.SIGKILL)
    time.sleep(0.1)
    for _ in range(2):
        conversation = own_worker.connect(acknowledge=False)
        again = conversation.expect(w.Started, launched.id)
        exited = conversation.expect(w.Exited, launched.id)
        assert (again, exited.status, exited.source) == (started, 9, "waitid")
    conversation.send(w.Ack(seq=exited.seq))
    conversation = own_worker.connect()
    conversation.send(w.Hold(hold_id="marker"))
    assert conversation.expect(w.Held, "marker").seq > exited.seq
    assert conversation.outcomes == []
    conversation.send(w.Release(hold_id="marker"))


def test_a_later_manager_replaces_an_earlier_one(own_worker, make_spec, busybox_rootfs):
    first = own_worker.conversation
    own_worker.conversation = None
    own_worker.connect()
    assert first.closed()
    first.close()
    assert own_worker.run("crun", make_spec(["true"]), busybox_rootfs)[0] == 0


def test_a_manager_that_breaks_the_protocol_is_cut_off(own_worker, make_spec, busybox_rootfs):
    own_worker.conversation._frames.send(b"\xc1 is no msgpack")
    assert own_worker.conversation.closed()
    own_worker.connect()
    assert own_worker.run("crun", make_spec(["true"]), busybox_rootfs)[0] == 0


def test_the_same_launch_twice_starts_once(worker, make_spec, busybox_rootfs, tmp_path):
    root = {"path": "/", "readonly": False}
    spec = make_spec(["sh", "-c", "echo x >> /tmp/starts"], root=root)
    (busybox_rootfs / "tmp/starts").unlink(missing_ok=True)
    launched = worker.launch("crun", spec, busybox_rootfs)
    for _ in range(3):
        worker.launch(
            "crun",
            spec,
            busybox_rootfs,
            launch_id=launched.id,
            engine_id=launched.engine_id,
        ).stdio.out.close()
    assert worker.expect(w.Exited, launched).status == 0
    worker.destroy(launched)
    assert (busybox_rootfs / "tmp/starts").read_text() == "x\n"


def test_destroy_in_every_phase(worker, engine, make_spec, busybox_rootfs):
    running, _ = start(worker, engine, make_spec(["sh", "-c", LOOP]), busybox_rootfs)
    assert worker.destroy(running).leftovers == ()
    assert worker.expect(w.Exited, running).status == 9
    assert worker.destroy(running).leftovers == ()
    ended = worker.launch(engine, make_spec(["true"]), busybox_rootfs)
    worker.expect(w.Exited, ended)
    assert worker.destroy(ended).leftovers == ()


@pytest.mark.parametrize("delay_ms", [0, 3, 8, 15, 40, 100])
def test_destroy_while_it_starts(own_worker, engine, make_spec, busybox_rootfs, delay_ms):
    before = own_worker.traces_at_rest()
    launched = own_worker.launch(engine, make_spec(["sh", "-c", LOOP]), busybox_rootfs)
    time.sleep(delay_ms / 1000)
    assert own_worker.destroy(launched).leftovers == ()
    kinds = [type(each).__name__ for each in own_worker.conversation.outcomes]
    assert kinds in (["StartFailed"], ["Started", "Exited"])
    launched.stdio.out.close()
    wait_for_traces(own_worker, before)


def test_destroy_of_a_launch_in_the_queue(own_worker, make_spec, busybox_rootfs):
    spec = make_spec(["sh", "-c", LOOP])
    launched = [own_worker.launch("runc", spec, busybox_rootfs) for _ in range(16)]
    for each in reversed(launched):
        own_worker.send(w.Destroy(launch_id=each.id))
    for each in launched:
        assert own_worker.expect(w.Destroyed, each).leftovers == ()
    failed = [each for each in own_worker.conversation.outcomes if isinstance(each, w.StartFailed)]
    assert failed
    assert {each.stage for each in failed} == {"aborted"}


def test_archives_that_never_come_hold_up_nobody_else(own_worker, make_spec, busybox_rootfs):
    spec = make_spec(["sh", "-c", LOOP])

    def root_plan(fd):
        return LayerPlan(lower="lisafs", lower_fd=fd, upper="memory", size="1m")

    launched, pipes = [], []
    for _ in range(LAUNCHES_IN_FLIGHT_MAX + 1):
        read_end, write_end = map(OwnedFd, os.pipe2(os.O_CLOEXEC))
        pipes.append(write_end)
        waits = own_worker.launch(
            "crun",
            spec,
            busybox_rootfs,
            root_plan=root_plan,
            extra=[read_end],
            plan={"upper_tar_fd": 4},
        )
        launched.append(waits)
    assert own_worker.run("crun", make_spec(["true"]), busybox_rootfs) == (0, "")
    for each in launched:
        own_worker.send(w.Destroy(launch_id=each.id))
    for each in launched:
        assert own_worker.expect(w.Destroyed, each).leftovers == ()
    for write_end in pipes:
        write_end.close()


def test_nothing_is_left_after_many_launches(own_worker, make_spec, busybox_rootfs, filestore_tree):
    spec = make_spec(["true"])
    own_worker.destroy(own_worker.launch("crun", spec, busybox_rootfs))
    own_worker.tidy()
    before = own_worker.traces_at_rest()
    launched = []
    for index in range(60):
        engine = ("crun", "bwrap", "crun", "runc")[index % 4]
        program = ["/nope"] if index % 5 == 0 else ["true"]

        def root_plan(fd, index=index):
            upper = ("none", "memory", "self")[index % 3]
            filestore = 4 if upper == "self" else None
            return LayerPlan(lower="lisafs", lower_fd=fd, upper=upper, filestore_fd=filestore)

        launched.append(
            own_worker.launch(
                engine,
                make_spec(program),
                busybox_rootfs,
                root_plan=root_plan,
                extra=[filestore_tree(index)],
            )
        )
    for index, each in enumerate(launched):
        kind = w.StartFailed if index % 5 == 0 else w.Exited
        own_worker.expect(kind, each)
        assert own_worker.destroy(each).leftovers == ()
        each.stdio.out.close()
    wait_for_traces(own_worker, before)


@pytest.fixture
def filestore_tree(tmp_path, tree):
    def make(index):
        store = tmp_path / f"store-{index}"
        store.mkdir()
        return tree(store)

    return make


def test_runsc_leaves_nothing(own_worker, make_spec, busybox_rootfs):
    before = own_worker.traces_at_rest()
    for program in ("true", "/nope", "true"):
        launched = own_worker.launch("runsc", make_spec([program]), busybox_rootfs)
        own_worker.expect(w.StartFailed if program == "/nope" else w.Exited, launched)
        own_worker.destroy(launched)
        launched.stdio.out.close()
    wait_for_traces(own_worker, before)


def test_containers_survive_the_worker_and_are_taken_over(
    own_worker, engine, make_spec, busybox_rootfs
):
    before = own_worker.traces_at_rest()
    script = "trap 'exit 42' TERM; " + LOOP
    launched, started = start(own_worker, engine, make_spec(["sh", "-c", script]), busybox_rootfs)
    assert launched.stdio.read_line() == "ready"
    own_worker.process.kill()
    own_worker.process.wait()
    own_worker.start()
    (fact,) = own_worker.conversation.welcome.launches
    assert (fact.launch_id, fact.phase) == (launched.id, "running")
    assert fact.identity == started.identity
    assert own_worker.kill(launched, signal.SIGTERM) is None
    exited = own_worker.expect_orphans_end(launched, 42 << 8)
    # Whether it is read before or after its new parent has reaped it is that parent's affair.
    by_kernel = {"pidfd-info", "proc-stat", "unknown"}
    assert exited.source in ({"engine"} if engine == "runsc" else by_kernel)
    assert own_worker.destroy(launched).leftovers == ()
    launched.stdio.out.close()
    wait_until(lambda: own_worker.traces()["cgroups"] == before["cgroups"])
    after = own_worker.traces()
    assert after["records"] == after["engine-state"] == []


@pytest.mark.parametrize("kept", [True, False])
def test_a_container_that_ended_unseen(own_worker, make_spec, busybox_rootfs, kept):
    launched, started = start(own_worker, "crun", make_spec(["sh", "-c", LOOP]), busybox_rootfs)
    if not kept:
        os.kill(own_worker.keeper_pid(), signal.SIGKILL)
    own_worker.process.kill()
    own_worker.process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.kill(started.identity.pid, signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{started.identity.pid}"))
    own_worker.start()
    if kept:
        exited = own_worker.expect_orphans_end(launched, signal.SIGKILL)
    else:
        exited = own_worker.expect(w.Exited, launched)
        assert exited.status is None
    assert exited.source == ("unknown" if exited.status is None else "pidfd-info")
    wait_until(lambda: own_worker.traces()["records"] == [])


def test_a_start_that_a_killed_worker_left(own_worker, engine, make_spec, busybox_rootfs):
    launched = own_worker.launch(engine, make_spec(["sh", "-c", LOOP]), busybox_rootfs)
    record = own_worker.state / "worker/launches" / launched.engine_id
    wait_until(record.exists)
    own_worker.process.kill()
    own_worker.process.wait()
    own_worker.start()
    own_worker.send(w.Destroy(launch_id=launched.id))
    own_worker.expect(w.Destroyed, launched)
    traces = own_worker.traces()
    assert traces["records"] == traces["engine-state"] == []
    assert not [path for path in traces["cgroups"] if launched.engine_id in path]


def test_stop_waits_for_containers_and_the_next_worker_tells_their_ends(
    own_worker, make_spec, busybox_rootfs
):
    launched, started = start(own_worker, "crun", make_spec(["sh", "-c", LOOP]), busybox_rootfs)
    conversation = own_worker.connect(acknowledge=False)
    conversation.send(w.Stop())
    os.kill(own_worker.pid, signal.SIGTERM)
    assert own_worker.run_is_alive(0.2)
    os.kill(started.identity.pid, signal.SIGKILL)
    exited = conversation.expect(w.Exited, launched.id)
    assert own_worker.process.wait(PATIENCE_S) == 0
    assert not own_worker.socket.exists()
    own_worker.start()
    told = own_worker.conversation.expect(w.Exited, launched.id)
    assert told == msgspec.structs.replace(exited, seq=told.seq)
    launched.stdio.out.close()


def test_stop_waits_while_something_is_held(own_worker, make_spec):
    conversation = own_worker.connect(acknowledge=False)
    hold = w.Hold(hold_id="h", spec=msgspec.json.encode(make_spec(["true"])))
    read_end, write_end = map(OwnedFd, os.pipe2(os.O_CLOEXEC))
    conversation.send(hold, [write_end])
    conversation.expect(w.Held, "h")
    conversation.send(w.Stop())
    with read_end:
        assert own_worker.run_is_alive(0.2)
        conversation.send(w.Release(hold_id="h"))
        conversation.send(w.Stop())
        assert own_worker.process.wait(PATIENCE_S) == 0


def test_a_second_word_of_a_destroy_keeps_no_worker(own_worker):
    conversation = own_worker.connect(acknowledge=False)
    conversation.send(w.Destroy(launch_id="destroyed-before"))
    conversation.expect(w.Destroyed, "destroyed-before")
    conversation.send(w.Stop())
    assert own_worker.process.wait(PATIENCE_S) == 0


def test_the_last_word_of_a_manager_is_heard_though_it_hears_no_answer(own_worker):
    """It has gone by the time that the worker answers what it said before."""
    os.kill(own_worker.pid, signal.SIGSTOP)
    own_worker.send(w.Kill(kill_id="k", launch_id="nobody", signo=9, durable=False))
    own_worker.send(w.Stop())
    own_worker.hang_up()
    os.kill(own_worker.pid, signal.SIGCONT)
    assert own_worker.process.wait(PATIENCE_S) == 0


def test_sigterm_ends_an_idle_worker(own_worker):
    os.kill(own_worker.pid, signal.SIGTERM)
    assert own_worker.process.wait(PATIENCE_S) == 0


def test_one_worker_to_a_directory(own_worker, repository):
    second = subprocess.run(
        [sys.executable, "-m", "manager.worker", "--state", str(own_worker.state)],
        cwd=repository,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert second.returncode == 1
    assert "another worker serves" in second.stderr


def test_the_socket_is_its_owners_alone(own_worker):
    assert own_worker.socket.stat().st_mode & 0o777 == 0o600


def test_an_engine_that_a_killed_worker_left_at_work_is_ended():
    engine_id = uuid.uuid4().hex
    working = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)", engine_id])
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)", f"{engine_id}x"])
    try:
        wait_until(lambda: engine_id in (proc_arguments(working.pid)))
        wait_until(lambda: f"{engine_id}x" in proc_arguments(other.pid))
        kill_engine_processes(engine_id)
        assert working.wait(PATIENCE_S) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        for process in (working, other):
            process.kill()
            process.wait()


def proc_arguments(pid):
    with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
        return file.read().split("\0")


def test_an_init_that_died_before_its_start_is_not_waited_for(
    tmp_path, own_worker_type, make_spec, busybox_rootfs
):
    state, program = tmp_path / "state", tmp_path / "crun"
    state.mkdir()
    program.write_text(
        f"""#!/bin/sh
        {shutil.which("crun")} "$@" || exit
        for word in "$@"; do
            [ "$last" = --pid-file ] && pid=$(cat "$word")
            last=$word
        done
        [ -z "$pid" ] && exit
        kill -9 "$pid"
        while grep -q "^State:.[^ZX]" "/proc/$pid/status" 2>/dev/null; do :; done
        """
    )
    program.chmod(0o755)
    worker = own_worker_type(state)
    try:
        worker.start("--engine-path", f"crun={program}")
        failed = worker.fail("crun", make_spec(["sleep", "600"]), busybox_rootfs)
        # Who notices depends on whether init was born in its cgroup, or has to be moved there.
        assert (failed.stage, failed.reason) in {
            ("create", "crun: init does not wait to be started: No such device or address"),
            ("cgroup", "cannot join the cgroup: No such process"),
        }
    finally:
        worker.stop()


@pytest.mark.parametrize("hooks", [False, True])
def test_crun_is_run_once_unless_hooks_are_its_business(
    tmp_path, own_worker_type, make_spec, busybox_rootfs, hooks
):
    asked = tmp_path / "asked"
    program = tmp_path / "crun"
    program.write_text(f'#!/bin/sh\necho "$@" >> {asked}\nexec {shutil.which("crun")} "$@"\n')
    program.chmod(0o755)
    state = tmp_path / "state"
    state.mkdir()
    worker = own_worker_type(state)
    try:
        worker.start("--engine-path", f"crun={program}")
        asked.write_text("")
        # It is told the container's state, and must read that.
        hook = {"poststart": [{"path": "/bin/sh", "args": ["sh", "-c", "cat > /dev/null"]}]}
        spec = make_spec(["sleep", "600"], **({"hooks": hook} if hooks else {}))
        launched = worker.launch("crun", spec, busybox_rootfs, run_hooks=hooks)
        worker.expect(w.Started, launched)
        assert worker.destroy(launched).leftovers == ()
    finally:
        worker.stop()
    verbs = {"create", "start", "delete"}
    run = [verbs.intersection(line.split()) for line in asked.read_text().splitlines()]
    assert run == ([{"create"}, {"start"}, {"delete"}] if hooks else [{"create"}])
