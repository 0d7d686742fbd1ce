"""A service that is asked to stop while a start is under way, which waits for its archive."""

import io
import os
import tarfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import anyio
import anyio.to_thread
import msgspec
import pytest
from typing_extensions import override

from eventstore import Verdict, load_signer, verify_log
from manager import CallRefused, ServiceUnavailable
from manager.adapters.client import ManagerClient
from manager.adapters.transport import Files, SocketTransport
from manager.domain.exit_status import Exited
from manager.schema.layout import LOG_FILE, SEAL_KEY_FILE
from tests.integration.service.conftest import Donor, Service, sh
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime

Ask = Callable[[ManagerClient], Awaitable[None]]


class AsksOnce(SocketTransport):
    """Of a client that does not ask again by itself when its answer is lost."""

    @override
    async def call(
        self, sandbox_id: str | None, method: str, arg: Any, files: Files = (), *, again: bool
    ) -> Any:
        return await super().call(sandbox_id, method, arg, files, again=False)


@contextmanager
def archive_to_come() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """A pipe: what is donated as an archive, and where that is to be written."""
    read_end, write_end = os.pipe()
    with open(read_end, "rb", 0) as donated, open(write_end, "wb", 0) as feed:
        yield donated, feed


def archive() -> bytes:
    """A tar with one file, which has a line of text."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("code")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"42\n"))
    return buffer.getvalue()


async def status(service: Service) -> str:
    """Of the container that is started."""
    state = await service.client.sandbox("sb").state()
    return str(state["containers"]["c"]["status"])


async def prepared(service: Service, donor: Donor, donated: BinaryIO, grace_s: float) -> Ask:
    """A service that has a sandbox; what starts a container there, always with one request id."""
    await anyio.to_thread.run_sync(service.stop)
    service.options = ("--stop-grace", str(grace_s))
    await anyio.to_thread.run_sync(service.start)
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    await sandbox.create_subcontainer("c")
    spec, donation = sh("sleep 600"), donor.donation(upper_tar=donated)

    async def ask(client: ManagerClient) -> None:
        await client.sandbox("sb").start_subcontainer("c", spec, donation, request_id="the-start")

    return ask


async def begin(tasks: anyio.abc.TaskGroup, service: Service, ask: Ask) -> list[object]:
    """Ask, once; returns as soon as the start is under way, with where its answer will be."""
    answers: list[object] = []

    async def ask_once() -> None:
        try:
            answers.append(await ask(ManagerClient(AsksOnce(service.root / "control.sock"))))
        except (CallRefused, ServiceUnavailable) as error:
            answers.append(error)

    tasks.start_soon(ask_once)
    with anyio.fail_after(PATIENCE_S):
        while await status(service) != "starting":
            await anyio.sleep(0.01)
    return answers


async def is_stopped_and_sealed(service: Service) -> None:
    """Nothing of the node comes after its stop, and all of the log is sealed."""
    assert (await service.records("node"))[-1].type == "manager.stopped"
    trusted = [load_signer(service.root / SEAL_KEY_FILE).verifier]
    found = verify_log(service.root / LOG_FILE, trusted=trusted)
    assert found.verdict is Verdict.INTACT
    assert found.sealed == found.head == len(await service.records())


async def outcomes(service: Service) -> list[dict[str, Any]]:
    """What became of the start, according to the log."""
    found = [
        {"type": each.type, **msgspec.json.decode(each.data)}
        for each in await service.records("sandbox-sb")
        if each.type.startswith("container.start")
    ]
    return [each for each in found if each.get("container") == "c"]


async def test_what_is_under_way_is_answered_before_the_service_ends(
    service: Service, donor: Donor
) -> None:
    codes: list[int] = []

    async def stop() -> None:
        codes.append(await anyio.to_thread.run_sync(service.stop))

    with archive_to_come() as (donated, feed):
        ask = await prepared(service, donor, donated, PATIENCE_S)
        async with anyio.create_task_group() as tasks:
            answers = await begin(tasks, service, ask)
            tasks.start_soon(stop)
            with anyio.fail_after(PATIENCE_S):
                while (service.root / "control.sock").exists():
                    await anyio.sleep(0.01)
            assert (answers, codes) == ([], [])
            feed.write(archive())
            feed.close()
    assert (answers, codes) == ([None], [0])
    await is_stopped_and_sealed(service)
    assert [each["type"] for each in await outcomes(service)] == [
        "container.start_accepted",
        "container.started",
    ]

    await anyio.to_thread.run_sync(service.start)
    assert await status(service) == "running"
    sandbox = service.client.sandbox("sb")
    pid = await sandbox.execute("c", ["/bin/sh", "-c", "read code </code; exit $code"], {})
    assert await sandbox.wait_process("c", pid) == Exited(code=42)


@pytest.mark.parametrize("comes", [True, False], ids=["comes later", "never comes"])
async def test_what_outlasts_the_grace_is_answered_by_the_next_service(
    service: Service, donor: Donor, comes: bool
) -> None:
    with archive_to_come() as (donated, feed):
        ask = await prepared(service, donor, donated, 1)
        async with anyio.create_task_group() as tasks:
            answers = await begin(tasks, service, ask)
            assert await anyio.to_thread.run_sync(service.stop) == 0
        (answer,) = answers
        assert isinstance(answer, ServiceUnavailable)
        assert str(answer) == 'urpc method "containerManager.StartSubcontainer" failed: EOF'
        await is_stopped_and_sealed(service)

        await anyio.to_thread.run_sync(service.start)
        async with anyio.create_task_group() as tasks:
            answers = await begin(tasks, service, ask)
            assert answers == []
            if comes:
                feed.write(archive())
            feed.close()
        accepted, outcome = await outcomes(service)
        assert accepted["type"] == "container.start_accepted"
        if comes:
            assert (answers, outcome["type"]) == ([None], "container.started")
            await ask(service.client)
            assert await status(service) == "running"
        else:
            assert outcome["type"] == "container.start_failed"
            assert outcome["failure"]["stage"] == "tar"
            assert [str(each) for each in answers] == [outcome["failure"]["error"]]
            with pytest.raises(CallRefused) as again:
                await ask(service.client)
            assert str(again.value) == outcome["failure"]["error"]
