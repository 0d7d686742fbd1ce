"""Decide who mounts what, and where mount points are needed. Pure.

A container's file tree is made of donated trees, which the worker attaches by descriptor before any
engine runs, and of filesystems that only the engine can mount, because they belong to namespaces
that it makes (proc, sysfs, devpts, mqueue) or are empty anyway (tmpfs). A donated tree that belongs
*beneath* one of the latter cannot be attached beforehand: it is *staged*, attached at a place of
ours, and the engine is told to bind it from there.
"""

import posixpath
from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from manager.domain.payload import LaunchPlan, LayerPlan, MountPlan
from manager.domain.spec import BIND_OPTIONS, Mount, Spec
from manager.worker.errors import LaunchFailed

DEV_DESTINATION: Final = "/dev"

ENGINE_FILESYSTEMS: Final = frozenset(
    {"proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"}
)
"""What an engine may mount from a spec: nothing that takes a device or a path of the host."""

MANDATORY: Final = (
    Mount(destination="/proc", type="proc", source="proc", options=("nosuid", "noexec", "nodev")),
    Mount(
        destination="/sys",
        type="sysfs",
        source="sysfs",
        options=("nosuid", "noexec", "nodev", "ro"),
    ),
    Mount(
        destination=DEV_DESTINATION,
        type="tmpfs",
        source="tmpfs",
        options=("nosuid", "strictatime", "mode=755", "size=65536k"),
    ),
)
"""What a container gets even if its spec is silent, as in gVisor."""

