"""A container per engine: its output, its exit status, its failures."""

import pytest

pytestmark = pytest.mark.runtime


def test_output_of_a_donated_pipe_arrives(worker, engine, make_spec, busybox_rootfs):
    status, output = worker.run(engine, make_spec(["sh", "-c", "echo hello"]), busybox_rootfs)
    assert (status, output) == (0, "hello\n")


@pytest.mark.parametrize(
    ("command", "expected"), [("exit 3", 3 << 8), ("kill -9 $$", 9), ("kill -15 $$", 0)]
)
def test_exit_status_is_the_raw_wait_status(
    worker, engine, make_spec, busybox_rootfs, command, expected
):
    # PID 1 ignores signals that it has not asked for: even SIGKILL, if it sends it to itself.
    script = f"sh -c '{command}'; exit $?" if "kill" in command else command
    status, _ = worker.run(engine, make_spec(["sh", "-c", script]), busybox_rootfs)
    assert status == expected
