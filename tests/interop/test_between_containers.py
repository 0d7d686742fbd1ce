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


# Not runsc: its containers have a kernel each, and no socket leads from one into another.
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


@pytest.mark.parametrize("service", ["crun", "runc", "bwrap", "runsc"], indirect=True)
async def test_what_one_writes_into_a_shared_directory_another_reads(
    service: Service, donor: Donor, tmp_path: Path
) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 1000"), donor.donation())
    await sandbox.start_root()
    shared = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    told = "until test -e /data/{theirs}; do sleep 0.02; done; cat /data/{theirs}"
    asks = (
        "echo of {ours} >/data/{ours}.new; /bin/busybox mv /data/{ours}.new /data/{ours}; " + told
    )
    tries = "echo no >/data/no 2>/dev/null && exit 9; " + told
    try:
        with pipe() as (read_end, write_end):
            for cid, script, option in (
                ("one", asks.format(ours="one", theirs="two"), "rw"),
                ("two", asks.format(ours="two", theirs="one"), "rw"),
                ("reader", tries.format(theirs="two"), "ro"),
            ):
                spec = sh(script)
                spec["mounts"].append(
                    {
                        "destination": "/data",
                        "type": "bind",
                        "source": "/nowhere",
                        "options": ["rbind", option],
                    }
                )
                donated = donor.donation(write_end, mounts=[Layer(source=shared)])
                await sandbox.create_subcontainer(cid)
                await sandbox.start_subcontainer(cid, spec, donated)
            for cid in ("one", "two", "reader"):
                assert await sandbox.wait(cid) == Exited(code=0), cid
            lines = read_all(read_end, write_end).splitlines()
            assert sorted(lines) == [b"of one", b"of two", b"of two"]
    finally:
        os.close(shared)
