"""What a process wrote on its terminal before it ended, and a reader who takes its time."""

import os
import threading
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import pytest

from manager.cli import exec_terminal
from manager.cli.exec_terminal import CHUNK_BYTES, ExecTerminal

TAIL: Final = b"x" * 3000
SILENCE_S: Final = 0.2


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as long as somebody at a terminal would wait, nor as much."""
    monkeypatch.setattr(exec_terminal, "LAST_WORDS_S", SILENCE_S)
    monkeypatch.setattr(exec_terminal, "LAST_WORDS_BYTES", 2 * CHUNK_BYTES)


async def carried(terminal: ExecTerminal) -> None:
    """As the command does once the process has ended."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(terminal.carry_out)
        await terminal.last_words()
        tasks.cancel_scope.cancel()


async def test_a_reader_that_stalls_gets_all_in_the_end() -> None:
    read, write = os.pipe()
    before = fill(write)
    with ExecTerminal(None, write) as terminal:
        with terminal.lent() as slave:
            os.write(slave, TAIL)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(carried, terminal)
            await anyio.sleep(2 * SILENCE_S)  # as long as it took to lose them
            taken = await anyio.to_thread.run_sync(os.read, read, before)
    os.close(write)
    with open(read, "rb") as rest:
        assert taken + rest.read() == b"." * before + TAIL


async def test_who_keeps_the_terminal_and_is_silent_is_not_waited_for(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        out.open("wb") as file,
        ExecTerminal(None, file.fileno()) as terminal,
        terminal.lent() as slave,
    ):
        os.write(slave, TAIL)
        await carried(terminal)
    assert out.read_bytes() == TAIL


async def test_nor_who_keeps_it_and_goes_on_for_ever(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with out.open("wb") as file, ExecTerminal(None, file.fileno()) as terminal:
        with terminal.lent() as slave:
            kept = os.dup(slave)
        writer = threading.Thread(target=write_on, args=(kept,))
        writer.start()
        await carried(terminal)
    writer.join()
    assert out.stat().st_size == exec_terminal.LAST_WORDS_BYTES


def fill(pipe: int) -> int:
    """Write until it takes no more; returns how many bytes."""
    os.set_blocking(pipe, False)
    written = 0
    try:
        while True:
            written += os.write(pipe, b"." * CHUNK_BYTES)
    except BlockingIOError:
        return written


def write_on(slave: int) -> None:
    """Write until the terminal is hung up."""
    try:
        while True:
            os.write(slave, TAIL)
    except OSError:
        os.close(slave)
