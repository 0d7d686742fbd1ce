"""Who still knows how a container ended after somebody was killed: sandtrail, podman, containerd.

Each starts a container that waits for a line and ends with 42. Then the service, or what stands
between it and the container, or both get a SIGKILL; the container gets its line; the service is
started again and asked. All of it is done several times, for an answer can be a matter of luck. As
root; what is not installed is left out. Exits with 1 if sandtrail does not answer as promised.
Usage::

    python -m benchmarks.compare_kills [ROUNDS]
"""

import argparse
import contextlib
import errno
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from typing_extensions import override

from benchmarks.contenders import make_rootfs
from manager.worker.capabilities import probe_pidfds

CODE = 42
LINE = "line"
"""A named pipe at the container's root. It has a reader as long as the container lives."""

SCRIPT = f"exec 3</{LINE}; read line <&3; exit {CODE}"
NAME = "victim"
PATIENCE_S = 30
PODMAN_PATIENCE_S = 10
RECORDING_S = 1
"""For whoever still waits for the container to notice its end."""

BOTH = "both are killed"
CASES: dict[str, Callable[["Contender"], None]] = {
    "the service is killed": lambda on: on.kill_service(),
    "what holds the container is killed": lambda on: on.kill_holder(),
    BOTH: lambda on: (on.kill_service(), on.kill_holder())[0],
}
LOST = re.compile(r"sandtrail: .*\bcontainer .* is lost: .+", re.DOTALL)


def told(command: list[str], *, timeout: float = PATIENCE_S) -> str:
    """What a command prints, both streams; empty if it does not end."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout + done.stderr


def processes_of(directory: Path, program: str, proc: Path = Path("/proc")) -> list[int]:
    """Pids of a service's processes; of whatever else runs, some ends while it is looked at."""
    found = []
    for entry in proc.iterdir():
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if program.encode() in command and bytes(directory) in command:
                found.append(int(entry.name))
    return found


def kill(pids: list[int]) -> None:
    """SIGKILL to each; that there is nobody would make the answer worthless."""
    if not pids:
        sys.exit("there is nobody to kill")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def writer_of(line: Path) -> int:
    """The named pipe's other end, once the container has opened its own; the caller closes it."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return os.open(line, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def end_container(writer: int) -> bool:
    """Give it its line and wait until it has ended; returns whether it was still alive."""
    try:
        os.write(writer, b"\n")
    except BrokenPipeError:
        return False
    poll = select.poll()
    poll.register(writer, 0)
    if not poll.poll(PATIENCE_S * 1000):
        sys.exit("the container does not end")
    return True


ITS_ID = re.compile(r"\b[0-9a-f]{64}\b")


class Contender(ABC):
    """One container manager, in a directory of its own."""

    name = ""

    def __init__(self, directory: Path, rootfs: Path) -> None:
        self.directory = directory
        self.rootfs = rootfs

    @abstractmethod
    def start(self) -> None:
        """Start the service, and the container."""

    @abstractmethod
    def kill_service(self) -> None:
        """SIGKILL."""

    @abstractmethod
    def kill_holder(self) -> None:
        """SIGKILL to what waits for the container's end."""

    @abstractmethod
    def ask(self) -> str:
        """Start the service again if it is gone, and ask how the container ended."""

    @abstractmethod
    def clean_up(self) -> None:
        """Leave nothing behind."""


class Sandtrail(Contender):
    """The service is the manager; its worker holds the container."""

    name = "sandtrail"

    def _command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "manager.cli", *args, "--root", str(self.directory)]

    def _serve(self) -> None:
        self._service = subprocess.Popen(
            self._command("serve", "--engine", "crun"), stdout=subprocess.PIPE, text=True
        )
        assert self._service.stdout is not None
        self._service.stdout.readline()

    @override
    def start(self) -> None:
        self._serve()
        run = ("run", "-d", "--name", NAME, "--rootfs", str(self.rootfs), "--overlay", "none")
        told([*self._command(*run), "--", "/bin/sh", "-c", SCRIPT])

    @override
    def kill_service(self) -> None:
        self._service.kill()
        self._service.wait()

    @override
    def kill_holder(self) -> None:
        kill(processes_of(self.directory, "manager.worker"))

    @override
    def ask(self) -> str:
        if self._service.poll() is not None:
            self._serve()
        return told(self._command("wait", NAME)).strip()

    @override
    def clean_up(self) -> None:
        told(self._command("rm", "--force", NAME))
        self._service.send_signal(signal.SIGTERM)
        self._service.wait()


