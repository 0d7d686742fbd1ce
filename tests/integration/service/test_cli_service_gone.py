"""Commands that wait for what they started, while the service goes away."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.service.conftest import Service, know_engines
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime

POLITE = "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"


def begun(service: Service, *args: str) -> "subprocess.Popen[str]":
    """A command whose program has said that it runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "manager.cli", *args],
        env={**os.environ, "SANDTRAIL_ROOT": str(service.root)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def end_of(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Its exit code, and what it says; the pipes are its program's as well, which may go on."""
    code = process.wait(PATIENCE_S)
    assert process.stdout is not None
    assert process.stderr is not None
    told = process.stderr.readline()
    process.stdout.close()
    process.stderr.close()
    return code, told


async def test_it_says_so_and_that_what_it_started_goes_on(service: Service, rootfs: Path) -> None:
    run = ("run", "--name", "web", "--rootfs", str(rootfs), "--", "/bin/sh", "-c", POLITE)
    shell = ("web", "/bin/sh", "-c", POLITE)
    waiting = [begun(service, *run)]
    waiting += [begun(service, "exec", *shell), begun(service, "exec", "-t", *shell)]
    service.kill()
    for process in waiting:
        code, told = end_of(process)
        assert code == 1, told
        assert "no service answers" in told
        assert " was started, and goes on unless it was ended\n" in told
    service.start()


async def test_it_does_so_where_containers_are_stopped_with_the_service(
    tmp_path: Path, rootfs: Path, probed: Path
) -> None:
    know_engines(tmp_path / "state", probed)
    service = Service(tmp_path / "state")
    service.options = ("--stop-containers",)
    service.start()
    run = ("run", "--name", "web", "--rootfs", str(rootfs), "--", "/bin/sh", "-c", POLITE)
    process = begun(service, *run)
    assert service.stop() == 0
    code, told = end_of(process)
    assert (code, "web was started" in told) == (1, True), told
