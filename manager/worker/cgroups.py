"""Control groups, written by ourselves: the same for every engine, on v1 and v2.

A container's cgroup is `sandtrail/<engine id>` in each hierarchy that is used. It is how all of a
container's processes are found, signalled at once, limited, and known to have run out of memory.

Source: cgroups(7).
"""

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from manager.kernel import mount
from manager.kernel.fail_points import reached
from manager.kernel.pidfd import open_pidfd
from manager.urpc.fds import OwnedFd
from manager.worker import cgroup_files
from manager.worker.errors import LaunchFailed
from manager.worker.family import Family
from manager.worker.hierarchies import Hierarchies, parse_hierarchies, parse_homes
from manager.worker.resources import Limit, Limits

PARENT: Final = "sandtrail"
"""Directory that holds the containers' cgroups."""

_V2_CONTROLLERS: Final = ("pids", "memory", "cpu")

KILL_ROUNDS_MAX: Final = 10
"""Rounds of killing everyone, for processes that fork meanwhile."""

_LINKS_OF_A_LEAF: Final = 2
"""Links of a cgroup's directory with none below: its own and its name; each one below adds one."""


class Cgroups:
    """The hierarchies of this machine, ready for containers.

    Args:
        hierarchies: Where they are.
        homes: The worker's own cgroups.
    """

    def __init__(self, hierarchies: Hierarchies, homes: tuple[Path, ...] = ()) -> None:
        self.hierarchies = hierarchies
        self._homes = homes

    @classmethod
    def prepare(cls) -> "Cgroups":
        """Find the hierarchies and make them usable; call inside the worker's mount namespace.

        Hierarchies that this user may not write count as none at all: a half-kept limit is none.
        On a hybrid machine the unused cgroup2 mount is taken away here: crun 1.8 refuses to run
        where it sees one that owns controllers.
        """
        hierarchies = parse_hierarchies(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
        if hierarchies.hybrid:
            _hide(hierarchies.hybrid)
        if not _are_writable(hierarchies):
            return cls(Hierarchies())
        if hierarchies.unified:
            root = Path(hierarchies.unified)
            _delegate(root)
            with contextlib.suppress(OSError):
                (root / PARENT).mkdir(exist_ok=True)
                _delegate(root / PARENT)
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8")
        return cls(hierarchies, parse_homes(own, hierarchies))

    @property
    def path_taken(self) -> str:
        """For the record: `v1(...)`, `v2` or `none`."""
        if self.hierarchies.v1:
            return f"v1({','.join(sorted(self.hierarchies.v1))})"
        return "v2" if self.hierarchies.unified else "none"

    @property
    def has_device_rules(self) -> bool:
        """Whether access to devices can be restricted; on v2 that takes BPF, which is not done."""
        return "devices" in self.hierarchies.v1

    @property
    def has_freezer(self) -> bool:
        """Whether all processes of a container can be stopped at once."""
        return bool(self.hierarchies.unified) or "freezer" in self.hierarchies.v1

    def of_launch(self, engine_id: str) -> "Cgroup":
        """Name a container's cgroup; `create()` makes it."""
        if self.hierarchies.unified:
            directory = Path(self.hierarchies.unified, PARENT, engine_id)
            return Cgroup(f"/{PARENT}/{engine_id}", {"": directory}, self._homes)
        directories = {
            name: Path(place, PARENT, engine_id) for name, place in self.hierarchies.v1.items()
        }
        return Cgroup(f"/{PARENT}/{engine_id}", directories, self._homes)


class Cgroup:
    """One container's cgroup.

    Attributes:
        path: Its path below each hierarchy's root, for `linux.cgroupsPath`.
    """

    def __init__(
        self, path: str, directories: dict[str, Path], homes: tuple[Path, ...] = ()
    ) -> None:
        self.path = path
        self._homes = homes
        self._directories = directories
        # Each once: controllers may share a hierarchy.
        self._places = tuple(dict.fromkeys(map(str, directories.values())))
        self._unified = directories.get("")
        self._family = None if directories else Family()
        self._guests: set[int] = set()

    def create(self) -> None:
        """Make it, without limits.

        Raises:
            LaunchFailed: Stage `cgroup`.
        """
        try:
            for place in self._places:
                os.makedirs(place, exist_ok=True)
                reached("cgroup.made")
        except OSError as error:
            raise LaunchFailed.from_os("cgroup", "cannot make the cgroup", error) from error

    def limit(self, limits: Limits) -> None:
        """Set the limits.

        Raises:
            LaunchFailed: Stage `cgroup`: a limit that this machine cannot keep.
        """
        for limit in limits.v2 if self._unified else limits.v1:
            directory = self._unified or self._directories.get(limit.controller)
            if directory is None:
                if limit.controller == "devices":
                    continue
                reason = f"{limit.file} is asked for, and there is no {limit.controller} controller"
                raise LaunchFailed("cgroup", reason)
            try:
                cgroup_files.put(f"{directory}/{limit.file}", self._with_guests(limit))
            except OSError as error:
                doing = f"cannot set {limit.file} to {limit.value}"
                raise LaunchFailed.from_os("cgroup", doing, error) from error

    def _with_guests(self, limit: Limit) -> str:
        if limit.file == "pids.max" and limit.value.isdigit():
            return str(int(limit.value) + self.guests)
        return limit.value

    def add(self, pid: int) -> None:
        """Move a process (all its threads) in.

        Raises:
            LaunchFailed: Stage `cgroup`.
        """
        if self._family is not None:
            self._family.admit(pid)
        try:
            for place in self._places:
                cgroup_files.put(f"{place}/cgroup.procs", str(pid))
        except OSError as error:
            raise LaunchFailed.from_os("cgroup", "cannot join the cgroup", error) from error

    @contextlib.contextmanager
    def inhabited(self) -> Iterator[bool]:
        """Be in it for the length of a block: a process that is started there is born in it.

        Moving a process by its number has the kernel wait until no processor is in the middle of a
        fork or an exit, 5 to 20 ms on a machine at rest; a thread that moves itself spares it that.
        Only v1 lets a single thread move itself.

        Yields:
            Whether it is so; if not, nothing was done, and `add` is what there is.

        Raises:
            LaunchFailed: Stage `cgroup`; this process is where it was.
        """
        moves_itself = self._homes and self._family is None and self._unified is None
        # Whoever enters what is frozen is frozen.
        if not moves_itself or self.read("freezer", "freezer.state") not in {None, "THAWED"}:
            yield False
            return
        try:
            for place in self._places:
                _move_here(place)
        except OSError as error:
            self._go_home()
            raise LaunchFailed.from_os("cgroup", "cannot join the cgroup", error) from error
        try:
            yield True
        finally:
            self._go_home()

    def _go_home(self) -> None:
        try:
            for home in self._homes:
                _move_here(str(home))
        except OSError:
            # Somebody has removed the worker's own cgroup: anywhere but in a container's.
            for place in self._places:
                _move_here(str(Path(place).parent.parent))

    def host(self, pid: int) -> None:
        """Have a process here that is not part of the container: it counts nowhere.

        To move it out again would have the kernel wait, see :meth:`inhabited`. It is frozen with
        the others; limits that are set afterwards leave room for it.
        """
        if self._family is not None:
            self._family.dismiss(pid)
        else:
            self._guests.add(pid)

    @property
    def guests(self) -> int:
        """How many processes it has that are not part of the container."""
        return len(self._guests)

    def note_init(self, pid: int) -> None:
        """Learn which of its processes is the container's init."""
        if self._family is not None:
            self._family.admit(pid)

    def pids(self) -> tuple[int, ...]:
        """Every process in it, in any hierarchy, as numbered in the worker's PID namespace."""
        if self._family is not None:
            return self._family.pids()
        found: set[int] = set()
        for place in self._places:
            for directory in _with_those_below(place):
                with contextlib.suppress(OSError):
                    text = cgroup_files.get(f"{directory}/cgroup.procs")
                    found.update(map(int, text.split()))
        return tuple(sorted(found - self._guests))

    def signal_everyone(self, signo: int, *, spared: Sequence[int] = ()) -> int:
        """Signal all processes but `spared`, frozen so that none forks away; returns how many.

        What was paused before stays so, unless the signal is SIGKILL: nothing dies while frozen.
        """
        paused = signo != signal.SIGKILL and self.is_frozen()
        self.freeze(True)
        try:
            return _signal_all([pid for pid in self.pids() if pid not in spared], signo)
        finally:
            if not paused:
                self.freeze(False)

    def kill_everyone(self) -> bool:
        """Kill until nobody is left, without waiting; returns whether there was anybody."""
        anybody = False
        for _ in range(KILL_ROUNDS_MAX):
            if self._family is not None:
                self._family.hold_still()
            found = self.pids()
            anybody = anybody or bool(found)
            if not _signal_all(found, signal.SIGKILL):
                break
            self.freeze(False)
        return anybody

    def ran_out_of_memory(self) -> bool:
        """Whether the memory controller has killed for want of memory."""
        name = "memory.events" if self._unified else "memory.oom_control"
        return self.read_table("memory", name).get("oom_kill", 0) > 0

    def existing(self) -> list[Path]:
        """Its directories that are there."""
        return [Path(place) for place in self._places if os.path.isdir(place)]

    def remove(self) -> list[str]:
        """Remove it; returns what could not be, for whoever tries again."""
        left = []
        for place in self._places:
            try:
                _remove_tree(place)
            except FileNotFoundError:
                continue
            except OSError as error:
                left.append(f"{place}: {error.strerror}")
        return left

    def freeze(self, frozen: bool) -> None:
        """Have the kernel stop everybody, or let them go on; it takes it a moment."""
        if self._unified:
            file, value = self._unified / "cgroup.freeze", str(int(frozen))
        elif "freezer" in self._directories:
            file = self._directories["freezer"] / "freezer.state"
            value = "FROZEN" if frozen else "THAWED"
        else:
            return
        with contextlib.suppress(OSError):
            cgroup_files.put(str(file), value)

    def is_frozen(self) -> bool:
        """Whether everybody has stopped."""
        if self._unified:
            return self.read_table("", "cgroup.events").get("frozen") == 1
        return self.read("freezer", "freezer.state") == "FROZEN"

    def read(self, controller: str, name: str) -> str | None:
        """What a file of a controller says (v2: of the one hierarchy); `None` if there is none."""
        directory = self._unified or self._directories.get(controller)
        if directory is None:
            return None
        try:
            return cgroup_files.get(f"{directory}/{name}").strip()
        except OSError:
            return None

    def read_table(self, controller: str, name: str) -> dict[str, int]:
        """A file of lines with a word and a number each."""
        lines = (line.split() for line in (self.read(controller, name) or "").splitlines())
        return {words[0]: int(words[1]) for words in lines if len(words) == 2}

    @property
    def is_unified(self) -> bool:
        """Whether this is cgroup v2."""
        return self._unified is not None


def _signal_all(pids: Sequence[int], signo: int) -> int:
    count = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError), open_pidfd(pid) as pidfd:
            signal.pidfd_send_signal(pidfd.number, signo)
            count += 1
    return count


