"""The worker as the manager finds it: connect to the one that runs, or start one.

The worker outlives the manager, so it is started in a session of its own and never waited for.
"""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import msgspec
from typing_extensions import override

from manager.adapters.worker_start import WORKER_LOG, WORKER_SOCKET, open_files, start_worker
from manager.application.errors import WorkerGone
from manager.application.ports import WorkerConnection, Workers
from manager.kernel.pidfd import open_pidfd
from manager.schema import worker as w
from manager.urpc.errors import FrameError, PeerClosed
from manager.urpc.fds import FdBundle
from manager.urpc.frames_aio import AsyncFrameSocket
from manager.urpc.unix_address import connect_unix

START_TIMEOUT_S: Final = 60.0
"""How long a worker may take until it answers: a new one tries every engine first."""

START_POLL_S: Final = 0.01


class _WorkerForeign(WorkerGone):
    """There is one, of another version: no other can be started beside it."""

    def __init__(self) -> None:
        super().__init__("the worker speaks another protocol: stop it first")


class _NotUnderstood(WorkerGone):
    """What the worker sent is no message of our protocol."""


class SocketConnection(WorkerConnection):
    """Frames over the worker's unix socket."""

    def __init__(self, frames: AsyncFrameSocket, welcome: w.Welcome) -> None:
        self._frames = frames
        self._welcome = welcome

    @property
    @override
    def welcome(self) -> w.Welcome:
        return self._welcome

    @override
    async def send(self, message: w.ToWorker, files: FdBundle | None = None) -> None:
        try:
            await self._frames.send(w.encode(message), files)
        except PeerClosed as error:
            raise WorkerGone(str(error)) from error

    @override
    async def receive(self) -> Sequence[w.Outcome | w.Answer]:
        outcomes = [await self._receive_one()]
        while self._frames.pending:
            outcomes.append(await self._receive_one())
        return outcomes

    async def _receive_one(self) -> w.Outcome | w.Answer:
        message = await receive_message(self._frames)
        if isinstance(message, w.Welcome):
            raise WorkerGone("the worker welcomed us twice")
        return message

    @override
    async def aclose(self) -> None:
        await self._frames.aclose()


async def receive_message(frames: AsyncFrameSocket) -> w.FromWorker:
    """Read one message; raises WorkerGone when there is none, or none that can be understood."""
    try:
        frame = await frames.receive()
    except (PeerClosed, FrameError) as error:
        raise WorkerGone(str(error)) from error
    frame.fds.close()
    try:
        message: w.FromWorker = w.decode_from_worker(frame.body)
    except msgspec.MsgspecError as error:
        raise _NotUnderstood(f"the worker sent what nobody understands: {error}") from error
    return message


