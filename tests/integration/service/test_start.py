"""The first thing anybody does: donate descriptors, start, read the output, wait."""

import os
import signal
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import pytest

from manager import Donation, Layer, Manager
from manager.application.errors import CallRefused
from manager.domain.evolve import fold
from manager.domain.exit_status import Exited, Signaled
from manager.schema.events import decode_event
from tests.integration.service.conftest import (
    ENGINES,
    Donor,
    Service,
    fd_count,
    keepers,
    pipe,
    read_all,
    sh,
    wait_for_end,
)
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime
ROOT_SCRIPT = "sleep 600"


@pytest.mark.parametrize("service", ENGINES, indirect=True)
async def test_bytes_status_and_record_of_a_start(service: Service, donor: Donor) -> None:
    with pipe() as (read_end, write_end):
        sandbox = await service.client.create_sandbox("sb", sh(ROOT_SCRIPT), donor.donation())
        await sandbox.start_root()
        await sandbox.create_subcontainer("c1")
        script = "echo out of the container; exit 3"
        await sandbox.start_subcontainer("c1", sh(script), donor.donation(write_end))
        assert await sandbox.wait_status("c1") == 3 << 8
        assert await sandbox.wait("c1") == Exited(code=3)
        assert read_all(read_end, write_end) == b"out of the container\n"
        pipe_inode = os.fstat(read_end).st_ino
    records = [each for each in await service.records() if each.type.startswith("container.")]
    assert [record.type for record in records] == [
        "container.created",
        "container.start_accepted",
        "container.started",
        "container.exited",
    ]
    accepted, started, exited = (msgspec.json.decode(record.data) for record in records[1:])
    intent = accepted["intent"]
    assert intent["engine"] == service.told["Engine"]
    stdout = intent["request"]["files"][1]
    assert (stdout["kind"], stdout["access"], stdout["inode"]) == ("fifo", "w", pipe_inode)
    assert started["launched"]["pid"] > 0
    assert started["launched"]["engine"] == intent["engine"]
    assert exited["exit"] == {"type": "exited", "code": 3}
    assert records[1].actor is not None
    assert (records[1].actor.uid, records[1].actor.pid) == (os.geteuid(), os.getpid())


@pytest.mark.parametrize("service", ENGINES, indirect=True)
async def test_a_container_sees_three_descriptors_and_nothing_donated_by_accident(
    service: Service, donor: Donor
) -> None:
    with pipe() as (read_end, write_end):
        script = "for fd in /proc/self/fd/*; do readlink $fd; done; exit 0"
        sandbox = await service.client.create_sandbox("sb", sh(script), donor.donation(write_end))
        await sandbox.start_root()
        assert await sandbox.wait() == Exited(code=0)
        seen = read_all(read_end, write_end).decode().split()
    assert len(seen) <= 3 + 1, seen  # and one that the shell's own glob holds
    assert not [path for path in seen if path.startswith(("/bin", "/etc", "/root", "/tmp"))], seen


async def test_a_signal_ends_a_container_and_the_status_says_so(
    service: Service, donor: Donor
) -> None:
    sandbox = await service.client.create_sandbox("sb", sh(ROOT_SCRIPT), donor.donation())
    await sandbox.start_root()
    await sandbox.signal(signal.SIGKILL)
    assert await sandbox.wait() == Signaled(signal=9)
    assert await sandbox.wait_status() == 9


async def test_what_is_mounted_is_the_descriptor_not_the_path(
    service: Service, donor: Donor, tmp_path: Path
) -> None:
    lent, decoy = tmp_path / "lent", tmp_path / "decoy"
    lent.mkdir()
    decoy.mkdir()
    (lent / "name").write_text("true one\n")
    (decoy / "name").write_text("decoy\n")
    fd = os.open(lent, os.O_PATH | os.O_DIRECTORY)
    lent.rename(tmp_path / "moved")
    decoy.rename(lent)
    with pipe() as (read_end, write_end):
        spec = sh("cat /data/name")
        spec["mounts"].append(
            {"destination": "/data", "type": "bind", "source": str(lent), "options": ["rbind"]}
        )
        donation = donor.donation(write_end, mounts=[Layer(source=fd)])
        sandbox = await service.client.create_sandbox("sb", spec, donation)
        os.close(fd)
        await sandbox.start_root()
        assert await sandbox.wait() == Exited(code=0)
        assert read_all(read_end, write_end) == b"true one\n"


async def test_a_start_with_128_files_works_and_129_are_refused(
    service: Service, donor: Donor, tmp_path: Path
) -> None:
    sandbox = await service.client.create_sandbox("sb", sh(ROOT_SCRIPT), donor.donation())
    await sandbox.start_root()
    note = tmp_path / "note"
    note.write_text("x")
    for extra, cid in ((124, "fits"), (125, "not")):
        await sandbox.create_subcontainer(cid)
        spec = sh("cat /m/123")
        fds = []
        for number in range(extra):
            spec["mounts"].append(
                {"destination": f"/m/{number}", "type": "bind", "source": "x", "options": ["ro"]}
            )
            fds.append(os.open(note, os.O_RDONLY))
        before = await service.fd_counts()
        with pipe() as (read_end, write_end):
            donation = donor.donation(write_end, mounts=[Layer(source=fd) for fd in fds])
            assert len(donation.files()) == 4 + extra
            if cid == "fits":
                await sandbox.start_subcontainer(cid, spec, donation)
                assert await sandbox.wait(cid) == Exited(code=0)
                assert read_all(read_end, write_end) == b"x"
                await sandbox.destroy(cid)
            else:
                with pytest.raises(CallRefused, match="too many files"):
                    await sandbox.start_subcontainer(cid, spec, donation)
        for fd in fds:
            os.close(fd)
        assert await service.fd_counts() == before