def _with_those_below(directory: str) -> Iterator[str]:
    # Whoever has a cgroup mount may hide a process in a cgroup of its own below.
    yield directory
    with contextlib.suppress(OSError):
        if os.stat(directory).st_nlink > _LINKS_OF_A_LEAF:
            for parent, below, _ in os.walk(directory):
                yield from (f"{parent}/{name}" for name in below)


def _remove_tree(directory: str) -> None:
    # A container with a cgroup mount may have made cgroups of its own below.
    if os.stat(directory).st_nlink > _LINKS_OF_A_LEAF:
        for parent, _, _ in os.walk(directory, topdown=False):
            if parent != directory:
                os.rmdir(parent)
    os.rmdir(directory)


def _move_here(directory: str) -> None:
    """Move this thread, the only one of its process, into a v1 cgroup."""
    cgroup_files.put(f"{directory}/tasks", "0")


def _hide(place: str) -> None:
    try:
        mount.unmount(place)
    except OSError:
        # Mounts that came with a user namespace cannot be taken away there, only covered.
        with (
            contextlib.suppress(OSError),
            mount.tmpfs() as cover,
            OwnedFd(os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as target,
        ):
            mount.attach(cover.number, target.number)


def _are_writable(hierarchies: Hierarchies) -> bool:
    places = [*hierarchies.v1.values(), *filter(None, [hierarchies.unified])]
    return all(os.access(place, os.W_OK) for place in places)


def _delegate(directory: Path, controllers: Iterable[str] = _V2_CONTROLLERS) -> None:
    for name in controllers:
        with contextlib.suppress(OSError):
            (directory / "cgroup.subtree_control").write_text(f"+{name}", encoding="ascii")
