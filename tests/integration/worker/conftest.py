"""A real worker process and the conversation with it; root filesystems to start containers from."""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from manager.domain.payload import LaunchPlan, LayerPlan, MountPlan
from manager.kernel.mount import clone_tree
from manager.schema import worker as w
from manager.urpc.errors import PeerClosed
from manager.urpc.fds import FdBundle, OwnedFd
from manager.urpc.frame_socket import FrameSocket
from manager.urpc.unix_address import connect_unix
from tests.patience import PATIENCE_S

REPOSITORY = Path(__file__).parents[3]
ENGINES = ("crun", "runc", "runsc", "bwrap")
APPLETS = (
    "sh ls cat sleep true false echo id kill readlink touch mkdir stat hostname ps env wc "
    "tty stty grep sort"
)

T = TypeVar("T")


@pytest.fixture(scope="session")
def busybox_rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox (static) is not installed: apt-get install busybox-static")
    root = tmp_path_factory.mktemp("rootfs")
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp"):
        (root / name).mkdir()
    shutil.copy(busybox, root / "bin/busybox")
    for applet in APPLETS.split():
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    return root


def spec_of(args: Sequence[str], **changes: Any) -> dict[str, Any]:
    """A small spec; `changes` replace or extend its members."""
    spec: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": {"args": list(args), "cwd": "/", "env": ["PATH=/bin", "HOME=/"]},
        "root": {"path": "/nowhere", "readonly": True},
        "hostname": "sandbox",
        "linux": {},
    }
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(spec.get(key), dict):
            spec[key] = {**spec[key], **value}
        else:
            spec[key] = value
    return spec


def directory_tree(path: Path) -> OwnedFd:
    with OwnedFd(os.open(path, os.O_PATH | os.O_CLOEXEC)) as fd:
        return clone_tree(fd.number)


class Stdio:
    """Pipes for a container: `out` collects both output streams."""

    def __init__(self) -> None:
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        self.out = OwnedFd(out_read)
        self._ends = [
            OwnedFd(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)),
            OwnedFd(out_write),
        ]
        self._ends.append(self._ends[1].dup())

    def take(self) -> list[OwnedFd]:
        ends, self._ends = self._ends, []
        return ends

    def read_all(self) -> str:
        """Everything up to the end, which comes when the container has closed its streams."""
        chunks = []
        deadline = time.monotonic() + PATIENCE_S
        with self.out:
            while select.select([self.out], [], [], max(0, deadline - time.monotonic()))[0]:
                chunk = os.read(self.out.number, 65536)
                if not chunk:
                    return b"".join(chunks).decode()
                chunks.append(chunk)
        raise AssertionError(f"no end of output within {PATIENCE_S} s: {chunks}")

    def read_line(self) -> str:
        line = b""
        deadline = time.monotonic() + PATIENCE_S
        while not line.endswith(b"\n"):
            if not select.select([self.out], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"no line within {PATIENCE_S} s: {line!r}")
            chunk = os.read(self.out.number, 1)
            assert chunk, f"end of output in {line!r}"
            line += chunk
        return line.decode().rstrip("\n")


class Launched:
    """One launch as the test sees it."""

    def __init__(self, launch_id: str, engine_id: str, stdio: Stdio | None) -> None:
        self.id = launch_id
        self.engine_id = engine_id
        self.stdio = stdio


