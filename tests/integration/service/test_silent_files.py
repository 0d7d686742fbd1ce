"""Donated files of a file system whose server does not answer: their caller's trouble alone."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest

from manager import CallRefused, Donation, Layer
from manager.adapters import answering
from manager.adapters.answering import describe
from manager.domain.silent_files import silent_file
from manager.urpc.fds import FdBundle
from tests.integration.service import stalled_fuse
from tests.integration.service.conftest import Donor, Service, fd_count, sh
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime

SYS_PIDFD_GETFD = 438
EXPECTED = {
    "container.create_rejected": "TTY file must be a terminal, but is a directory",
    "container.start_rejected": silent_file(3),
}
"""Refusals of what is wrong with a call whether its file answers or not come first."""


async def told(service: Service, kind: str) -> list[dict[str, Any]]:
    records = await service.records()
    return [msgspec.json.decode(record.data) for record in records if record.type == kind]


class Silent:
    """The root by O_PATH, the root, a file, a FIFO; and the server that does not answer."""

    def __init__(self, server: subprocess.Popen[str], files: FdBundle) -> None:
        self.files = files
        self._server = server

    def end(self) -> None:
        """End the server: every question is answered with an error."""
        if self._server.poll() is None:
            self._server.communicate("end\n")


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Silent]:
    place = tmp_path / "silent"
    place.mkdir()
    command = ["unshare", "--mount", sys.executable, stalled_fuse.__file__, str(place)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        told = server.stdout.readline().split()
        if not told:
            pytest.skip("no file system can be served here")
        owner = os.pidfd_open(int(told[0]))
        libc = ctypes.CDLL(None)
        numbers = [libc.syscall(SYS_PIDFD_GETFD, owner, int(each), 0) for each in told[1:]]
        os.close(owner)
        found = Silent(server, FdBundle.adopt(numbers))
        try:
            yield found
        finally:
            found.end()
            found.files.close()


async def test_their_call_is_refused_and_nobody_else_waits(
    service: Service, donor: Donor, silent: Silent
) -> None:
    before = await service.fd_counts()
    answers: list[str] = []

    async def donate(root: int) -> None:
        donation = Donation(rootfs=Layer(source=root), stdio=donor.donation().stdio)
        with pytest.raises(CallRefused) as refused:
            await service.client.create_sandbox("silent", sh("true"), donation)
        answers.append(refused.value.text)

    async with anyio.create_task_group() as tasks:
        # Not the file: to close one is a question, too, and this client would wait for its answer.
        for number in silent.files.numbers()[:2]:
            tasks.start_soon(donate, number)
        with anyio.fail_after(answering.FILE_PATIENCE_S):
            sandbox = await service.client.create_sandbox("sb", sh("exit 3"), donor.donation())
            await sandbox.start_root()
            assert await sandbox.wait_status() == 3 << 8
    assert set(answers) == {silent_file(3)}
    rejected = await told(service, "sandbox.create_rejected")
    assert [each["error"] for each in rejected] == [silent_file(3)] * 2
    kinds = [fact["kind"] for fact in rejected[0]["request"]["files"]]
    assert kinds == ["null", "null", "null", "directory"]
    await sandbox.delete()
    # What was donated is closed once the server is gone.
    assert fd_count(service.pid) > before[0]
    silent.end()
    assert await service.fd_counts() == before


async def test_each_method_has_its_refusal_on_record(
    service: Service, donor: Donor, silent: Silent
) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    waiting = await service.client.create_sandbox("rs", sh("sleep 600"), donor.donation())
    await sandbox.create_subcontainer("c")
    files = silent.files
    root, directory = files[0].number, files[1].number
    donation = Donation(rootfs=Layer(source=root), stdio=donor.donation().stdio)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "container.create_rejected": lambda: sandbox.create_subcontainer("t", tty=directory),
        "container.start_rejected": lambda: sandbox.start_subcontainer(
            "c", sh("true"), donation, request_id="r"
        ),
        "process.exec_rejected": lambda: sandbox.execute("sb", ["/bin/true"], {0: directory}),
        "sandbox.checkpoint_rejected": lambda: sandbox.checkpoint(directory),
        "restore.rejected": lambda: waiting.restore(directory),
    }
    answers: dict[str, str] = {}

    async def ask(kind: str, call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(CallRefused) as refused:
            await call()
        answers[kind] = refused.value.text

    async with anyio.create_task_group() as tasks:
        for kind, call in calls.items():
            tasks.start_soon(ask, kind, call)
    for kind in calls:
        (event,) = await told(service, kind)
        assert event["error"] == answers[kind] == EXPECTED.get(kind, silent_file(0))
    silent.end()
    # The same call again, whatever it brings by now, has the answer that is on record.
    with pytest.raises(CallRefused, match=f"^{silent_file(3)}$"):
        await sandbox.start_subcontainer("c", sh("true"), donor.donation(), request_id="r")
    await sandbox.start_subcontainer("c", sh("true"), donor.donation())


async def test_the_files_are_closed_when_the_answer_comes(silent: Silent) -> None:
    before = fd_count(os.getpid())
    files = silent.files.dup()
    described = await describe(files, 0.1)
    assert described.problem == silent_file(0)
    assert [fact.kind for fact in described.facts] == ["directory", "directory", "regular", "fifo"]
    assert [fact.access for fact in described.facts] == ["path", "r", "r", "rw"]
    assert all(fact.device and fact.inode for fact in described.facts)
    assert (len(files), fd_count(os.getpid())) == (0, before + 4)
    silent.end()
    with anyio.fail_after(PATIENCE_S):
        while fd_count(os.getpid()) > before - 2:  # the pipes to the server are closed, too
            await anyio.sleep(0.005)


async def test_a_fifo_is_of_its_file_system(silent: Silent) -> None:
    """Nobody knows a pipe from it by its kind alone."""
    with silent.files.dup() as files, files.take(len(files) - 1):
        described = await describe(files, 0.1)
        silent.end()  # to close one of the others is a question, too
    assert described.problem == silent_file(0)
    assert [fact.kind for fact in described.facts] == ["fifo"]


async def test_what_answers_is_left_to_the_call(tmp_path: Path) -> None:
    files = FdBundle.adopt([os.open(place, os.O_RDONLY) for place in (tmp_path, "/proc", "/")])
    with files:
        described = await describe(files)
        assert [fact.kind for fact in described.facts] == [
            "directory",
            "pseudo-filesystem",
            "directory",
        ]
        assert (len(files), described.problem) == (3, "")
