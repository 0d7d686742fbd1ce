"""Waiting until a process has executed the program that it was made for."""

import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from manager.worker import executing
from manager.worker.executing import program_of, until_executed
from manager.worker.phases import Phases

if TYPE_CHECKING:
    from manager.worker.engine import Running

GONE = 2**31 - 1
"""Beyond every pid. Source: proc_sys_kernel(5), pid_max."""


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A shell that becomes another program when it has read a line."""
    command = ["sh", "-c", "echo; read line; exec sleep 600"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()  # it is a shell by now
        yield shell
        shell.kill()


def waiting_for(pid: int, engine_program: bytes, phases: Phases) -> Iterator[object]:
    running = SimpleNamespace(pid=pid, engine_program=engine_program)
    return until_executed(cast("Running", running), phases)


def test_it_is_waited_for_until_it_executes(process: subprocess.Popen[bytes]) -> None:
    shell = program_of(process.pid)
    phases = Phases()
    waiting = waiting_for(process.pid, shell, phases)
    for _ in range(3):
        next(waiting)
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    while program_of(process.pid) == shell:
        pass
    assert list(waiting) == []
    assert list(phases.laps_us) == ["execute"]


def test_who_is_dead_or_may_not_be_looked_at_is_not_waited_for(
    process: subprocess.Popen[bytes],
) -> None:
    shell = program_of(process.pid)
    process.kill()
    process.wait()
    assert list(waiting_for(process.pid, shell, Phases())) == []
    assert program_of(GONE) == b""
    phases = Phases()
    assert list(waiting_for(GONE, b"", phases)) == []
    assert phases.laps_us == {}, "nothing was waited for"


def test_who_never_executes_is_not_waited_for_for_ever(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executing, "EXECUTED_SECONDS", 0.005)
    assert len(list(waiting_for(process.pid, program_of(process.pid), Phases()))) == 5
