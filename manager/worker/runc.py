"""runc, which saves containers and brings them back through CRIU.

What is saved stands still and can go on as if nothing had been. CRIU takes most of its options from
a file whose place is named when the container is made. It is written before CRIU is called: what is
outside of the container (streams, trees that the worker has attached, namespaces that are the
sandbox's) is told there.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct
from typing_extensions import override

from manager.domain.features import Feature
from manager.kernel import mount
from manager.kernel.namespaces import names_of, open_namespace
from manager.kernel.paths import open_beneath
from manager.urpc.fds import OwnedFd
from manager.worker import commands
from manager.worker.criu import NAME_BYTES_MAX, first_error, names_image, options
from manager.worker.criu_streams import (
    StreamLost,
    check_kinds,
    check_successors,
    keys_of,
    kind_of,
    options_to_restore,
    options_to_save,
    read_keys,
)
from manager.worker.engine import Job, Running
from manager.worker.errors import LaunchFailed, one_line
from manager.worker.loop import Steps
from manager.worker.oci import OciEngine, write_private
from manager.worker.root_plan import RootPlan

IMAGE_SECONDS: Final = 600.0
"""Longest time for writing or reading one container's memory."""

OPTIONS_LABEL: Final = "org.criu.config"
"""Annotation by which runc is told of the file with CRIU's options."""

STREAMS_LABEL: Final = "sandtrail.streams"
TREES_LABEL: Final = "sandtrail.trees"
"""Annotations by which runc's own state has, for later, what a container was given."""

KEYS_FILE: Final = "descriptors.json"
"""Of an image: what runc calls the streams; see `criu_streams.read_keys`."""

_TELLABLE: Final = re.compile(r"/[A-Za-z0-9_./+@-]+", re.ASCII)
"""A path that CRIU's options can have in them."""


class _Namespace(Struct):
    type: str
    path: str = ""


class _Config(Struct):
    labels: list[str] = []
    namespaces: list[_Namespace] = []


class _State(Struct):
    """What is needed of a container's state as runc keeps it."""

    config: _Config

    def label(self, name: str) -> list[str]:
        for label in self.config.labels:
            key, _, value = label.partition("=")
            if key == name:
                return msgspec.json.decode(value, type=list[str])
        return []

    def joins(self, kind: str) -> bool:
        return any(each.type == kind and each.path for each in self.config.namespaces)