class Podman(Contender):
    """It has no service: what is killed is conmon, or nothing."""

    name = "podman + conmon"

    def _command(self, *args: str) -> list[str]:
        places = ("--root", str(self.directory / "store"), "--runroot", str(self.directory / "run"))
        how = ("--cgroup-manager=cgroupfs", "--runtime", "runc", "--events-backend=none")
        return ["podman", *places, *how, *args]

    @override
    def start(self) -> None:
        limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000")
        run = ("run", "-d", "--name", NAME, "--network", "none", *limits)
        told(self._command(*run, "--rootfs", str(self.rootfs), "sh", "-c", SCRIPT))

    @override
    def kill_service(self) -> None:
        """There is none."""

    @override
    def kill_holder(self) -> None:
        shown = told(self._command("inspect", NAME, "--format", "{{.State.ConmonPid}}"))
        kill([int(shown)])

    @override
    def ask(self) -> str:
        waited = told(self._command("wait", NAME), timeout=PODMAN_PATIENCE_S).strip()
        return ITS_ID.sub(NAME, waited) or f"no answer in {PODMAN_PATIENCE_S} s"

    @override
    def clean_up(self) -> None:
        told(self._command("rm", "-f", NAME))
        told(self._command("system", "reset", "--force"))


class Containerd(Contender):
    """The shim holds the container."""

    name = "containerd + shim"

    def _serve(self) -> None:
        config = self.directory / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{self.directory}/root"\nstate = "{self.directory}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{self.directory}/sock"\n'
        )
        self._service = subprocess.Popen(
            ["containerd", "-c", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while "TASK" not in told(self._command("task", "ls")):
            time.sleep(0.1)

    def _command(self, *args: str) -> list[str]:
        return ["ctr", "-a", str(self.directory / "sock"), *args]

    @override
    def start(self) -> None:
        self._serve()
        told(
            self._command("run", "-d", "--rootfs", str(self.rootfs), NAME, "/bin/sh", "-c", SCRIPT)
        )

    @override
    def kill_service(self) -> None:
        self._service.kill()
        self._service.wait()

    @override
    def kill_holder(self) -> None:
        kill(processes_of(self.directory, "containerd-shim"))

    @override
    def ask(self) -> str:
        if self._service.poll() is not None:
            self._serve()
        listed = told(self._command("task", "ls"))
        shown = told(self._command("task", "rm", NAME))
        code = re.search(r"exit code (\d+)", shown)
        if code is not None:
            return code[1]
        return "no such task any more" if NAME not in listed else shown.strip()[-80:]

    @override
    def clean_up(self) -> None:
        told(self._command("task", "kill", "-s", "9", NAME))
        told(self._command("task", "rm", "-f", NAME))
        told(self._command("container", "rm", NAME))
        self._service.terminate()
        self._service.wait()


def said(answers: Sequence[str]) -> str:
    """A cell of the table: the answer, or each of them and how often it came."""
    counted = Counter(answers).most_common()
    if len(counted) == 1:
        return answers[0]
    return "; ".join(f"{answer} ({times} of {len(answers)})" for answer, times in counted)


def asked(contender: type[Contender], directory: Path, rootfs: Path, case: str) -> str:
    """What one of them answers after one case, in a new directory."""
    directory.mkdir()
    line = rootfs / LINE
    os.mkfifo(line)
    on = contender(directory, rootfs)
    on.start()
    writer = writer_of(line)
    CASES[case](on)
    alive = end_container(writer)
    os.close(writer)
    line.unlink()
    time.sleep(RECORDING_S)
    answer = on.ask() or "no answer"
    on.clean_up()
    return answer if alive else f"{answer}; its container died of it"


def as_promised(case: str, answer: str, *, told_by_pidfd: bool) -> bool:
    """Whether sandtrail has to answer so: the exit code, wherever the kernel can still tell it."""
    if case == BOTH and not told_by_pidfd:
        return LOST.fullmatch(answer) is not None
    return answer == str(CODE)


def main() -> int:
    """Print the table; 1 if sandtrail broke its promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", nargs="?", type=int, default=1, help="how often; 1 if not said")
    rounds = parser.parse_args().rounds
    contenders: list[type[Contender]] = [Sandtrail]
    contenders += [Podman] if shutil.which("podman") and shutil.which("conmon") else []
    contenders += [Containerd] if shutil.which("containerd") and shutil.which("ctr") else []
    print(
        "| " + " | ".join(["exit status known after", *(each.name for each in contenders)]) + " |"
    )
    print("|---" * (len(contenders) + 1) + "|")
    kept, told_by_pidfd = True, probe_pidfds()[0]
    with tempfile.TemporaryDirectory(prefix="compare-kills-", ignore_cleanup_errors=True) as name:
        rootfs = Path(name) / "rootfs"
        make_rootfs(rootfs, "sh")
        for number, case in enumerate(CASES):
            cells = []
            for contender in contenders:
                places = (Path(name) / f"{contender.__name__}{number}.{n}" for n in range(rounds))
                answers = [asked(contender, place, rootfs, case) for place in places]
                if contender is Sandtrail:
                    kept &= all(
                        as_promised(case, answer, told_by_pidfd=told_by_pidfd) for answer in answers
                    )
                cells.append(said(answers))
            print("| " + " | ".join([case, *cells]) + " |", flush=True)
    if not kept:
        print("sandtrail does not answer as promised", file=sys.stderr)
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())
