"""gVisor's own client library, in Go, against a real service with real containers."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import anyio.to_thread
import pytest

from tests.integration.service.conftest import ENGINES, Service

pytestmark = pytest.mark.runtime
GO_SOURCES = Path("/usr/share/gocode")
"""Where Debian puts Go libraries: golang-gvisor-gvisor-dev and what it needs."""

PROGRAM = Path(__file__).parent / "urpcdrive"
BUILD_SECONDS = 240
DRIVE_SECONDS = 120


@pytest.fixture(scope="session")
def urpcdrive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built against the libraries of this machine; nothing is downloaded."""
    if shutil.which("go") is None or not (GO_SOURCES / "src/gvisor.dev/gvisor").is_dir():
        pytest.skip("apt-get install golang-go golang-gvisor-gvisor-dev")
    directory = tmp_path_factory.mktemp("go")
    program = directory / "urpcdrive"
    subprocess.run(
        ["go", "build", "-o", program, "."],
        cwd=PROGRAM,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "GO111MODULE": "off",
            "GOPATH": str(GO_SOURCES),
            "GOCACHE": str(directory / "cache"),
            "GOFLAGS": "-buildvcs=false",
            "CGO_ENABLED": "0",
        },
        check=True,
        timeout=BUILD_SECONDS,
    )
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
