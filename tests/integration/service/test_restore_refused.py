"""Engines that cannot save a container, and say why before anything happens."""

from pathlib import Path

import pytest

from manager import CallRefused
from tests.integration.service.conftest import Donor, Service
from tests.integration.service.saving import can_save, counter, save

pytestmark = pytest.mark.runtime


@pytest.mark.parametrize("service", ["crun", "runc", "bwrap"], indirect=True)
async def test_other_engines_refuse(service: Service, donor: Donor, image: Path) -> None:
    if await can_save(service):
        pytest.skip(f"CRIU works here: {service.engine} does not refuse")
    sandbox = await service.client.create_sandbox("sb", counter("root"), donor.donation())
    image.write_bytes(b"")
    why = {
        "bwrap": "bubblewrap cannot save",
        "crun": "(this crun is built without CRIU|sandtrail uses CRIU with runc only)",
        "runc": "(CRIU is not|`criu check`)",
    }[service.engine]
    text = f"^engine {service.engine} does not support checkpoint: {why}"
    with image.open("rb") as file, pytest.raises(CallRefused, match=text):
        await sandbox.restore(file)
    await sandbox.start_root()
    with pytest.raises(CallRefused, match=text):
        await save(sandbox, image)
    for three, wanted in ((False, 1), (True, 3)):
        argument = {"have_pages_file": three}
        with pytest.raises(CallRefused, match=f"^got 0 files, wanted {wanted}$"):
            await sandbox._call("Checkpoint", argument)
    assert (await sandbox.state())["phase"] == "started"
