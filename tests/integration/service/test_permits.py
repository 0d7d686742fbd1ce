"""What reaches the host only if the service was started to permit it."""

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec
import pytest

from manager import CallRefused
from tests.integration.service.conftest import Donor, Service, know_engines, sh

pytestmark = pytest.mark.runtime

SECRET = "hunter2-of-a-hook"


@pytest.fixture
async def permissive(
    request: pytest.FixtureRequest, tmp_path: Path, rootfs: Path, probed: Path
) -> AsyncIterator[Service]:
    engine, *permits = request.param
    root = tmp_path / "state"
    know_engines(root, probed)
    options = [word for each in permits for word in ("--permit", each)]
    running = Service(root, engine)
    running.options = options
    running.start()
    if not running.told:
        pytest.skip(f"engine {engine} does not work here")
    yield running
    await running.end()


def with_hooks(spec: dict[str, Any], place: Path) -> dict[str, Any]:
    def hook(kind: str) -> list[dict[str, Any]]:
        script = 'cat > "$PLACE/$KIND"'
        env = [f"PLACE={place}", f"KIND={kind}", f"SECRET={SECRET}", "PATH=/usr/bin:/bin"]
        return [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": env}]

    return {**spec, "hooks": {kind: hook(kind) for kind in ("createRuntime", "poststop")}}


@pytest.mark.parametrize("permissive", [("crun", "hooks"), ("runc", "hooks")], indirect=True)
async def test_hooks_run_where_they_are_permitted(
    permissive: Service, donor: Donor, tmp_path: Path
) -> None:
    place = tmp_path / "hooks"
    place.mkdir()
    spec = with_hooks(sh("sleep 600"), place)
    sandbox = await permissive.client.create_sandbox("sb", spec, donor.donation())
    await sandbox.start_root()
    told = msgspec.json.decode((place / "createRuntime").read_bytes())
    state = await sandbox.state()
    assert told["pid"] == state["containers"]["sb"]["launched"]["pid"]
    assert not (place / "poststop").exists()
    # A worker that takes a container over ends it with its hooks as well.
    os.kill(await permissive.worker_pid(), 9)
    await sandbox.destroy("sb")
    assert (place / "poststop").exists()
    records = await permissive.records()
    by_type = {each.type: msgspec.json.decode(each.data) for each in records}
    assert by_type["manager.started"]["permits"] == ["hooks"]
    assert by_type["sandbox.created"]["intent"]["request"]["permits"] == ["hooks"]
    for path in (each for each in permissive.root.rglob("*") if each.is_file()):
        assert SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("permissive", [("crun", "hooks"), ("runc", "hooks")], indirect=True)
async def test_what_has_started_is_the_program_and_not_its_engine(
    permissive: Service, donor: Donor
) -> None:
    """However long its hooks take, which the engine runs in the process that is to be init."""
    slow = {"path": "/bin/sh", "args": ["sh", "-c", "sleep 0.5"]}
    spec = {**sh("exec sleep 600"), "hooks": {"startContainer": [slow]}}
    sandbox = await permissive.client.create_sandbox("sb", spec, donor.donation())
    await sandbox.start_root()
    (process,) = await sandbox.processes("sb")
    assert process["cmd"] in {"sh", "sleep"}


@pytest.mark.parametrize("service", ["crun"], indirect=True)
async def test_hooks_are_refused_by_default(service: Service, donor: Donor, tmp_path: Path) -> None:
    with pytest.raises(CallRefused, match="start the service with --permit hooks"):
        await service.client.create_sandbox(
            "sb", with_hooks(sh("true"), tmp_path), donor.donation()
        )
    assert not list(tmp_path.glob("createRuntime"))


@pytest.mark.parametrize("permissive", [("bwrap", "hooks"), ("runsc", "hooks")], indirect=True)
async def test_an_engine_without_hooks_says_so(
    permissive: Service, donor: Donor, tmp_path: Path
) -> None:
    words = f"engine {permissive.engine} does not support hooks"
    with pytest.raises(CallRefused, match=words):
        await permissive.client.create_sandbox(
            "sb", with_hooks(sh("true"), tmp_path), donor.donation()
        )


def in_network(spec: dict[str, Any], path: Path | str) -> dict[str, Any]:
    entries = [{"type": "pid"}, {"type": "network", "path": str(path)}]
    return {**spec, "linux": {**spec["linux"], "namespaces": entries}}


@pytest.mark.parametrize(
    "permissive", [(each, "namespace-paths") for each in ("crun", "runc", "bwrap")], indirect=True
)
async def test_a_namespace_of_the_host_is_joined_where_that_is_permitted(
    permissive: Service, donor: Donor
) -> None:
    """It belongs to a process here, as a pod's does to its pause process."""
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE
    ) as owner:
        try:
            assert owner.stdout is not None
            await anyio.to_thread.run_sync(owner.stdout.readline)
            path = f"/proc/{owner.pid}/ns/net"
            spec = in_network(sh("sleep 600"), path)
            sandbox = await permissive.client.create_sandbox("sb", spec, donor.donation())
            await sandbox.start_root()
            await sandbox.create_subcontainer("c")
            await sandbox.start_subcontainer("c", sh("sleep 600"), donor.donation())
            found = (await sandbox.state())["containers"]
            assert found["sb"]["intent"]["namespace_paths"] == {"net": path}
            for cid in ("sb", "c"):
                joined = f"/proc/{found[cid]['launched']['pid']}/ns/net"
                assert os.readlink(joined) == os.readlink(path)
            await sandbox.delete(force=True)
        finally:
            owner.kill()


@pytest.mark.parametrize("permissive", [("crun", "namespace-paths")], indirect=True)
async def test_what_is_no_such_namespace_is_not_joined(
    permissive: Service, donor: Donor, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    wrong = {
        "/proc/self/ns/uts": "it is no net namespace",
        fifo: "it is no namespace",
        tmp_path / "none": "No such file",
    }
    for number, (path, words) in enumerate(wrong.items()):
        spec = in_network(sh("true"), path)
        sandbox = await permissive.client.create_sandbox(f"sb{number}", spec, donor.donation())
        with pytest.raises(CallRefused, match=words):
            await sandbox.start_root()


@pytest.mark.parametrize("permissive", [("runsc", "namespace-paths")], indirect=True)
async def test_an_engine_that_joins_none_says_so(permissive: Service, donor: Donor) -> None:
    spec = in_network(sh("true"), "/proc/1/ns/net")
    with pytest.raises(CallRefused, match="engine runsc does not support namespace-paths"):
        await permissive.client.create_sandbox("sb", spec, donor.donation())


def test_a_path_is_ignored_or_permitted(tmp_path: Path) -> None:
    options = ("--ignore-namespace-paths", "--permit", "namespace-paths")
    command = Service(tmp_path / "state").command
    ended = subprocess.run(
        [*command, "-m", "manager.cli", "serve", "--root", str(tmp_path), *options],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "either ignored or permitted" in ended.stderr
