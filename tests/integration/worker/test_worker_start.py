"""A container per engine: its output, its exit status, its failures."""

import pytest

from manager.schema import worker as w

pytestmark = pytest.mark.runtime


def test_output_of_a_donated_pipe_arrives(worker, engine, make_spec, busybox_rootfs):
    status, output = worker.run(engine, make_spec(["sh", "-c", "echo hello"]), busybox_rootfs)
    assert (status, output) == (0, "hello\n")
