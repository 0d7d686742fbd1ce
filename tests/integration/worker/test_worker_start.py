"""A container per engine: its output, its exit status, its failures."""

import pytest

from manager.schema import worker as w

pytestmark = pytest.mark.runtime


def test_output_of_a_donated_pipe_arrives(worker, engine, make_spec, busybox_rootfs):
    status, output = worker.run(engine, make_spec(["sh", "-c", "echo hello"]), busybox_rootfs)
    assert (status, output) == (0, "hello\n")


@pytest.mark.parametrize("code", [0, 3, 255])
def test_exit_code(worker, engine, make_spec, busybox_rootfs, code):
    status, _ = worker.run(engine, make_spec(["sh", "-c", f"exit {code}"]), busybox_rootfs)
    assert status == code << 8


@pytest.mark.parametrize("signo", [9, 15])
def test_signal_is_the_raw_wait_status(worker, engine, make_spec, busybox_rootfs, signo):
    # PID 1 is spared every signal that it has no handler for, but from outside not SIGKILL.
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    launched = worker.launch(engine, make_spec(["sh", "-c", script]), busybox_rootfs)
    worker.expect(w.Started, launched)
    assert launched.stdio.read_line() == "ready"
    worker.send(w.Kill(kill_id="k1", launch_id=launched.id, signo=signo))
    assert worker.expect(w.Killed, "k1").errno is None
    exited = worker.expect(w.Exited, launched)
    assert exited.status == (9 if signo == 9 else 7 << 8)


@pytest.mark.parametrize(("program", "number"), [("/nope", 2), ("nope", 2), ("/etc/passwd", 13)])
def test_program_that_cannot_be_executed(
    worker, engine, make_spec, busybox_rootfs, program, number
):
    failed = worker.fail(engine, make_spec([program]), busybox_rootfs)
    assert (failed.stage, failed.errno) == ("exec", number)
    assert program in failed.reason