class RuncEngine(OciEngine):
    """runc on this machine."""

    @property
    @override
    def lacks(self) -> frozenset[Feature]:
        lacks = self._dialect.lacks | self._host.lacks
        return lacks | {"checkpoint"} if self._host.criu.problem else lacks

    @property
    @override
    def why_not(self) -> Mapping[Feature, str]:
        return {"checkpoint": self._host.criu.problem} if self._host.criu.problem else {}

    def unsaveable(self, running: Running) -> str:
        """See :class:`manager.worker.engine.SavingEngine`."""
        try:
            self._check_saveable(running)
        except StreamLost as problem:
            return f"runc cannot save a container: {problem}"
        return ""

    def save(self, running: Running, image: Path) -> Steps[str]:
        """See :class:`manager.worker.engine.SavingEngine`."""
        engine_id = running.engine_id
        state = self._state_of(engine_id)
        keys = keys_of(running.pid, state.label(STREAMS_LABEL))
        trees = (f"external mnt[{each}]:{each}" for each in state.label(TREES_LABEL))
        self._point_net(engine_id, f"/proc/{running.pid}/ns/net")
        argv = ["checkpoint", "--image-path", str(image), "--leave-running"]
        with self._told(engine_id, [*options_to_save(keys), *trees]), _room(image) as logs:
            result = yield from commands.run(
                self._host.processes,
                self._command(*argv, "--work-path", str(logs), "--", engine_id),
                seconds=IMAGE_SECONDS,
                nothing=self._host.nothing.number,
            )
            if result.code != os.EX_OK:
                return _cause("checkpoint", logs / "dump.log", result)
        (image / KEYS_FILE).write_bytes(msgspec.json.encode(keys))
        return ""

    def restore(self, job: Job, image: Path) -> Steps[Running]:
        """See :class:`manager.worker.engine.SavingEngine`."""
        if job.terminal:
            raise LaunchFailed("restore", "runc restore: it had no terminal when it was saved")
        try:
            keys = read_keys((image / KEYS_FILE).read_bytes())
            check_successors(keys, job.stdio)
        except (StreamLost, OSError) as problem:
            raise LaunchFailed("restore", f"runc restore: {problem}") from problem
        with contextlib.ExitStack() as owned:
            _rename_host(job, image)
            _leave_to_the_root(job, image)
            lines = [*options_to_restore(keys), *self._trees(job), *_joined(job)]
            owned.enter_context(self._told(job.engine_id, lines))
            self._write_config(job.stage.bundle, self._config(job))
            owned.callback((job.stage.bundle / "config.json").unlink, missing_ok=True)
            yield from self._restore(job, image, owned.enter_context(_room(image)))
        job.phases.lap("restore")
        running = self._take_init(job.engine_id, job.cgroup, job.stage.bundle)
        try:
            job.cgroup.add(running.pid)
        except LaunchFailed:
            self._let_go(running)
            raise
        return running

    @override
    def _config(self, job: Job) -> dict[str, object]:
        if "net" in job.namespaces:
            # A place that lasts as long as the container: runc looks there when it is saved.
            self._point_net(job.engine_id, f"/proc/{os.getpid()}/fd/{job.namespaces['net']}")
        config = super()._config(job)
        kinds = ["terminal"] * 3 if job.terminal else [kind_of(fd) for fd in job.stdio]
        labels = {STREAMS_LABEL: kinds, TREES_LABEL: _destinations(job.root_plan)}
        config["annotations"] = {
            OPTIONS_LABEL: str(self._options_path(job.engine_id)),
            **{name: msgspec.json.encode(value).decode() for name, value in labels.items()},
        }
        return config

    @override
    def _namespace_paths(self, job: Job) -> dict[str, str]:
        paths = super()._namespace_paths(job)
        if "net" in paths:
            paths["net"] = str(self._net_path(job.engine_id))
        return paths

    def _check_saveable(self, running: Running) -> None:
        """See that CRIU has what it takes.

        Raises:
            StreamLost: It has not; says what is missing.
        """
        try:
            state = self._state_of(running.engine_id)
            kinds = state.label(STREAMS_LABEL)
        except (OSError, msgspec.MsgspecError) as error:
            raise StreamLost(f"its state cannot be read: {error}") from error
        if not kinds:
            raise StreamLost("it was started by an earlier version of sandtrail")
        check_kinds(kinds)
        if state.joins("NEWPID"):
            raise StreamLost("it is in the PID namespace of another one")
        for destination in state.label(TREES_LABEL):
            if not _TELLABLE.fullmatch(destination):
                raise StreamLost(f"CRIU cannot be told of the mount at {destination!r}")

    def _state_of(self, engine_id: str) -> _State:
        content = (self._state_dir / engine_id / "state.json").read_bytes()
        return msgspec.json.decode(content, type=_State)

    def _options_path(self, engine_id: str) -> Path:
        return self._state_dir / f"{engine_id}.criu"

    def _net_path(self, engine_id: str) -> Path:
        return self._state_dir / f"{engine_id}.net"

    def _point_net(self, engine_id: str, target: str) -> None:
        path = self._net_path(engine_id)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    @contextlib.contextmanager
    def _told(self, engine_id: str, lines: Sequence[str]) -> Iterator[None]:
        path = self._options_path(engine_id)
        path.unlink(missing_ok=True)
        write_private(path, options(lines).encode("ascii"))
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def _trees(self, job: Job) -> Iterator[str]:
        """Have the trees that are attached in the root also where no client can move them."""
        with OwnedFd(os.open(job.stage.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
            for number, destination in enumerate(_destinations(job.root_plan)):
                with (
                    open_beneath(root.number, destination) as place,
                    mount.clone_tree(place.number) as tree,
                ):
                    is_file = not os.path.isdir(f"/proc/self/fd/{place.number}")
                    part = job.stage.attach_part(tree, f"again-{number}", is_file=is_file)
                yield f"external mnt[{destination}]:{part}"

    def _restore(self, job: Job, image: Path, logs: Path) -> Steps[None]:
        bundle = job.stage.bundle
        log = bundle / "restore.log"
        argv = self._command("--log", str(log), "--log-format", "json", "restore", "--detach")
        argv += ["--image-path", str(image), "--work-path", str(logs), "--bundle", str(bundle)]
        argv += ["--pid-file", str(bundle / "pid"), "--", job.engine_id]
        try:
            child = self._host.processes.spawn(argv, stdio=job.stdio)
        except OSError as error:
            raise LaunchFailed.from_os("restore", f"cannot run {self.path}", error) from error
        ended = yield from commands.finish(child, seconds=IMAGE_SECONDS)
        if not ended or child.status:
            output = log.read_text(errors="replace") if log.exists() else ""
            result = commands.Result(code=commands.exit_code(child), output=output)
            raise LaunchFailed("restore", _cause("restore", logs / "restore.log", result))

    @override
    def _command(self, *arguments: str) -> list[str]:
        criu = self._host.criu.path
        return super()._command(*(("--criu", str(criu)) if criu else ()), *arguments)


def _joined(job: Job) -> Iterator[str]:
    """The sandbox's namespaces that runc does not tell CRIU of by itself."""
    for name in ("uts", "ipc"):
        if name in job.namespaces:
            yield f"join-ns {name}:/proc/{os.getpid()}/fd/{job.namespaces[name]}"


def _rename_host(job: Job, image: Path) -> None:
    """Have CRIU set the names that count now, and not those that were saved.

    The root container has its new spec's; the others find the root's, and leave them so.

    Raises:
        LaunchFailed: Stage `restore`: a name is too long.
    """
    with contextlib.ExitStack() as owned:
        joined = job.namespaces.get("uts")
        if joined is None:
            joined = owned.enter_context(open_namespace(os.getpid(), "uts")).number
        hostname, domainname = names_of(joined)
    if "uts" not in job.namespaces:
        hostname = job.spec.hostname or hostname
        domainname = job.spec.domainname or domainname
    for name in (hostname, domainname):
        if len(name.encode()) > NAME_BYTES_MAX:
            reason = f"runc restore: a name has at most {NAME_BYTES_MAX} bytes, unlike {name!r}"
            raise LaunchFailed("restore", reason)
    for path in image.glob("utsns-*.img"):
        path.write_bytes(names_image(hostname, domainname))


def _leave_to_the_root(job: Job, image: Path) -> None:
    """Each container was saved with what the sandbox shares; the root brings it back, once."""
    if "ipc" in job.namespaces:
        for kind in ("shm", "msg", "sem"):
            for path in image.glob(f"ipcns-{kind}-*.img"):
                path.unlink()


def _destinations(plan: RootPlan) -> list[str]:
    return [each.destination for each in plan.attached]


def _cause(doing: str, log: Path, result: commands.Result) -> str:
    text = log.read_text(errors="replace") if log.exists() else ""
    why = first_error(text) or one_line(result.output) or f"it ended with {result.code}"
    return f"runc {doing}: {why}"


@contextlib.contextmanager
def _room(image: Path) -> Iterator[Path]:
    """A directory for CRIU's logs, beside an image; gone afterwards."""
    place = image.with_name(f"{image.name}.logs")
    place.mkdir(mode=0o700)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
