"""Donated files of a file system whose server does not answer: their caller's trouble alone."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from manager import CallRefused, Donation, Layer
from manager.adapters import answering
from manager.adapters.answering import until_answered
from manager.urpc.errors import UrpcError
from manager.urpc.fds import FdBundle
from tests.integration.service import stalled_fuse
from tests.integration.service.conftest import Donor, Service, fd_count, sh

pytestmark = pytest.mark.runtime

SYS_PIDFD_GETFD = 438


class Silent:
    """The root by O_PATH, the root, a file; and the server that does not answer."""

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
    assert set(answers) == {"donated file 3: its file system does not answer"}
    await sandbox.delete()
    # What was donated is closed once the server is gone.
    assert fd_count(service.pid) > before[0]
    silent.end()
    assert await service.fd_counts() == before


async def test_the_files_are_closed_when_the_answer_comes(silent: Silent) -> None:
    before = fd_count(os.getpid())
    files = silent.files.dup()
    with pytest.raises(UrpcError, match="donated file 0: its file system does not answer"):
        await until_answered(files, 0.1)
    assert (len(files), fd_count(os.getpid())) == (0, before + 3)
    silent.end()
    with anyio.fail_after(10):
        while fd_count(os.getpid()) > before - 2:  # the pipes to the server are closed, too
            await anyio.sleep(0.005)


async def test_what_answers_is_left_to_the_call(tmp_path: Path) -> None:
    files = FdBundle.adopt([os.open(place, os.O_RDONLY) for place in (tmp_path, "/proc", "/")])
    with files:
        await until_answered(files)
        assert len(files) == 3
