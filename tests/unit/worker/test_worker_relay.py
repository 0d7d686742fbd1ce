"""The process between two terminals, as workers of this version and before start it."""

import os
import pty
import subprocess
import sys
import termios

import pytest

from manager.worker import relay
from tests.patience import PATIENCE_S

LOCAL_MODES = 3
"""Their place in what tcgetattr gives. Source: the library reference of termios."""


@pytest.mark.parametrize("is_older", [False, True])
def test_the_clients_terminal_is_raw_meanwhile_and_then_as_it_was(is_older: bool) -> None:
    (client, donated), (master, slave) = pty.openpty(), pty.openpty()
    before = termios.tcgetattr(donated)
    settings = [] if is_older else [relay.make_raw(donated).hex()]
    command = [sys.executable, "-I", relay.__file__, str(donated), str(master), *settings]
    with subprocess.Popen(command, pass_fds=(donated, master)) as process:
        os.write(slave, b"hello")
        assert os.read(client, 100) == b"hello"
        assert not termios.tcgetattr(donated)[LOCAL_MODES] & termios.ECHO
        os.close(slave)  # as the last process of the container
        assert process.wait(PATIENCE_S) == 0
    assert termios.tcgetattr(donated) == before
    for each in (client, donated, master):
        os.close(each)