INSIDE_DEV: Final = (
    Mount(
        destination="/dev/pts",
        type="devpts",
        source="devpts",
        options=("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
    ),
    Mount(
        destination="/dev/shm",
        type="tmpfs",
        source="shm",
        options=("nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
    ),
)
"""What belongs to a `/dev` that no spec asked for."""

Kind: TypeAlias = Literal["directory", "like-source"]


class EngineMount(Struct, frozen=True, kw_only=True):
    """A filesystem that the engine mounts itself, as the spec says."""

    mount: Mount


class TreeMount(Struct, frozen=True, kw_only=True):
    """A donated tree. `staged`: the engine binds it from `place`; else it is attached beforehand.

    `place` is the name of its mount point among the parts on the stage.
    """

    destination: str
    layer: LayerPlan
    options: tuple[str, ...]
    place: str
    staged: bool
    devices: bool = False


Entry: TypeAlias = EngineMount | TreeMount


class MountPoint(Struct, frozen=True, kw_only=True):
    """A path, as seen in the container, that something will be mounted on."""

    destination: str
    kind: Kind


class RootPlan(Struct, frozen=True, kw_only=True):
    """The whole tree.

    Attributes:
        layer: The root filesystem itself.
        entries: Everything mounted in it, in the order of mounting.
        mount_points: Where the root filesystem must have mount points: not what lies beneath
            another mount, which then must have it.
        readonly: Whether the root filesystem is.
    """

    layer: LayerPlan
    entries: tuple[Entry, ...]
    mount_points: tuple[MountPoint, ...]
    readonly: bool

    @property
    def engine_entries(self) -> tuple[Entry, ...]:
        """What is left for the engine to mount, in order."""
        return tuple(e for e in self.entries if isinstance(e, EngineMount) or e.staged)

    @property
    def attached(self) -> tuple[TreeMount, ...]:
        """What the worker attaches inside the root beforehand, in order."""
        return tuple(e for e in self.entries if isinstance(e, TreeMount) and not e.staged)

    @property
    def staged(self) -> tuple[TreeMount, ...]:
        """What the worker attaches on the stage, for the engine to bind."""
        return tuple(e for e in self.entries if isinstance(e, TreeMount) and e.staged)


def plan_root(spec: Spec, plan: LaunchPlan, *, every_mount_point: bool = False) -> RootPlan:
    """Divide the mounts of a spec between worker and engine.

    Args:
        spec: What the client wants to run.
        plan: What its descriptors are for.
        every_mount_point: The root needs a mount point also for a staged tree, which the engine
            binds beneath a filesystem of its own.

    Raises:
        LaunchFailed: Stage `mounts`: the plan does not fit the spec, or a destination is `/`.
    """
    spec_mounts = [_normal(mount) for mount in spec.mounts or ()]
    entries: list[Entry] = list(_mandatory(spec_mounts, plan))
    donated = iter(plan.mounts)
    engine_places = [_destination(entry) for entry in entries]
    for mount in spec_mounts:
        entry: Entry
        if mount.takes_gofer_conf:
            entry = _tree(mount, next(donated, None), len(entries), engine_places)
        elif plan.dev_fd is not None and mount.destination == DEV_DESTINATION:
            continue
        else:
            entry = _engine_mount(mount)
        if isinstance(entry, EngineMount) or entry.staged:
            engine_places.append(_destination(entry))
        entries.append(entry)
    if (extra := next(donated, None)) is not None:
        raise LaunchFailed("mounts", f"no mount of the spec has destination {extra.destination}")
    return RootPlan(
        layer=plan.root,
        entries=tuple(entries),
        mount_points=tuple(_mount_points(entries, every=every_mount_point)),
        readonly=plan.root.readonly or bool(spec.root is not None and spec.root.readonly),
    )


def lies_beneath(path: str, places: Iterable[str]) -> bool:
    """Whether `path` is one of `places` or inside one of them."""
    return any(path == place or path.startswith(place.rstrip("/") + "/") for place in places)


def _mandatory(spec_mounts: Sequence[Mount], plan: LaunchPlan) -> Iterable[Entry]:
    given = {mount.destination for mount in spec_mounts}
    for mount in MANDATORY:
        if mount.destination == DEV_DESTINATION and plan.dev_fd is not None:
            # Staged, not attached: an engine leaves a bound /dev alone, and fills any other.
            yield TreeMount(
                destination=DEV_DESTINATION,
                layer=LayerPlan(lower="lisafs", lower_fd=plan.dev_fd),
                options=("nosuid",),
                place="dev",
                staged=True,
                devices=True,
            )
        elif mount.destination not in given:
            yield EngineMount(mount=mount)
            if mount.destination == DEV_DESTINATION:
                yield from (EngineMount(mount=m) for m in INSIDE_DEV if m.destination not in given)


def _tree(
    mount: Mount, planned: MountPlan | None, index: int, engine_places: Sequence[str]
) -> TreeMount:
    if planned is None or _clean(planned.destination) != mount.destination:
        raise LaunchFailed("mounts", f"no descriptor was planned for mount {mount.destination}")
    return TreeMount(
        destination=mount.destination,
        layer=planned.layer,
        options=planned.options,
        place=f"mount-{index}",
        staged=lies_beneath(mount.destination, engine_places),
    )


def _engine_mount(mount: Mount) -> EngineMount:
    if mount.type not in ENGINE_FILESYSTEMS or not BIND_OPTIONS.isdisjoint(mount.options or ()):
        raise LaunchFailed(
            "mounts",
            f"mount {mount.destination}: type {mount.type!r} without a donated descriptor; "
            f"possible are {', '.join(sorted(ENGINE_FILESYSTEMS))}",
        )
    return EngineMount(mount=mount)


def _mount_points(entries: Sequence[Entry], *, every: bool) -> Iterable[MountPoint]:
    earlier: list[str] = []
    for entry in entries:
        destination = _destination(entry)
        if isinstance(entry, TreeMount):
            kind: Kind = "like-source"
            needed = every and entry.staged
        else:
            kind, needed = "directory", False
        if needed or not lies_beneath(destination, earlier):
            yield MountPoint(destination=destination, kind=kind)
        earlier.append(destination)


def _destination(entry: Entry) -> str:
    return entry.mount.destination if isinstance(entry, EngineMount) else entry.destination


def _normal(mount: Mount) -> Mount:
    destination = _clean(mount.destination)
    if destination == "/":
        raise LaunchFailed("mounts", f"mount destination {mount.destination!r} is the root")
    return Mount(
        destination=destination, type=mount.type, source=mount.source, options=mount.options
    )


def _clean(destination: str) -> str:
    # Two leading slashes are special to POSIX and to normpath, not to Linux.
    return posixpath.normpath("/" + destination.lstrip("/"))
