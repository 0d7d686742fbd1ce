"""Whatever a manager says to its worker: done, refused or ignored, and nothing of it stays."""

import array
import logging
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from manager.application.default_spec import default_spec
from manager.domain.payload import LaunchPlan, LayerPlan, MountPlan
from manager.schema import worker as w
from manager.urpc.fds import OwnedFd
from manager.urpc.frames import FrameDecoder, encode_frame
from manager.urpc.unix_address import UnixListener
from manager.worker.cgroups import Cgroups
from manager.worker.ends import Ends
from manager.worker.exec_records import ExecRecords
from manager.worker.hierarchies import Hierarchies
from manager.worker.keeping import Keeping
from manager.worker.log_mark import LogMarkFile
from manager.worker.loop import Loop
from manager.worker.machine import Machine
from manager.worker.processes import Processes
from manager.worker.records import Records
from manager.worker.server import Server
from manager.worker.stage import Stage
from tests.fuzz.fuzzing import INPUTS, fuzz
from tests.fuzz.hostile import bodies, sample
from tests.fuzz.test_fuzz import SLOW_SHARE
from tests.patience import PATIENCE_S

IDENTITY = w.PidIdentity(pid=1, start_ticks=2, pidfd_inode=3, boot_id="b")
HELLO = w.Hello(protocol=w.PROTOCOL_VERSION, manager_pid=7)
EVERYTHING = w.Ack(seq=1 << 60)
LAYER = LayerPlan(lower="lisafs", lower_fd=3)
LAUNCH = w.Launch(
    launch_id="L-1",
    engine_id="0" * 32,
    engine="crun",
    spec=msgspec.json.encode(default_spec(args=["/bin/true"])),
    plan=LaunchPlan(
        stdio=(0, 1, 2), root=LAYER, mounts=(MountPlan(destination="/data", layer=LAYER),)
    ),
)
PROCESS = w.ExecProcess(args=("/bin/true",), env=("A=b",), guest_fds=(0, 1))
SAVE = w.Save(checkpoint_id="C-1", launch_ids=("L-1",), metadata=b"{}", resume=True)
SAMPLES = [
    sample(HELLO, w.Hold(hold_id="H-1", spec=b"{}"), LAUNCH, w.Destroy(launch_id="L-1")),
    sample(HELLO, msgspec.structs.replace(LAUNCH, held_fds="H-1", held_tty="H-2", spec=b"")),
    sample(HELLO, msgspec.structs.replace(LAUNCH, held_image="H-1", namespaces=("net", "ipc"))),
    sample(HELLO, w.Hold(hold_id="H-1"), w.Hold(hold_id="H-1"), w.Release(hold_id="H-1")),
    sample(HELLO, w.Kill(kill_id="K", launch_id="L-1", signo=9, pid=1, mode=1), w.Retell()),
    sample(HELLO, w.Execute(exec_id="E", launch_id="L-1", process=PROCESS), w.Stop()),
    sample(HELLO, SAVE, msgspec.structs.replace(SAVE, checkpoint_id="../../kept"), w.Stop()),
    sample(HELLO, w.Freeze(pause_id="P", launch_ids=("L-1",), frozen=True), HELLO),
    sample(HELLO, w.Ask(ask_id="A", launch_ids=("L-1",), what="details")),
    sample(HELLO, w.Ack(seq=1, mark=w.LogMark(boot_id="b", position=1, leaf_hash=b"l"))),
    sample(w.Stop(), HELLO),
]
"""Each first message is a greeting: who gives none is not listened to."""