def _reaped(pid: int) -> bool:
    """Reap a child that has ended; true also for what is no child of ours. Never blocks."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


async def _end_of(pid: int) -> None:
    """Wait until a child is dead, reaped or not."""
    try:
        handle = open_pidfd(pid)
    except ProcessLookupError:
        return
    with handle:
        await anyio.wait_readable(handle.number)


def _children() -> list[int]:
    """Pids of this process's children, zombies included.

    Source: proc_pid_task_tid_children(5).
    """
    return [
        int(pid)
        for path in Path("/proc/self/task").glob("*/children")
        for pid in path.read_text(encoding="ascii").split()
    ]


async def say_hello(frames: AsyncFrameSocket) -> w.Welcome:
    """Open the conversation; raises WorkerGone if the answer is no welcome of our protocol."""
    hello = w.Hello(protocol=w.PROTOCOL_VERSION, manager_pid=os.getpid())
    try:
        await frames.send(w.encode(hello))
    except PeerClosed as error:
        raise WorkerGone(str(error)) from error
    try:
        welcome = await receive_message(frames)
    except _NotUnderstood as error:  # what a later protocol has beside its number
        raise _WorkerForeign from error
    if not isinstance(welcome, w.Welcome) or welcome.protocol != w.PROTOCOL_VERSION:
        raise _WorkerForeign
    return welcome


class WorkerProcess(Workers):
    """Finds or starts the worker of a state directory.

    Args:
        state: The service's state directory; the worker keeps its own things below it.
        engine_paths: Programs that it is to use instead of those in PATH, by engine, or `criu`.
        started: One that this process has started already.

    Containers get the soft limit of open files that this process had when this was made, whatever
    it allows itself afterwards.
    """

    def __init__(
        self,
        state: Path,
        engine_paths: Mapping[str, Path] | None = None,
        started: int | None = None,
    ) -> None:
        self._state = state
        self._engine_paths = engine_paths or {}
        self._path = state / WORKER_SOCKET
        self._open_files = open_files()
        self._child = started
        self._is_expected = started is not None
        self._strays: set[int] = set()

    @override
    def reap(self, pid: int) -> None:
        _reaped(pid)

    @override
    async def reap_strays(self, living: Callable[[], frozenset[int]]) -> None:
        async with anyio.create_task_group() as tasks:

            def watch_all() -> None:
                # The worker as well: its connection ends before it has left what it leaves.
                for pid in _children():
                    if pid not in living() | self._strays:
                        self._strays.add(pid)
                        tasks.start_soon(watch, pid)

            async def watch(pid: int) -> None:
                await _end_of(pid)
                self._strays.discard(pid)
                if pid == self._child:
                    self._has_ended()
                elif pid not in living():
                    _reaped(pid)
                watch_all()  # what it leaves has become ours in turn

            watch_all()

    @override
    async def connect(self) -> WorkerConnection:
        try:
            with anyio.fail_after(START_TIMEOUT_S):
                try:
                    return await self._greet()
                except _WorkerForeign:
                    raise
                except WorkerGone:
                    pass
                if not self._is_expected:
                    self._has_ended()  # the one before, which is reaped by this
                    self._child = start_worker(self._state, self._engine_paths, self._open_files)
                return await self._greet_when_ready()
        except TimeoutError:
            raise WorkerGone(
                f"it did not answer on {self._path} within {START_TIMEOUT_S:g} s; "
                f"see {self._state / WORKER_LOG}. One that hangs may be killed: containers run on"
            ) from None
        except anyio.get_cancelled_exc_class():
            self._dismiss()
            raise
        finally:
            self._is_expected = False

    @asynccontextmanager
    async def dismissed_unless_met(self) -> AsyncIterator[None]:
        """Have a worker that was started beforehand leave if this ends before :meth:`connect`."""
        try:
            yield
        finally:
            if self._is_expected:
                self._dismiss()

    def _dismiss(self) -> None:
        """Have the worker that was started leave when nothing runs in it: nobody will greet it."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGTERM)

    async def _greet_when_ready(self) -> WorkerConnection:
        while True:
            try:
                return await self._greet()
            except _WorkerForeign:
                raise
            except WorkerGone:
                if self._has_ended():
                    raise WorkerGone(f"it ended at once; see {self._state / WORKER_LOG}") from None
                await anyio.sleep(START_POLL_S)

    def _has_ended(self) -> bool:
        """Whether the worker that was started last is gone; reaps it if so."""
        if self._child is not None and _reaped(self._child):
            self._child = None
        return self._child is None

    async def _greet(self) -> SocketConnection:
        try:
            frames = AsyncFrameSocket(connect_unix(self._path))
        except OSError as error:
            raise WorkerGone(f"nobody answers on {self._path}: {error.strerror}") from error
        try:
            return SocketConnection(frames, await say_hello(frames))
        except BaseException:
            await frames.aclose()
            raise


@asynccontextmanager
async def probe(state: Path) -> AsyncIterator[w.Welcome]:
    """Look at what a worker in ``state`` says of this machine, without a log."""
    connection = await WorkerProcess(state).connect()
    try:
        yield connection.welcome
        await connection.send(w.Stop())
    finally:
        await connection.aclose()
