"""A worker without processes: the same conversation, containers that end when they are told.

It outlives its connections, as the real one does: outcomes stay until they are acknowledged.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio

from manager.application.errors import WorkerGone
from manager.schema import worker as w
from manager.urpc.fds import FdBundle
from manager.worker.images import write_image

ENGINE = w.EngineReport(name="crun", works=True, version="1.0-fake")
SIGKILL = 9
ESRCH = 3


class FakeWorker:
    """State of the worker; `connect` gives a connection to it."""

    def __init__(self, engines: Sequence[w.EngineReport] = (ENGINE,)) -> None:
        self.engines = tuple(engines)
        self.running: dict[str, w.PidIdentity] = {}
        self.executed: list[w.Execute] = []
        self.known: set[str] = set()
        self.held: dict[str, FdBundle] = {}
        self.launched: list[w.Launch] = []
        self.fail_next: w.StartFailed | None = None
        self.silent = False
        """Whether launches are taken but not answered, as by a worker that is slow."""
        self.deaf_to_freezes = False
        self.deaf_to_execs = False
        self.released: list[str] = []
        self.mark: w.LogMark | None = None
        self._seq = 0
        self._pid = 1000
        self._outbox: list[w.Outcome] = []
        self._connection: FakeConnection | None = None

    def reap(self, pid: int) -> None:
        """Nothing: these containers are no processes."""

    async def reap_strays(self, living: Callable[[], frozenset[int]]) -> None:
        """Nothing, for the same reason."""

    async def connect(self) -> "FakeConnection":
        await anyio.lowlevel.checkpoint()
        if self._connection is not None:
            await self._connection.aclose()
        self._connection = FakeConnection(self)
        return self._connection

    def drop_connection(self) -> None:
        """What a manager's death looks like from here, or a worker's from there."""
        if self._connection is not None:
            self._connection.broken.set()
            self._connection.wake.set()
            self._connection = None

    def die(self) -> None:
        """Forget everything, as a killed worker does."""
        self.close()
        self.running.clear()
        self.known.clear()
        self._outbox.clear()
        self.drop_connection()

    def close(self) -> None:
        for bundle in self.held.values():
            bundle.close()
        self.held.clear()

    def exit(self, launch_id: str, status: int) -> None:
        """End a container with a raw wait status."""
        del self.running[launch_id]
        self.put(
            w.Exited(
                seq=self.next_seq(),
                launch_id=launch_id,
                status=status,
                source="waitid",
                exited_at_ns=self._seq,
            )
        )

    def start(self, launch_id: str) -> None:
        """Answer a launch: the container's own code runs."""
        self._pid += 1
        identity = w.PidIdentity(
            pid=self._pid, start_ticks=self._pid * 7, pidfd_inode=self._pid * 11, boot_id="boot"
        )
        self.running[launch_id] = identity
        self._tell_started(launch_id)

    def _tell_started(self, launch_id: str) -> None:
        self.put(
            w.Started(
                seq=self.next_seq(),
                launch_id=launch_id,
                identity=self.running[launch_id],
                engine="crun",
                engine_version="1.0-fake",
                started_at_ns=self._seq,
                phases_us={"create": 1},
            )
        )

    def _execute(self, message: w.Execute) -> None:
        self.executed.append(message)
        self._pid += 1
        identity = w.PidIdentity(pid=self._pid, start_ticks=1, pidfd_inode=2, boot_id="boot")
        self.put(
            w.Executed(
                seq=self.next_seq(),
                exec_id=message.exec_id,
                launch_id=message.launch_id,
                pid=len(self.executed) + 1,
                identity=identity,
                engine="crun",
                engine_version="1.0-fake",
                started_at_ns=self._seq,
            )
        )

    def end(self, message: w.Execute, status: int) -> None:
        """End an executed process with a raw wait status."""
        self.put(
            w.ProcessExited(
                seq=self.next_seq(),
                exec_id=message.exec_id,
                launch_id=message.launch_id,
                status=status,
                source="waitid",
                exited_at_ns=self._seq,
            )
        )

    def put(self, outcome: w.Outcome) -> None:
        self._outbox.append(outcome)
        if self._connection is not None:
            self._connection.wake.set()

    def next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def unacknowledged(self) -> list[w.Outcome]:
        return list(self._outbox)

    def obey(  # noqa: C901, PLR0912 - one arm a message
        self, message: w.ToWorker, files: FdBundle
    ) -> None:
        match message:
            case w.Hold(hold_id=hold_id):
                self.held[hold_id] = files.take_all()
                self.put(w.Held(seq=self.next_seq(), hold_id=hold_id))
            case w.Release(hold_id=hold_id):
                self.released.append(hold_id)
                if hold_id in self.held:
                    self.held.pop(hold_id).close()
            case w.Launch():
                self._launch(message)
            case w.Kill(launch_id=launch_id, signo=signo):
                errno = None if launch_id in self.running else ESRCH
                self.put(w.Killed(seq=self.next_seq(), kill_id=message.kill_id, errno=errno))
                if errno is None and signo == SIGKILL:
                    self.exit(launch_id, SIGKILL)
            case w.Freeze(pause_id=pause_id) if not self.deaf_to_freezes:
                self.put(w.Frozen(seq=self.next_seq(), pause_id=pause_id))
            case w.Save():
                self._save(message, files)
            case w.Execute():
                files.close()
                if not self.deaf_to_execs:
                    self._execute(message)
            case w.Destroy(launch_id=launch_id):
                if launch_id in self.running:
                    self.exit(launch_id, SIGKILL)
                self.put(w.Destroyed(seq=self.next_seq(), launch_id=launch_id))
            case w.Ask(ask_id=ask_id):
                if self._connection is not None:
                    self._connection.answers.append(w.Answer(ask_id=ask_id))
                    self._connection.wake.set()
            case w.Retell():
                for launch_id in self.running:
                    self._tell_started(launch_id)
            case w.Ack(seq=seq, mark=mark):
                self.mark = mark
                self._outbox = [outcome for outcome in self._outbox if outcome.seq > seq]
            case _:
                pass

    def _save(self, message: w.Save, files: FdBundle) -> None:
        """Write a real image, of engines' files that hold nothing but the engine id."""
        if self.silent:
            return
        engine_ids = [each.engine_id for each in self.launched]
        with tempfile.TemporaryDirectory() as place:
            saved = {engine_id: Path(place, engine_id) for engine_id in engine_ids}
            for engine_id, directory in saved.items():
                directory.mkdir(exist_ok=True)
                (directory / "checkpoint.img").write_text(engine_id)
            steps = write_image(files[0], message.metadata, saved)
            try:
                while True:
                    next(steps)
            except StopIteration as done:
                length, digest = done.value
        self.put(
            w.Saved(
                seq=self.next_seq(),
                checkpoint_id=message.checkpoint_id,
                image_bytes=length,
                digest=digest,
                resumed=message.resume,
            )
        )
        for launch_id in () if message.resume else message.launch_ids:
            self.exit(launch_id, 0)

    def _launch(self, message: w.Launch) -> None:
        if message.launch_id in self.known:
            return
        self.known.add(message.launch_id)
        self.launched.append(message)
        for hold in (message.held_fds, message.held_tty):
            if hold is not None and hold in self.held:
                self.held.pop(hold).close()
        if self.silent:
            return
        if self.fail_next is not None:
            failed, self.fail_next = self.fail_next, None
            self.put(
                w.StartFailed(
                    seq=self.next_seq(),
                    launch_id=message.launch_id,
                    stage=failed.stage,
                    reason=failed.reason,
                    errno=failed.errno,
                )
            )
        else:
            self.start(message.launch_id)


