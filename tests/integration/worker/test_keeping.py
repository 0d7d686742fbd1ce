"""The keeper, told of many processes at once."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from manager.kernel.pidfd import open_pidfd
from manager.urpc.unix_address import connect_unix
from manager.worker.keeping import SOCKET_NAME, Keeping
from manager.worker.loop import Loop
from manager.worker.processes import Processes

MANY = 600
"""More than the kernel takes for a reader that does not read."""


@pytest.fixture
def processes() -> Iterator[Processes]:
    before = signal.getsignal(signal.SIGCHLD)
    with contextlib.closing(Loop()) as loop, contextlib.closing(Processes(loop)) as children:
        yield children
    signal.signal(signal.SIGCHLD, before)


def test_a_keeper_that_is_slow_is_waited_for(processes: Processes, tmp_path: Path) -> None:
    first = Keeping(tmp_path, processes)
    assert first.open() == {}
    with open_pidfd(os.getpid()) as handle:
        for number in range(MANY):  # it has not even begun to listen
            first.keep(f"launch-{number}", handle)
    second = Keeping(tmp_path, processes)
    kept = second.open()
    assert len(kept) == MANY
    for name, pidfd in kept.items():
        pidfd.close()
        second.drop(name)
    second.close()
    first.close()


def test_a_keeper_that_has_left_is_not_replaced_by_who_leaves(
    processes: Processes, tmp_path: Path
) -> None:
    first, second = Keeping(tmp_path, processes), Keeping(tmp_path, processes)
    with open_pidfd(os.getpid()) as handle:
        first.open()
        first.keep("launch", handle)
        [kept] = second.open().values()
        kept.close()
    second.drop("launch")
    second.close()
    while listens(tmp_path):
        time.sleep(0.01)
    first.close()  # what it had lent is closed by now
    assert not listens(tmp_path)


def listens(directory: Path) -> bool:
    try:
        connect_unix(directory / SOCKET_NAME, kind=socket.SOCK_SEQPACKET).close()
    except ConnectionRefusedError:
        return False
    return True