async def test_a_killed_service_loses_nothing(service: Service, donor: Donor) -> None:
    sandbox = await service.client.create_sandbox("sb", sh(ROOT_SCRIPT), donor.donation())
    await sandbox.start_root()
    await sandbox.create_subcontainer("lives")
    await sandbox.create_subcontainer("ends")
    with pipe() as (read_end, write_end):
        script = "read line; exit 42"
        donation = donor.donation()
        go = Donation(rootfs=donation.rootfs, stdio=(read_end, donor.null_out, donor.null_out))
        await sandbox.start_subcontainer("ends", sh(script), go)
        await sandbox.start_subcontainer("lives", sh(ROOT_SCRIPT), donor.donation())
        pids = {
            each["CID"]: each["PID"] for each in (await service.client.sandboxes())[0]["Containers"]
        }
        service.kill()
        os.write(write_end, b"go\n")
        await wait_for_end(pids["ends"])
        os.kill(pids["lives"], 0)
        service.start()
        assert await sandbox.wait("ends") == Exited(code=42)
    with anyio.move_on_after(0.2):
        await sandbox.wait("lives")
        pytest.fail("the other container must still run")
    launches = [
        each for each in await service.records("sandbox-sb") if each.type == "container.started"
    ]
    assert len(launches) == 2


async def test_a_client_that_waits_gets_its_answer_from_the_next_service(
    service: Service, donor: Donor
) -> None:
    with pipe() as (read_end, write_end):
        go = Donation(
            rootfs=donor.donation().rootfs, stdio=(read_end, donor.null_out, donor.null_out)
        )
        sandbox = await service.client.create_sandbox("sb", sh("read line; exit 7"), go)
        await sandbox.start_root()
        ended = []

        async def wait() -> None:
            ended.append(await sandbox.wait())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await anyio.to_thread.run_sync(service.kill)
            await anyio.to_thread.run_sync(service.start)
            os.write(write_end, b"go\n")
    assert ended == [Exited(code=7)]


async def test_the_embedded_manager_has_the_same_interface(
    tmp_path: Path, rootfs: Path, donor: Donor
) -> None:
    root = tmp_path / "embedded"
    async with Manager.open(root) as manager:
        sandbox = await manager.create_sandbox("sb", sh("exit 5"), donor.donation())
        await sandbox.start_root()
        assert await sandbox.wait() == Exited(code=5)
        assert [summary["ID"] for summary in await manager.sandboxes()] == ["sb"]
        with pytest.raises(CallRefused, match='sandbox "sb" already exists'):
            await manager.create_sandbox("sb", sh("true"), donor.donation())
        types = [event.type async for event in sandbox.events()]
        assert types[:2] == ["sandbox.created", "sandbox.start_requested"]
        state = await sandbox.state()
        events = [decode_event(event.type, event.data) async for event in sandbox.events()]
        assert msgspec.to_builtins(fold(events)) == state
        await sandbox.delete()
        node = [each async for each in manager.events(stream="node")]
        workers = [each.data for each in node if each.type == "worker.started"]
        pid = msgspec.json.decode(workers[-1])["identity"]["pid"]
    await wait_for_end(pid)
    assert fd_count(os.getpid()) < 64


async def test_file_objects_are_lent_and_stay_the_callers(
    service: Service, rootfs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY)
    with open(os.devnull, "rb") as null, out.open("ab") as file:
        donation = Donation(rootfs=Layer(source=root, upper="memory"), stdio=(null, file, file))
        sandbox = await service.client.create_sandbox("sb", sh("echo lent"), donation)
        await sandbox.start_root()
        assert await sandbox.wait() == Exited(code=0)
        file.write(b"still mine\n")
    os.close(root)
    assert out.read_text() == "lent\nstill mine\n"


async def test_a_killed_worker_loses_no_container_and_no_exit_status(
    service: Service, donor: Donor
) -> None:
    sandbox = await service.client.create_sandbox("sb", sh(ROOT_SCRIPT), donor.donation())
    await sandbox.start_root()
    with pipe() as (read_end, write_end):
        donation = donor.donation()
        go = Donation(rootfs=donation.rootfs, stdio=(read_end, donor.null_out, donor.null_out))
        await sandbox.create_subcontainer("c1")
        await sandbox.start_subcontainer("c1", sh("read line; exit 42"), go)
        worker = await service.worker_pid()
        os.kill(worker, signal.SIGKILL)
        await wait_for_end(worker)
        os.write(write_end, b"go\n")
        assert await sandbox.wait("c1") == Exited(code=42)
    with anyio.fail_after(PATIENCE_S):
        while await service.worker_pid() == worker:
            await anyio.sleep(0.01)
    await sandbox.signal(signal.SIGKILL)
    assert await sandbox.wait() == Signaled(signal=9)
    children = Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()
    assert set(map(int, children)) == {await service.worker_pid(), *keepers(service)}


async def test_a_service_that_is_asked_to_stop_does_not_wait_for_those_who_wait(
    service: Service, donor: Donor
) -> None:
    """Their answer comes from the next one: to them nothing has happened."""
    service.stop()
    service.options = ("--stop-grace", "3600")
    service.start()
    sandbox = await service.client.create_sandbox("sb", sh(ROOT_SCRIPT), donor.donation())
    await sandbox.start_root()
    ended: list[object] = []

    async def wait() -> None:
        ended.append(await sandbox.wait())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await anyio.to_thread.run_sync(service.stop)
        await anyio.to_thread.run_sync(service.start)
        await sandbox.signal(signal.SIGKILL)
    assert ended == [Signaled(signal=9)]
