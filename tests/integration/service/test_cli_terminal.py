"""``sandtrail exec -t`` where this command's own streams are no terminals."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.service.conftest import Service
from tests.integration.service.test_cli import cli
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime

LINES = "".join(f"{number}\n" for number in range(100_000)).encode()
PLAINLY = "/bin/busybox stty -echo -opost"


@pytest.fixture(autouse=True)
async def web(service: Service, rootfs: Path) -> None:
    """A container that executes what it is told to."""
    idle = ("--rootfs", str(rootfs), "--", "/bin/sleep", "600")
    assert cli(service, "run", "-d", "--name", "web", *idle).returncode == 0


@contextlib.contextmanager
def executing(service: Service, *args: str, **streams: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """A command that is ended if it has not by itself."""
    with subprocess.Popen(
        [sys.executable, "-m", "manager.cli", "exec", *args],
        env={**os.environ, "SANDTRAIL_ROOT": str(service.root)},
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        | streams,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def end_of(process: "subprocess.Popen[bytes]") -> tuple[int, bytes]:
    """Its exit code and what it says."""
    told = process.communicate(timeout=PATIENCE_S)[1]
    return process.returncode, told


def first_line(process: "subprocess.Popen[bytes]") -> bytes:
    assert process.stdout is not None
    return process.stdout.readline().strip()


async def test_a_reader_that_has_had_enough_ends_it(service: Service) -> None:
    with executing(service, "-t", "web", "/bin/busybox", "yes") as process:
        assert first_line(process) == b"y"
        assert process.stdout is not None
        process.stdout.close()
        assert end_of(process) == (141, b"")


async def test_output_that_cannot_be_written_is_an_error(service: Service) -> None:
    said = b"sandtrail: standard output: No space left on device\n"
    with (
        Path("/dev/full").open("wb") as full,
        executing(service, "-t", "web", "/bin/echo", "hi", stdout=full) as process,
    ):
        assert end_of(process) == (5, said)


async def test_more_input_than_a_terminal_holds_goes_through_it(service: Service) -> None:
    command = ("web", "/bin/sh", "-c", f"{PLAINLY}; echo ready; exec cat")
    with executing(service, "-it", *command, stdin=subprocess.PIPE) as process:
        assert first_line(process) == b"ready"
        passed_on, _ = process.communicate(LINES, timeout=PATIENCE_S)
    assert (process.returncode, passed_on == LINES) == (0, True)


@pytest.mark.parametrize("text", ["", "one\ntwo\n", "one\nhalf a line"])
async def test_input_from_a_file_ends_where_it_ends(
    service: Service, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "input"
    file.write_text(text)
    # What came before the terminal was told not to echo it, was echoed.
    script = f"{PLAINLY}; echo begin; cat; echo end; exit 7"
    with (
        file.open("rb") as stdin,
        (tmp_path / "output").open("wb") as stdout,
        executing(
            service, "-it", "web", "/bin/sh", "-c", script, stdin=stdin, stdout=stdout
        ) as process,
    ):
        assert end_of(process) == (7, b"")
    assert (tmp_path / "output").read_text().endswith(f"begin\n{text}end\n")


async def test_nothing_as_input(service: Service) -> None:
    with executing(service, "-it", "web", "/bin/sh", "-c", "cat; exit 7") as process:
        assert end_of(process) == (7, b"")


@pytest.mark.parametrize("signo", ["TERM", "INT", "HUP", "QUIT"])
async def test_signals_are_passed_on(service: Service, signo: str) -> None:
    script = f"trap 'exit 9' {signo}; echo up; while :; do sleep 0.05; done"
    with executing(service, "-t", "web", "/bin/sh", "-c", script) as process:
        assert first_line(process) == b"up"
        process.send_signal(signal.Signals[f"SIG{signo}"])
        assert end_of(process) == (9, b"")
