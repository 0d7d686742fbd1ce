"""What starts a container without sandtrail: bare engines, podman and containerd.

Each runs `true` from the same root filesystem to its end, with nothing on its streams, and leaves
nothing behind. *As asked* is what sandtrail gives a container: a PID and a mount namespace of its
own, net, IPC and UTS namespaces joined from another container, a cgroup in every hierarchy.
"""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from msgspec import Struct
from typing_extensions import override

from manager import default_spec
from manager.kernel import mount, namespaces
from manager.urpc.fds import OwnedFd
from manager.worker.cgroups import Cgroups
from manager.worker.engines import find_programs

JOINED = {"network": "net", "ipc": "ipc", "uts": "uts"}
"""Namespaces that containers of a sandbox share: OCI's name -> the kernel's."""

CRUN = ("crun", "--cgroup-manager=cgroupfs")
CRUN_ALONE = ("crun", "--cgroup-manager=disabled")
RUNSC = ("runsc", "--platform=ptrace", "--network=none", "--ignore-cgroups")
CRUN_RUN = "crun run"
CRUN_LESS = "crun run, new namespaces, no cgroup"
CRUN_OVERLAY = "crun run, overlay"
RUNC_RUN = "runc run"
BWRAP = "bwrap"
BWRAP_LESS = "bwrap, new namespaces, no cgroup"
RUNSC_RUN = "runsc run"
PODMAN_RUN = "podman run (crun)"
CTR_RUN = "ctr run (crun)"
ONE_START_SECONDS = 60
NOTHING = (subprocess.DEVNULL,) * 3


class Batch(Struct, frozen=True):
    """What a contender did: seconds of each start to its end, seconds of all of them together."""

    lives: list[float]
    elapsed: float


class Room(Struct, frozen=True):
    """Where contenders work.

    Attributes:
        directory: Theirs; short enough for the names of sockets.
        rootfs: What all run from.
        holder: Process whose net, IPC and UTS namespaces are joined.
        cgroups: The machine's.
    """

    directory: Path
    rootfs: Path
    holder: int
    cgroups: Cgroups

    def bundle(self, name: str, *, join: bool, root: Path | None = None) -> Path:
        """Write an OCI bundle."""
        spec = container_spec("/bin/true")
        if join:
            for entry in spec["linux"]["namespaces"]:
                if entry["type"] in JOINED:
                    entry["path"] = f"/proc/{self.holder}/ns/{JOINED[entry['type']]}"
            # The UTS namespace is another's: so is the name in it.
            del spec["hostname"]
        spec["root"]["path"] = str(root or self.rootfs)
        bundle = self.directory / name
        bundle.mkdir(exist_ok=True)
        (bundle / "config.json").write_text(json.dumps(spec))
        return bundle


def container_spec(*args: str) -> dict[str, Any]:
    """What every contender runs: a read-only root, the usual mounts and capabilities."""
    return default_spec(args=args, readonly=True)


def make_rootfs(root: Path, *applets: str) -> None:
    """A root filesystem with these commands, and every mount point that the spec needs."""
    busybox = shutil.which("busybox")
    if busybox is None:
        sys.exit("needs busybox: apt-get install -y busybox-static")
    for name in ("bin", "proc", "dev", "sys", "etc", "tmp", "run"):
        (root / name).mkdir(parents=True)
    shutil.copy2(busybox, root / "bin" / "busybox")
    for name in applets:
        (root / "bin" / name).symlink_to("busybox")


def enter_own_mount_namespace() -> None:
    """Leave the machine's mounts alone, and hide what crun 1.8 refuses to see (see Cgroups)."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mount.make_private("/")
    Cgroups.prepare()


class Contender(ABC):
    """Something that starts containers.

    Attributes:
        name: For the table.
        slow: Whether a start takes more than a tenth of a second: it gets fewer of them.
    """

    name = ""
    slow = False

    @abstractmethod
    def measure(self, count: int, concurrency: int) -> Batch:
        """Start `count` containers, `concurrency` of them at a time, each to its end."""

    def close(self) -> None:  # noqa: B027 - most have nothing to do
        """Leave nothing behind."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Command(Contender):
    """A program that runs a container to its end."""

    @override
    def measure(self, count: int, concurrency: int) -> Batch:
        with ThreadPoolExecutor(concurrency) as pool:
            began = time.perf_counter()
            lives = list(pool.map(lambda _: self._timed(), range(count)))
            return Batch(lives, time.perf_counter() - began)

    def _timed(self) -> float:
        began = time.perf_counter()
        self.run()
        return time.perf_counter() - began

    @abstractmethod
    def run(self) -> None:
        """One container from nothing to nothing."""