class Worker:
    """The worker's own server, on a machine without engines, so that nothing is started."""

    def __init__(self, directory: Path, owned: ExitStack) -> None:
        self.path = directory / "worker.sock"
        self._crash: list[BaseException] = []
        self._loop = Loop()
        owned.callback(self._loop.close)
        processes = owned.enter_context(closing(Processes(self._loop)))
        owned.callback(signal.signal, signal.SIGCHLD, signal.SIG_DFL)
        nothing = owned.enter_context(OwnedFd(os.open(os.devnull, os.O_RDWR)))
        for name in ("images", "engines"):
            (directory / name).mkdir()
        machine = Machine(
            processes=processes,
            stage=Stage(directory / "stage"),
            cgroups=Cgroups(Hierarchies()),
            nothing=nothing,
            overlay_by_fd=True,
            rootless=False,
            boot_id="b",
            records=Records(directory / "launches", "b"),
            exec_records=ExecRecords(directory / "execs"),
            ends=Ends(directory / "ends"),
            log_mark=LogMarkFile(directory / "log-mark"),
            keeping=Keeping(directory, processes),
            engine_states=directory / "engines",
            images=directory / "images",
            engines={},
            absent={},
        )
        listener = UnixListener.bind(self.path)
        self._server = Server(self._loop, listener, machine, lambda: None)
        self._server.open(
            w.Welcome(
                protocol=w.PROTOCOL_VERSION,
                worker=IDENTITY,
                kernel="6",
                engines=(),
                capabilities={},
            )
        )
        self._wake, self._woken = socket.socketpair()
        owned.callback(self._wake.close)
        owned.callback(self._woken.close)
        self._loop.watch(self._woken.fileno(), self._loop.stop)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        owned.callback(self._end)

    def _run(self) -> None:
        try:
            self._loop.run()
        except BaseException as error:
            self._crash.append(error)
        finally:
            self._server.close()  # whoever waits for an answer sees the end

    def _end(self) -> None:
        self._wake.send(b"x")
        self._thread.join(PATIENCE_S)
        assert not self._crash

    def told(self, frames: Iterator[tuple[bytes, list[int]]]) -> list[Any]:
        """Say all of that, and hear what is answered until it hangs up."""
        answers: list[Any] = []
        with socket.socket(socket.AF_UNIX) as sock, closing(FrameDecoder()) as decoder:
            sock.settimeout(PATIENCE_S)
            sock.connect(str(self.path))
            try:
                for body, fds in frames:
                    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
                    sock.sendmsg([encode_frame(body, len(fds))], [rights] if fds else [])
                sock.shutdown(socket.SHUT_WR)
                while data := sock.recv(65536):
                    answers += [w.decode_from_worker(e.body) for e in decoder.receive_data(data)]
            except ConnectionError:
                assert not self._crash, "cut off, as who breaks the protocol is"
        return answers

    def tidied(self) -> None:
        """Have it let go of what it was given, as an honest manager does."""
        [welcome, *_] = self.told(iter([(w.encode(HELLO), [])]))
        assert isinstance(welcome, w.Welcome)
        after = [HELLO, *(w.Release(hold_id=each) for each in welcome.held), EVERYTHING]
        self.told((w.encode(each), []) for each in after)


def test_a_worker_is_told_anything(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    directory = tmp_path / "state" / "worker"
    directory.mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    (tmp_path / "state" / "kept").mkdir()
    null = os.open(os.devnull, os.O_RDONLY)
    seen: Counter[bool] = Counter()
    with ExitStack() as owned:
        owned.callback(os.close, null)
        worker = Worker(directory, owned)
        before = set(os.listdir("/proc/self/fd"))

        def target(data: bytes) -> None:
            def frames() -> Iterator[tuple[bytes, list[int]]]:
                for number, (body, good) in enumerate(bodies(data, w.ToWorker, w.decode_to_worker)):
                    seen[good] += 1
                    yield body, [null] * ((len(body) + number) % 5)

            worker.told(frames())
            worker.tidied()
            deadline = time.monotonic() + PATIENCE_S
            while len(os.listdir("/proc/self/fd")) != len(before):  # its thread may be closing one
                assert time.monotonic() < deadline, os.listdir("/proc/self/fd")
                time.sleep(0.001)
            assert not caplog.records, caplog.text

        for each in SAMPLES:
            target(each)
        inputs = INPUTS // SLOW_SHARE
        assert fuzz(target, SAMPLES, inputs) >= inputs
    assert seen[True] > inputs, "most are read, and not found to be none at once"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["kept", "state"]
    assert sorted(each.name for each in directory.parent.iterdir()) == ["kept", "worker"]
    assert list(directory.rglob("*/*")) == [], "nothing was started or saved"
