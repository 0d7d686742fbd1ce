"""Every method of a sandbox's socket on every engine: it works, or it says what cannot be given."""

import os
from pathlib import Path
from typing import Any

import pytest

from manager.adapters.client import SandboxClient
from manager.adapters.methods import sandbox_methods
from manager.application.calls import Calls
from manager.application.errors import CallRefused
from tests.golden.test_compatibility import Nobody
from tests.integration.service.conftest import ENGINES, Donor, Service, sh

pytestmark = pytest.mark.runtime
OWN = "containerManager."
METHODS = frozenset(sandbox_methods(Calls(Nobody()), "sb").names)  # type: ignore[arg-type]  # names alone are asked


class Recorder:
    """Calls methods by name, and knows which were called."""

    def __init__(self, sandbox: SandboxClient) -> None:
        self._transport = sandbox._transport
        self._id = sandbox.id
        self.called: set[str] = set()

    async def __call__(self, method: str, arg: Any = None, files: Any = ()) -> Any:
        name = method if "." in method else OWN + method
        self.called.add(name)
        return await self._transport.call(self._id, name, arg, files, again=False)

    async def refused(self, text: str, method: str, arg: Any = None, files: Any = ()) -> None:
        with pytest.raises(CallRefused, match=f"^{text}"):
            await self(method, arg, files)


@pytest.mark.parametrize("service", ENGINES, indirect=True)
async def test_it_works_or_is_refused_by_name(
    service: Service, donor: Donor, tmp_path: Path
) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    call = Recorder(sandbox)
    start = {
        "CID": "c1",
        "Spec": sh("exit 3"),
        "Conf": {},
        "GoferMountConfs": [{"lower": 1, "upper": 1, "size": "16m"}],
    }
    donated = donor.donation().files()
    not_restoring = "sandbox is not being restored, cannot"
    await call("StartRoot", "sb")
    await call("CreateSubcontainer", {"CID": "c1"})
    await call.refused(not_restoring, "RestoreSubcontainer", start, donated)
    await call("StartSubcontainer", start, donated)
    assert await call("Wait", "c1") == 3 << 8
    await call("DestroySubcontainer", "c1")
    argv = {"ContainerID": "sb", "argv": ["/bin/sh", "-c", "exit 5"], "envv": ["PATH=/bin"]}
    pid = await call("ExecuteAsync", argv)
    assert await call("WaitPID", {"CID": "sb", "PID": pid}) == 5 << 8
    await call("Signal", {"CID": "sb", "Signo": 0, "PID": 0, "Mode": 0})
    assert await call("ContainerRuntimeState", "sb") == 2
    assert [row["pid"] for row in await call("Processes", "sb")]
    assert (await call("Event", "sb"))["event"]["id"] == "sb"
    assert await call("ProcfsDump")
    assert await call("Proc.Ps", {"JSON": True})
    assert (await call("Usage.Collect", {"Full": True}))["Total"] > 0
    for prefix in ("", "Lifecycle."):
        await call(f"{prefix}Pause")
        await call(f"{prefix}Resume")
    assert await call("GetSavings") == {"CPUTimeSaved": 0, "WallTimeSaved": 0}
    await call.refused(not_restoring, "WaitRestore")
    image = os.open(tmp_path / "image", os.O_RDWR | os.O_CREAT)
    try:
        if service.engine == "runsc":
            await call("Checkpoint", {}, [image])
            assert await call("Wait", "sb") == 0
            await call("WaitCheckpoint")
            await call.refused(
                "cannot restore a container in state=stopped", "Restore", {}, [image]
            )
        else:
            lacking = f"engine {service.engine} does not support checkpoint: "
            await call.refused(lacking, "Checkpoint", {}, [image])
            other = await service.client.create_sandbox("new", sh("true"), donor.donation())
            restoring = Recorder(other)
            await restoring.refused(lacking, "Restore", {}, [image])
            await sandbox.signal(9)
            await call("Wait", "sb")
            await call.refused("the sandbox has ended", "WaitCheckpoint")
            call.called |= restoring.called
    finally:
        os.close(image)
    assert call.called == METHODS