class OciRun(Command):
    """`run` of an OCI runtime in the foreground.

    Args:
        room: Where.
        name: For the table.
        command: Program and global options; `--root` is added.
        bundle: What to run.
    """

    def __init__(self, room: Room, name: str, command: Sequence[str], bundle: Path) -> None:
        self.name = name
        self.slow = command[0] == "runsc"
        self._command = [*command, "--root", str(room.directory / command[0])]
        self._bundle = bundle
        self._numbers = itertools.count()

    @override
    def run(self) -> None:
        self._run(self._bundle)

    def _run(self, bundle: Path) -> None:
        number = next(self._numbers)
        checked([*self._command, "run", "--bundle", str(bundle), f"{bundle.name}-{number}"])


class OciRunOnOverlay(OciRun):
    """The same with a root that can be written: an overlay whose upper layer is in memory."""

    def __init__(self, room: Room, name: str, command: Sequence[str]) -> None:
        super().__init__(room, name, command, room.bundle("overlaid", join=True))
        self._room = room

    @override
    def run(self) -> None:
        place = self._room.directory / f"overlay-{next(self._numbers)}"
        place.mkdir()
        with overlay(self._room.rootfs, place) as root:
            self._run(self._room.bundle(f"{place.name}-bundle", join=True, root=root))


@contextlib.contextmanager
def overlay(lower: Path, place: Path) -> Iterator[Path]:
    """An overlay on a directory, its upper layer in memory, at `place/root`."""
    attach(mount.tmpfs("64m"), place)
    try:
        for name in ("upper", "work", "root"):
            (place / name).mkdir()
        with mount.FilesystemContext("overlay") as context:
            context.set_string("source", "bench")
            context.set_string("lowerdir", str(lower))
            context.set_string("upperdir", str(place / "upper"))
            context.set_string("workdir", str(place / "work"))
            attach(context.mount(), place / "root")
        yield place / "root"
    finally:
        mount.unmount(str(place))
        place.rmdir()


