"""What a spec asks of an engine beyond starting a process in a file tree. Pure.

Each engine has a table of the features that it lacks; a start that needs one of them is refused
before anything happens, naming the engine and the feature. What every engine gives (environment,
working directory, donated file trees, standard streams, exit status) has no name here.
"""

from collections.abc import Iterable, Iterator
from typing import Final, Literal, TypeAlias, get_args

from manager.domain.payload import LaunchPlan
from manager.domain.spec import Capabilities, Linux, Mount, Process, Spec

Feature: TypeAlias = Literal[
    "apparmor",
    "capability-sets",
    "cgroup-mount",
    "checkpoint",
    "dev-directory",
    "devices",
    "domainname",
    "erofs",
    "exec-extra-files",
    "hooks",
    "idmapped-mounts",
    "intel-rdt",
    "masked-paths",
    "mknod",
    "mount-label",
    "mqueue",
    "namespace-paths",
    "non-root-user",
    "oom-score-adj",
    "pause",
    "personality",
    "pid-namespace-join",
    "readonly-paths",
    "resources",
    "resources-beyond-memory-pids-cpu",
    "rlimits",
    "rootfs-propagation",
    "seccomp",
    "selinux",
    "sysctl",
    "terminal",
    "time-namespace",
    "user-namespace",
    "writable-cgroup-mount",
]

FEATURES: Final[tuple[Feature, ...]] = get_args(Feature)

PLAIN_RESOURCES: Final = frozenset({"memory", "pids", "cpu", "devices"})
"""Members of `linux.resources` that the worker applies itself, whatever the engine."""

PLAIN_CPU: Final = frozenset({"shares", "quota", "period"})
PLAIN_MEMORY: Final = frozenset({"limit", "reservation", "swap"})


def features_needed(
    spec: Spec, plan: LaunchPlan, *, joins_pid_namespace: bool
) -> tuple[Feature, ...]:
    """Name everything that the engine must be able to give, sorted, each once.

    Args:
        spec: What the client wants to run.
        plan: What its descriptors are for.
        joins_pid_namespace: Whether the container shares another one's PID namespace.
    """
    needed: set[Feature] = set(_of_plan(plan))
    needed.update(_of_mounts(spec))
    if spec.process is not None:
        needed.update(_of_process(spec.process))
    if spec.linux is not None:
        needed.update(_of_linux(spec.linux))
    if spec.has_hooks:
        needed.add("hooks")
    if spec.domainname:
        needed.add("domainname")
    if joins_pid_namespace:
        needed.add("pid-namespace-join")
    return tuple(sorted(needed))


def _of_plan(plan: LaunchPlan) -> Iterator[Feature]:
    if plan.stdio is None:
        yield "terminal"
    if plan.dev_fd is not None:
        yield "dev-directory"
    if any(layer.lower == "erofs" for layer in (plan.root, *(m.layer for m in plan.mounts))):
        yield "erofs"


def _of_mounts(spec: Spec) -> Iterator[Feature]:
    for mount in spec.mounts or ():
        if not {"idmap", "ridmap"}.isdisjoint(mount.options or ()):
            yield "idmapped-mounts"
        if mount.type in {"cgroup", "cgroup2"}:
            yield "cgroup-mount"
            if not _is_readonly(mount):
                yield "writable-cgroup-mount"
        if mount.type == "mqueue":
            yield "mqueue"


def _is_readonly(mount: Mount) -> bool:
    # As in mount(8), the later option wins; "rw" is what holds without any.
    told = [option for option in mount.options or () if option in {"ro", "rw"}]
    return told[-1:] == ["ro"]


def _of_process(process: Process) -> Iterator[Feature]:
    user = process.user
    if user.uid or user.gid or user.additional_gids:
        yield "non-root-user"
    if process.rlimits:
        yield "rlimits"
    if process.apparmor_profile:
        yield "apparmor"
    if process.selinux_label:
        yield "selinux"
    if process.oom_score_adj:
        yield "oom-score-adj"
    if process.capabilities is not None:
        yield from _of_capabilities(process.capabilities)


def _of_capabilities(capabilities: Capabilities) -> Iterator[Feature]:
    bounding = frozenset(capabilities.bounding or ())
    # One set for all is what a plain engine has; a silent set follows the others.
    if any(
        members is not None and frozenset(members) != bounding
        for members in (capabilities.effective, capabilities.permitted)
    ):
        yield "capability-sets"
    if "CAP_MKNOD" in capabilities.names():
        yield "mknod"


def _of_linux(linux: Linux) -> Iterator[Feature]:
    present: dict[Feature, object] = {
        "devices": linux.devices,
        "intel-rdt": linux.intel_rdt,
        "masked-paths": linux.masked_paths,
        "mount-label": linux.mount_label,
        "personality": linux.personality,
        "readonly-paths": linux.readonly_paths,
        "rootfs-propagation": linux.rootfs_propagation,
        "seccomp": linux.seccomp,
        "sysctl": linux.sysctl,
        "user-namespace": linux.uid_mappings or linux.gid_mappings or linux.namespace("user"),
        "time-namespace": linux.namespace("time"),
    }
    yield from (feature for feature, value in present.items() if value)
    if isinstance(linux.resources, dict):
        yield from _of_resources(linux.resources)


def _of_resources(resources: dict[str, object]) -> Iterator[Feature]:
    wanted = {name for name, value in resources.items() if value}
    if wanted & {"memory", "pids", "cpu"}:
        yield "resources"
    details = (("cpu", PLAIN_CPU), ("memory", PLAIN_MEMORY))
    if not wanted <= PLAIN_RESOURCES or any(
        _beyond(resources.get(name), plain) for name, plain in details
    ):
        yield "resources-beyond-memory-pids-cpu"


def _beyond(member: object, plain: Iterable[str]) -> bool:
    return isinstance(member, dict) and any(v and k not in plain for k, v in member.items())
