"""A donated terminal becomes the controlling terminal of a container's init."""

import fcntl
import os
import select
import struct
import termios
import time

import pytest

from manager.domain.payload import LaunchPlan, LayerPlan
from manager.schema import worker as w
from manager.urpc.fds import OwnedFd
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime

PLAN = LaunchPlan(stdio=None, root=LayerPlan(lower="lisafs", lower_fd=0))


class Terminal:
    """The client's side of a terminal."""

    def __init__(self):
        master, slave = os.openpty()
        self.master, self.slave = OwnedFd(master), OwnedFd(slave)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))

    def read_until(self, text):
        seen = b""
        deadline = time.monotonic() + PATIENCE_S
        while text not in seen:
            ready = select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0]
            assert ready, f"{text!r} did not come, only {seen!r}"
            seen += os.read(self.master.number, 4096)
        return seen.decode()

    def write(self, data):
        os.write(self.master.number, data)


@pytest.fixture
def terminal():
    terminal = Terminal()
    yield terminal
    terminal.master.close()
    terminal.slave.close()


def start(worker, engine, make_spec, terminal, root_tree, script):
    hold_id = f"tty-{time.monotonic_ns()}"
    worker.send(w.Hold(hold_id=hold_id), [terminal.slave.dup()])
    worker.expect(w.Held, hold_id)
    process = {"args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "terminal": True}
    spec = make_spec([], process=process)
    launched = worker.launch_raw(engine, spec, PLAN, [root_tree], held_tty=hold_id)
    worker.expect(w.Started, launched)
    return launched


def test_it_is_the_controlling_terminal(worker, engine, make_spec, terminal, tree, busybox_rootfs):
    script = "echo > /dev/tty ready; stty size; read line; echo got $line; exit 3"
    root = tree(busybox_rootfs)
    launched = start(worker, engine, make_spec, terminal, root, script)
    assert "33 101" in terminal.read_until(b"33 101")
    terminal.write(b"words\n")
    terminal.read_until(b"got words")
    assert worker.expect(w.Exited, launched).status == 3 << 8


def test_control_c_interrupts(worker, engine, make_spec, terminal, tree, busybox_rootfs):
    script = "trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.1; done"
    launched = start(worker, engine, make_spec, terminal, tree(busybox_rootfs), script)
    terminal.read_until(b"ready")
    terminal.write(b"\x03")
    terminal.read_until(b"interrupted")
    assert worker.expect(w.Exited, launched).status == 5 << 8


def test_its_modes_are_restored_and_its_size_followed(
    worker, make_spec, terminal, tree, busybox_rootfs
):
    before = termios.tcgetattr(terminal.slave.number)
    script = "echo ready; read line; stty size; exit 0"
    launched = start(worker, "crun", make_spec, terminal, tree(busybox_rootfs), script)
    terminal.read_until(b"ready")
    size = struct.pack("HHHH", 50, 60, 0, 0)
    fcntl.ioctl(terminal.master.number, termios.TIOCSWINSZ, size)
    time.sleep(0.6)
    terminal.write(b"\n")
    terminal.read_until(b"50 60")
    assert worker.expect(w.Exited, launched).status == 0
    assert termios.tcgetattr(terminal.slave.number) == before


def test_a_process_with_a_terminal_and_none_donated(worker, make_spec, tree, busybox_rootfs):
    launched = worker.launch_raw("crun", make_spec(["true"]), PLAN, [tree(busybox_rootfs)])
    failed = worker.expect(w.StartFailed, launched)
    assert (failed.stage, "no terminal" in failed.reason) == ("hold", True)