def attach(tree: OwnedFd, place: Path) -> None:
    """Attach a detached mount at a path."""
    with tree, OwnedFd(os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as target:
        mount.attach(tree.number, target.number)


class Bwrap(Command):
    """bubblewrap with the mounts and capabilities of the spec.

    Args:
        room: Where.
        as_asked: Join namespaces and make a cgroup, as sandtrail does; else new namespaces and no
            cgroup.
    """

    def __init__(self, room: Room, *, as_asked: bool) -> None:
        self.name = BWRAP if as_asked else BWRAP_LESS
        self._room = room
        self._as_asked = as_asked
        self._numbers = itertools.count()
        spec = container_spec("/bin/true")
        granted = spec["process"]["capabilities"]["bounding"]
        unshared = ["pid"] if as_asked else ["pid", "net", "ipc", "uts"]
        self._command = [
            find_bwrap(),
            *("--cap-drop", "ALL", "--as-pid-1", "--new-session", "--clearenv"),
            *(f"--unshare-{name}" for name in unshared),
            *(word for capability in granted for word in ("--cap-add", capability)),
            *("--ro-bind", str(room.rootfs), "/", "--proc", "/proc", "--dev", "/dev"),
            *("--ro-bind", "/sys", "/sys", "--setenv", "PATH", "/bin", "--", "/bin/true"),
        ]

    @override
    def run(self) -> None:
        if not self._as_asked:
            checked(self._command)
            return
        cgroup = self._room.cgroups.of_launch(f"bench-{next(self._numbers)}")
        cgroup.create()
        with contextlib.ExitStack() as stack:
            joined = {
                name: stack.enter_context(namespaces.open_namespace(self._room.holder, name))
                for name in JOINED.values()
            }
            with namespaces.entered({name: owner.number for name, owner in joined.items()}):
                process = subprocess.Popen(self._command, stdin=NOTHING[0], stdout=NOTHING[1])
        cgroup.add(process.pid)
        if process.wait(ONE_START_SECONDS):
            sys.exit(f"{self.name} ended with {process.returncode}")
        while cgroup.remove():
            time.sleep(0.001)


def find_bwrap() -> str:
    """The program that sandtrail uses."""
    found = {program.name: program.path for program in find_programs({})}
    return str(found["bwrap"] or "bwrap")


class Podman(Command):
    """`podman run` with crun: it has no service."""

    name = PODMAN_RUN
    slow = True

    def __init__(self, room: Room) -> None:
        state = room.directory / "podman"
        self._places = ["podman", "--root", str(state / "store"), "--runroot", str(state / "run")]
        self._command = [
            *(*self._places, "--cgroup-manager=cgroupfs", "--runtime", "crun"),
            *("--events-backend=none", "run", "--rm", "--network", "none", "--read-only"),
            # Without these it asks for limits that not every root may set.
            *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"),
            *("--rootfs", str(room.rootfs), "/bin/true"),
        ]

    @override
    def run(self) -> None:
        checked(self._command)

    @override
    def close(self) -> None:
        command = [*self._places, "system", "reset", "--force"]
        subprocess.run(command, check=False, capture_output=True, timeout=ONE_START_SECONDS)


class Containerd(Command):
    """`ctr run` with crun under containerd's shim for runc."""

    name = CTR_RUN
    slow = True

    def __init__(self, room: Room) -> None:
        state = room.directory / "ctrd"
        state.mkdir()
        config = state / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{state}/root"\nstate = "{state}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{state}/sock"\n'
        )
        self._service = subprocess.Popen(
            ["containerd", "-c", str(config)], stdout=NOTHING[1], stderr=NOTHING[2]
        )
        self._ctr = ["ctr", "-a", str(state / "sock")]
        self._rootfs = str(room.rootfs)
        self._numbers = itertools.count()
        for _ in range(100):
            if not subprocess.run(
                [*self._ctr, "version"], check=False, capture_output=True
            ).returncode:
                return
            time.sleep(0.1)
        sys.exit("containerd does not answer")

    @override
    def run(self) -> None:
        what = ("run", "--rm", "--runc-binary", shutil.which("crun") or "crun", "--read-only")
        name = f"bench-{next(self._numbers)}"
        checked([*self._ctr, *what, "--rootfs", self._rootfs, name, "/bin/true"])

    @override
    def close(self) -> None:
        self._service.terminate()
        self._service.wait()


def checked(command: Sequence[str]) -> None:
    """Run a program without streams to its good end."""
    process = subprocess.Popen(command, stdin=NOTHING[0], stdout=NOTHING[1], stderr=NOTHING[2])
    if process.wait(ONE_START_SECONDS):
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")


def bare_contenders(room: Room) -> Iterator[tuple[str, bool, Callable[[], Contender] | None]]:
    """Every contender: its name, whether it is slow; `None` if its program is not installed."""
    asked = room.bundle("asked", join=True)
    new = room.bundle("new", join=False)
    table: dict[str, tuple[tuple[str, ...], Callable[[], Contender]]] = {
        CRUN_RUN: (("crun",), lambda: OciRun(room, CRUN_RUN, CRUN, asked)),
        CRUN_LESS: (("crun",), lambda: OciRun(room, CRUN_LESS, CRUN_ALONE, new)),
        CRUN_OVERLAY: (("crun",), lambda: OciRunOnOverlay(room, CRUN_OVERLAY, CRUN)),
        RUNC_RUN: (("runc",), lambda: OciRun(room, RUNC_RUN, ("runc",), asked)),
        BWRAP: ((find_bwrap(),), lambda: Bwrap(room, as_asked=True)),
        BWRAP_LESS: ((find_bwrap(),), lambda: Bwrap(room, as_asked=False)),
        RUNSC_RUN: (("runsc",), lambda: OciRun(room, RUNSC_RUN, RUNSC, new)),
        PODMAN_RUN: (("podman", "conmon", "crun"), lambda: Podman(room)),
        CTR_RUN: (("containerd", "ctr", "crun"), lambda: Containerd(room)),
    }
    for name, (programs, make) in table.items():
        slow = name in {RUNSC_RUN, PODMAN_RUN, CTR_RUN}
        yield name, slow, make if all(map(shutil.which, programs)) else None
