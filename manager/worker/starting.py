"""From a request to a container whose code runs: look up, assemble, create, start."""

import errno
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from manager.domain.features import features_needed
from manager.domain.spec import Spec, parse_spec
from manager.kernel.fail_points import reached
from manager.schema import worker as w
from manager.urpc.fds import FdBundle, OwnedFd
from manager.worker.assemble import Assembly
from manager.worker.cgroups import Cgroup
from manager.worker.engine import Engine, Job, Running, SavingEngine
from manager.worker.errors import LaunchFailed
from manager.worker.exec_order import kept_members
from manager.worker.home import with_home
from manager.worker.images import extract
from manager.worker.loop import Steps
from manager.worker.machine import Machine
from manager.worker.phases import Phases
from manager.worker.resources import limits_of
from manager.worker.root_plan import plan_root
from manager.worker.stage import LaunchStage
from manager.worker.unpacking import unpack_into


class Request(Struct, kw_only=True):
    """A launch with everything that it names looked up. Owns its descriptors.

    Attributes:
        command: As the manager sent it.
        spec: The spec's JSON, env values included.
        fds: What the plan's indices point into.
        terminal: The container's terminal, if it has one.
        engine: What starts it.
        namespaces: Namespaces to join, by name; duplicates of the other container's.
        image: What it goes on from, if it does not start anew.
    """

    command: w.Launch
    spec: bytes
    fds: FdBundle
    terminal: OwnedFd | None
    engine: Engine
    namespaces: dict[str, OwnedFd]
    image: OwnedFd | None = None

    def close(self) -> None:
        """Close every descriptor."""
        self.fds.close()
        for namespace in self.namespaces.values():
            namespace.close()
        if self.terminal is not None:
            self.terminal.close()
        if self.image is not None:
            self.image.close()


def start_container(
    request: Request, machine: Machine, *, stage: LaunchStage, cgroup: Cgroup, phases: Phases
) -> Steps[Running]:
    """Start it; on failure what was made so far is left for the caller to remove.

    Raises:
        LaunchFailed: With the stage that failed.
    """
    plan = request.command.plan
    spec = _parse(request.spec)
    _check_features(spec, request)
    stdio = _stdio(request)
    root_plan = plan_root(spec, plan, every_mount_point=request.engine.serves_files)
    limits = limits_of(spec)
    try:
        stage.create()
    except OSError as error:
        raise LaunchFailed.from_os("mounts", "cannot make a place on the stage", error) from error
    assembly = Assembly(root_plan, stage, request.fds, overlay_by_fd=machine.overlay_by_fd)
    fill = None
    if plan.upper_tar_fd is not None:
        tar = _donated(request.fds, plan.upper_tar_fd)
        fill = unpack_into(machine, tar)
    yield from assembly.build(fill)
    phases.lap("mounts")
    body = msgspec.json.decode(request.spec, type=dict[str, object])
    try:
        machine.records.starting(request.command, kept_members(body))
    except OSError as error:
        raise LaunchFailed.from_os("create", "it cannot be recorded", error) from error
    reached("launch.recorded")
    cgroup.create()
    phases.lap("cgroup")
    spec = _at_home(spec, body, stage)
    job = Job(
        engine_id=request.command.engine_id,
        spec=spec,
        body=body,
        root_plan=root_plan,
        stage=stage,
        stdio=stdio,
        terminal=request.terminal is not None,
        namespaces=_numbers(request.namespaces),
        run_hooks=request.command.run_hooks,
        cgroup=cgroup,
        limits=limits,
        phases=phases,
    )
    if request.image is None:
        return (yield from request.engine.start(job))
    return (yield from _restore(request, request.image, machine.images, job))


def _restore(request: Request, image: OwnedFd, room: Path, job: Job) -> Steps[Running]:
    engine, place = request.engine, room / job.engine_id
    if not isinstance(engine, SavingEngine):
        raise LaunchFailed("restore", f"{engine.name} cannot restore containers")
    try:
        yield from extract(image, request.command.image_name, engine.name, place)
        reached("restore.extracted")
        job.phases.lap("image")
        return (yield from engine.restore(job, place))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _parse(body: bytes) -> Spec:
    try:
        spec = parse_spec(body)
    except ValueError as error:
        raise LaunchFailed("create", f"the spec cannot be read: {error}") from error
    if spec.process is None or not spec.process.args:
        raise LaunchFailed("create", "the spec names no program: process.args is empty")
    return spec


def _at_home(spec: Spec, body: dict[str, object], stage: LaunchStage) -> Spec:
    assert spec.process is not None
    env = with_home(spec.process.env or (), stage.root, spec.process.user.uid)
    body["process"] = {**msgspec.convert(body["process"], dict[str, object]), "env": env}
    return replace(spec, process=replace(spec.process, env=tuple(env)))


def _check_features(spec: Spec, request: Request) -> None:
    joins = request.command.pid_namespace is not None
    needed = features_needed(spec, request.command.plan, joins_pid_namespace=joins)
    missing = [feature for feature in needed if feature in request.engine.lacks]
    if missing:
        raise LaunchFailed("create", f"{request.engine.name} cannot give {', '.join(missing)}")


def _stdio(request: Request) -> tuple[int, int, int]:
    if request.terminal is not None:
        return (request.terminal.number,) * 3
    indices = request.command.plan.stdio
    if indices is None:
        raise LaunchFailed("hold", "a process with a terminal, and no terminal was donated")
    stdin, stdout, stderr = (_donated(request.fds, index).number for index in indices)
    return stdin, stdout, stderr


def _donated(fds: FdBundle, index: int) -> OwnedFd:
    if not 0 <= index < len(fds):
        reason = f"the plan names descriptor {index}, {len(fds)} came with the launch"
        raise LaunchFailed("mounts", reason, errno.EBADF)
    return fds[index]


def _numbers(owners: Mapping[str, OwnedFd]) -> dict[str, int]:
    return {name: owner.number for name, owner in owners.items()}