class Conversation:
    """A manager's connection to the worker; every outcome is kept until it is asked for."""

    def __init__(self, path: Path, *, acknowledge: bool = True) -> None:
        self._frames = FrameSocket(connect_unix(path))
        self._acknowledge = acknowledge
        self.outcomes: list[w.Outcome] = []
        hello = w.Hello(protocol=w.PROTOCOL_VERSION, manager_pid=os.getpid())
        try:
            self._frames.send(w.encode(hello))
            self.welcome = self._first()
        except BaseException:
            self._frames.close()
            raise

    def send(self, message: w.ToWorker, fds: Sequence[OwnedFd] = ()) -> None:
        self._frames.send(w.encode(message), FdBundle(fds))

    def expect(self, kind: type[T], about: str, seconds: float = PATIENCE_S) -> T:
        """The outcome of that kind about a launch, hold or kill; waits for it."""
        deadline = time.monotonic() + seconds
        while True:
            for outcome in self.outcomes:
                if isinstance(outcome, kind) and about in _ids(outcome):
                    self.outcomes.remove(outcome)
                    return outcome
            if kind is w.Started:
                self._fail_early(about)
            if not self._receive(deadline - time.monotonic()):
                raise AssertionError(f"no {kind.__name__} in {seconds} s, only {self.outcomes}")

    def closed(self, seconds: float = PATIENCE_S) -> bool:
        """Whether the worker ends the connection."""
        deadline = time.monotonic() + seconds
        try:
            while self._receive(deadline - time.monotonic()):
                pass
        except PeerClosed:
            return True
        return False

    def close(self) -> None:
        self._frames.close()

    def _fail_early(self, about: str) -> None:
        for outcome in self.outcomes:
            if isinstance(outcome, w.StartFailed) and outcome.launch_id == about:
                raise AssertionError(f"start failed: {outcome.stage}: {outcome.reason}")

    def _first(self) -> w.Welcome:
        while True:
            self._frames.flush()
            assert select.select([self._frames], [], [], PATIENCE_S)[0], "no welcome"
            frames = self._frames.receive()
            if frames:
                welcome = w.decode_from_worker(frames[0].body)
                assert isinstance(welcome, w.Welcome)
                self._keep(frames[1:])
                return welcome

    def _receive(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            self._frames.flush()
            writing = [self._frames] if self._frames.wants_write else []
            patience = max(0, deadline - time.monotonic())
            readable, writable, _ = select.select([self._frames], writing, [], patience)
            if readable:
                self._keep(self._frames.receive())
                return True
            if not writable:
                return False

    def _keep(self, frames: list[Any]) -> None:
        for frame in frames:
            outcome = w.decode_from_worker(frame.body)
            assert not isinstance(outcome, w.Welcome)
            self.outcomes.append(outcome)
            if self._acknowledge:
                self.send(w.Ack(seq=outcome.seq))


def _ids(outcome: object) -> set[str]:
    names = ("launch_id", "hold_id", "kill_id", "checkpoint_id", "exec_id")
    return {getattr(outcome, name) for name in names if hasattr(outcome, name)}


class WorkerHarness:
    """Starts the worker, talks to it, and looks at what it leaves."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.log = state / "worker.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.conversation: Conversation | None = None
        self._launched: list[Launched] = []
        self._engine_ids: set[str] = set()

    @property
    def socket(self) -> Path:
        return self.state / "worker.sock"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(
        self, *arguments: str, pass_fds: Sequence[int] = (), through: Sequence[str] = ()
    ) -> None:
        """Start it, with more arguments, and `through` a command that becomes what follows it."""
        command = [sys.executable, "-m", "manager.worker", "--state", str(self.state), *arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*through, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=REPOSITORY,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        self.connect()

    def connect(self, *, acknowledge: bool = True) -> Conversation:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                conversation = Conversation(self.socket, acknowledge=acknowledge)
            except (FileNotFoundError, ConnectionRefusedError, PeerClosed):
                assert self.process is None or self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.005)
            else:
                break
        if self.conversation is not None:
            self.conversation.close()
        self.conversation = conversation
        return conversation

    def hang_up(self) -> None:
        """Leave as a manager that ends."""
        assert self.conversation is not None
        self.conversation.close()
        self.conversation = None

    def send(self, message: w.ToWorker, fds: Sequence[OwnedFd] = ()) -> None:
        assert self.conversation is not None
        self.conversation.send(message, fds)

    def expect(self, kind: type[T], about: str | Launched) -> T:
        assert self.conversation is not None
        return self.conversation.expect(kind, about if isinstance(about, str) else about.id)

    def expect_orphans_end(self, launched: Launched, status: int) -> w.Exited:
        """The end of what a worker before this one has started, and somebody else reaps."""
        assert self.conversation is not None
        exited = self.expect(w.Exited, launched)
        if exited.status is None:  # before Linux 6.15 only a parent is told
            capabilities = self.conversation.welcome.capabilities
            assert capabilities["exit-status"] != "PIDFD_GET_INFO"
        else:
            assert exited.status == status
        return exited

    def launch(
        self,
        engine: str,
        spec: dict[str, Any],
        root: Path | OwnedFd,
        *,
        root_plan: Callable[[int], LayerPlan] | None = None,
        mounts: Sequence[tuple[MountPlan, Sequence[OwnedFd]]] = (),
        extra: Sequence[OwnedFd] = (),
        plan: dict[str, Any] | None = None,
        **command: Any,
    ) -> Launched:
        """Send a Launch whose descriptors are `stdin stdout stderr root`, mounts', extra."""
        stdio = Stdio()
        tree = directory_tree(root) if isinstance(root, Path) else root
        fds = [*stdio.take(), tree]
        layer = root_plan(3) if root_plan else LayerPlan(lower="lisafs", lower_fd=3)
        planned = []
        for mount, owners in mounts:
            planned.append(mount)
            fds.extend(owners)
        fds.extend(extra)
        launch_plan = LaunchPlan(stdio=(0, 1, 2), root=layer, mounts=tuple(planned), **(plan or {}))
        return self.launch_raw(engine, spec, launch_plan, fds, stdio=stdio, **command)

    def launch_raw(
        self,
        engine: str,
        spec: dict[str, Any] | None,
        plan: LaunchPlan,
        fds: Sequence[OwnedFd],
        *,
        stdio: Stdio | None = None,
        **command: Any,
    ) -> Launched:
        message = w.Launch(
            launch_id=command.pop("launch_id", f"launch-{uuid.uuid4().hex}"),
            engine_id=command.pop("engine_id", uuid.uuid4().hex),
            engine=engine,
            spec=b"" if spec is None else msgspec.json.encode(spec),
            plan=plan,
            **command,
        )
        self.send(message, fds)
        launched = Launched(message.launch_id, message.engine_id, stdio)
        self._launched.append(launched)
        self._engine_ids.add(message.engine_id)
        return launched

    def run(self, engine: str, spec: dict[str, Any], root: Path, **more: Any) -> tuple[int, str]:
        """Launch, wait for the end; returns the raw status and the output."""
        launched = self.launch(engine, spec, root, **more)
        self.expect(w.Started, launched)
        exited = self.expect(w.Exited, launched)
        assert launched.stdio is not None
        assert exited.status is not None
        return exited.status, launched.stdio.read_all()

    def fail(self, engine: str, spec: dict[str, Any], root: Path, **more: Any) -> w.StartFailed:
        launched = self.launch(engine, spec, root, **more)
        return self.expect(w.StartFailed, launched)

    def kill(self, launched: Launched, signo: int, *, everyone: bool = False) -> int | None:
        kill_id = f"kill-{uuid.uuid4().hex}"
        self.send(w.Kill(kill_id=kill_id, launch_id=launched.id, signo=signo, mode=int(everyone)))
        return self.expect(w.Killed, kill_id).errno

    def destroy(self, launched: Launched) -> w.Destroyed:
        self.send(w.Destroy(launch_id=launched.id))
        return self.expect(w.Destroyed, launched)

    def run_is_alive(self, seconds: float) -> bool:
        """Whether the worker is still there after some time."""
        assert self.process is not None
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def keeper_pid(self) -> int:
        """The process that keeps pidfds for the next worker."""
        [keeper] = [pid for pid in map(int, descendants(self.pid)) if is_keeper(pid)]
        return keeper

    def traces(self) -> dict[str, list[str]]:
        """Everything that a launch could leave behind, by kind."""
        root = Path(f"/proc/{self.pid}")
        mounts = (root / "mountinfo").read_text().splitlines()
        cgroups = [
            str(path)
            for hierarchy in Path("/sys/fs/cgroup").iterdir()
            if (hierarchy / "sandtrail").is_dir()
            for path in (hierarchy / "sandtrail").iterdir()
            if path.name in self._engine_ids
        ]
        worker = self.state / "worker"
        return {
            "descriptors": sorted(os.listdir(root / "fd")),
            "mounts": [line for line in mounts if str(self.state) in line],
            "cgroups": sorted(cgroups),
            "engine-state": sorted(str(p) for p in (worker / "engines").glob("*/*")),
            "records": sorted(str(p) for p in (worker / "launches").iterdir()),
            "stage": sorted(os.listdir(root / "root" / str(worker / "stage")[1:])),
            "processes": descendants(self.pid),
        }

    def traces_at_rest(self) -> dict[str, list[str]]:
        """The same, once nothing changes any more: what is under way cannot be awaited here."""
        samples = [self.traces()]
        while len(samples) < AT_REST_SAMPLES or samples[-1] != samples[-AT_REST_SAMPLES]:
            time.sleep(0.005)
            samples.append(self.traces())
        return samples[-1]

    def tidy(self) -> None:
        """Destroy whatever this test has launched."""
        launched, self._launched = self._launched, []
        for each in launched:
            if each.stdio is not None:
                each.stdio.out.close()
            self.destroy(each)
        if self.conversation is not None:
            self.conversation.outcomes.clear()

    def stop(self) -> None:
        if self.conversation is not None:
            with contextlib.suppress(PeerClosed, AssertionError):
                self.tidy()
                self.conversation.send(w.Stop())
        if self.process is not None:
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                for pid in map(int, descendants(self.pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self.process.kill()
                self.process.wait()
                raise AssertionError("the worker did not leave: does it hold something?") from None
        if self.conversation is not None:
            self.conversation.close()


AT_REST_SAMPLES = 10


def is_keeper(pid: int) -> bool:
    return "manager/worker/keeper.py" in Path(f"/proc/{pid}/cmdline").read_text()


def descendants(pid: int) -> list[str]:
    found = []
    children = Path(f"/proc/{pid}/task/{pid}/children")
    with contextlib.suppress(OSError):
        for child in children.read_text().split():
            found += [child, *descendants(int(child))]
    return sorted(found)


@contextlib.contextmanager
def running_worker(directory: Path) -> Iterator[WorkerHarness]:
    if os.geteuid() != 0:
        pytest.skip("containers are started as root")
    state = directory / "state"
    state.mkdir(mode=0o700)
    harness = WorkerHarness(state)
    try:
        harness.start()
        yield harness
    finally:
        harness.stop()


@pytest.fixture
def own_worker(tmp_path: Path) -> Iterator[WorkerHarness]:
    """A worker of the test's own, with a manager connected to it."""
    with running_worker(tmp_path) as harness:
        yield harness


@pytest.fixture(scope="session")
def _session_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerHarness]:
    with running_worker(tmp_path_factory.mktemp("worker")) as harness:
        yield harness


@pytest.fixture
def worker(_session_worker: WorkerHarness) -> Iterator[WorkerHarness]:
    """The worker that tests share; what a test leaves running is destroyed after it."""
    yield _session_worker
    _session_worker.tidy()


@pytest.fixture
def make_spec() -> Callable[..., dict[str, Any]]:
    return spec_of


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, worker: WorkerHarness) -> str:
    """Each engine that works on this machine."""
    assert worker.conversation is not None
    reports = {report.name: report for report in worker.conversation.welcome.engines}
    report = reports.get(request.param)
    if report is None or not report.works:
        pytest.skip(f"{request.param} does not work here: {report and report.problem}")
    return str(request.param)


@pytest.fixture
def own_worker_type() -> type[WorkerHarness]:
    """For a test that starts its worker in its own way."""
    return WorkerHarness


@pytest.fixture
def tree() -> Callable[[Path], OwnedFd]:
    """Clone a file tree, as the manager does with what is donated."""
    return directory_tree


@pytest.fixture
def stdio_type() -> type[Stdio]:
    """For a test that donates streams in its own way."""
    return Stdio


@pytest.fixture
def encode_spec() -> Callable[[dict[str, Any]], bytes]:
    return msgspec.json.encode


@pytest.fixture
def repository() -> Path:
    """Where `python -m manager.worker` finds its package."""
    return REPOSITORY
