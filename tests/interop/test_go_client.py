"""gVisor's own client library, in Go, against a real service with real containers."""

import os
import subprocess
import tempfile
from pathlib import Path

import anyio.to_thread
import pytest

from benchmarks.go_program import build_go
from tests.integration.service.conftest import ENGINES, Service

pytestmark = pytest.mark.runtime
PROGRAM = Path(__file__).parent / "urpcdrive"
DRIVE_SECONDS = 120


@pytest.fixture(scope="session")
def urpcdrive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built against the libraries of this machine; nothing is downloaded."""
    directory = tmp_path_factory.mktemp("go")
    program = build_go(PROGRAM, directory / "urpcdrive", directory / "cache")
    if program is None:
        pytest.skip("apt-get install golang-go golang-gvisor-gvisor-dev")
    return program


@pytest.mark.parametrize("service", ENGINES, indirect=True)
async def test_every_scenario_goes_as_the_go_client_expects(
    service: Service, rootfs: Path, urpcdrive: Path
) -> None:
    def drive() -> subprocess.CompletedProcess[str]:
        # The name of a socket has room for 107 bytes, and Go's client takes no way around that.
        with tempfile.TemporaryDirectory() as short:
            root = Path(short) / "root"
            root.symlink_to(service.root)
            command = [urpcdrive, root, rootfs]
            return subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=DRIVE_SECONDS
            )

    result = await anyio.to_thread.run_sync(drive)
    lines = result.stdout.splitlines()
    assert [line for line in lines if not line.startswith("ok - ")] == []
    assert len(lines) > 5, result.stderr
    assert result.returncode == 0
    actors = {record.actor for record in await service.records("sandbox-go-sandbox")}
    assert os.getpid() not in {actor.pid for actor in actors if actor is not None}
