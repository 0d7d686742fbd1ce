"""What two containers of a sandbox give each other without sandtrail."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from manager import Layer
from manager.application.default_spec import default_spec
from manager.domain.exit_status import Exited
from tests.integration.service.conftest import Donor, Service, pipe, read_all, sh

pytestmark = pytest.mark.runtime
PROGRAM = Path(__file__).parent / "fdrelay" / "main.go"
ADDRESS = "@fdrelay"


@pytest.fixture(scope="session")
def fdrelay_rootfs(rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("go") is None:
        pytest.skip("apt-get install golang-go")
    root = tmp_path_factory.mktemp("fdrelay") / "rootfs"
    shutil.copytree(rootfs, root, symlinks=True)
    subprocess.run(
        ["go", "build", "-o", root / "bin" / "fdrelay", PROGRAM],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(root.parent),
            "GO111MODULE": "off",
            "GOCACHE": str(root.parent / "cache"),
            "CGO_ENABLED": "0",
        },
        check=True,
        timeout=240,
    )
    return root


@pytest.mark.parametrize("service", ["crun", "runc", "bwrap"], indirect=True)
async def test_an_open_file_is_passed_on(
    service: Service, donor: Donor, fdrelay_rootfs: Path
) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 1000"), donor.donation())
    await sandbox.start_root()
    source = os.open(fdrelay_rootfs, os.O_PATH | os.O_DIRECTORY)
    layer = Layer(source=source, upper="memory", size="16m")
    giver = sh(f"echo only in the giver >/tmp/secret; exec fdrelay give {ADDRESS} /tmp/secret")
    taker = default_spec(args=["/bin/fdrelay", "take", ADDRESS])
    try:
        with pipe() as (read_end, write_end):
            for cid, spec in (("giver", giver), ("taker", taker)):
                await sandbox.create_subcontainer(cid)
                donated = donor.donation(write_end, root=layer)
                await sandbox.start_subcontainer(cid, spec, donated)
            assert await sandbox.wait("giver") == Exited(code=0)
            await sandbox.destroy("giver")
            assert await sandbox.wait("taker") == Exited(code=0)
            assert read_all(read_end, write_end) == b"only in the giver\n"
    finally:
        os.close(source)