class FakeConnection:
    """One connection; what was sent but not acknowledged comes again on the next."""

    def __init__(self, worker: FakeWorker) -> None:
        self._worker = worker
        self._sent = 0
        self.wake = anyio.Event()
        self.broken = anyio.Event()
        self.answers: list[w.Answer] = []
        self.welcome = w.Welcome(
            protocol=w.PROTOCOL_VERSION,
            worker=w.PidIdentity(pid=1, start_ticks=1, pidfd_inode=1, boot_id="boot"),
            kernel="6.18",
            engines=worker.engines,
            capabilities={},
            held=tuple(worker.held),
            launches=tuple(
                w.LaunchFact(launch_id=launch_id, phase="running") for launch_id in worker.known
            ),
            mark=worker.mark,
        )

    async def send(self, message: w.ToWorker, files: FdBundle | None = None) -> None:
        await anyio.lowlevel.checkpoint()
        with files or FdBundle() as owned:
            if self.broken.is_set():
                raise WorkerGone("the fake was dropped")
            self._worker.obey(message, owned)

    async def receive(self) -> Sequence[w.Outcome | w.Answer]:
        while True:
            if self.broken.is_set():
                raise WorkerGone("the fake was dropped")
            if self.answers:
                answers, self.answers = self.answers, []
                return answers
            new = [each for each in self._worker.unacknowledged() if each.seq > self._sent]
            if new:
                self._sent = new[-1].seq
                return new
            self.wake = anyio.Event()
            await self.wake.wait()

    async def aclose(self) -> None:
        self.broken.set()
        self.wake.set()
