"""Put a container's root filesystem together on the stage, by descriptor.

The engine gets a finished mount. What a client could make of its own tree meanwhile (rename it,
swap it, put symbolic links where mount points belong) does not matter: its tree was cloned when it
was donated, mount points lie in a layer of ours above it, and where they must lie in the client's
tree they are reached through no symbolic link.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Final

from manager.kernel import mount
from manager.kernel.paths import open_beneath
from manager.urpc.fds import FdBundle, OwnedFd
from manager.worker.errors import LaunchFailed
from manager.worker.layers import Fill, Layers, copy_ownership, is_directory
from manager.worker.loop import Steps
from manager.worker.mount_options import attributes_of, value_of
from manager.worker.root_plan import RootPlan, TreeMount
from manager.worker.stage import LaunchStage, make_mount_point

TMPFS_MODE: Final = 0o1777
"""Mode of a tmpfs mount whose options name none, as tmpfs(5) has it."""

ROOT_MODE: Final = 0o755


class Assembly:
    """Builds the root filesystem of one launch. Owns the trees until they are attached.

    Args:
        plan: What goes where.
        stage: The launch's place, created.
        fds: The launch's descriptors, lent.
        overlay_by_fd: See :class:`manager.worker.layers.Layers`.
    """

    def __init__(
        self, plan: RootPlan, stage: LaunchStage, fds: FdBundle, *, overlay_by_fd: bool
    ) -> None:
        self._plan = plan
        self._stage = stage
        self._layers = Layers(stage, fds, overlay_by_fd=overlay_by_fd)

    def build(self, fill: Fill | None = None) -> Steps[None]:
        """Build it, at `stage.root`; staged trees at their parts.

        Args:
            fill: Puts files into the root's upper layer.

        Raises:
            LaunchFailed: Stage `mounts` (or what `fill` raises). The stage is to be removed.
        """
        with contextlib.ExitStack() as trees_owner:
            try:
                trees = yield from self._build_trees(trees_owner)
                root = yield from self._build_root(trees, fill)
                with root:
                    self._attach(root, trees)
            except OSError as error:
                doing = f"cannot mount {error.filename}" if error.filename else "cannot mount"
                raise LaunchFailed.from_os("mounts", doing, error) from error

    def _build_trees(self, owner: contextlib.ExitStack) -> Steps[dict[str, OwnedFd]]:
        trees: dict[str, OwnedFd] = {}
        for entry in (*self._plan.attached, *self._plan.staged):
            with _naming(entry.destination):
                tree = owner.enter_context((yield from self._build_tree(entry)))
                attributes = attributes_of(entry.options, readonly=entry.layer.readonly)
                mount.set_attributes(
                    tree.number, attributes.add, clear=attributes.clear, recursive=True
                )
            trees[entry.place] = tree
        return trees

    def _build_tree(self, entry: TreeMount) -> Steps[OwnedFd]:
        layer = entry.layer
        if layer.lower == "none" or layer.upper == "none":
            mode = int(value_of(entry.options, "mode") or f"{TMPFS_MODE:o}", 8)
            return self._layers.plain(layer, entry.place, mode=mode)
        return (yield from self._layers.overlaid(layer, entry.place))

    def _build_root(self, trees: Mapping[str, OwnedFd], fill: Fill | None) -> Steps[OwnedFd]:
        layer = self._plan.layer
        points = self._mount_points(trees)
        has_lower = layer.lower != "none"
        with _naming("the root filesystem"):
            if fill is not None and layer.upper == "none":
                raise LaunchFailed("tar", "the root filesystem has no upper layer to unpack into")
            if has_lower and (layer.upper != "none" or not self._usable_as_is(points)):
                self._make_skeleton(points)
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
                with OwnedFd(os.open(self._stage.skeleton, flags)) as skeleton:
                    tree = yield from self._layers.overlaid(
                        layer, "root", skeleton=skeleton, fill=fill
                    )
            else:
                tree = self._layers.plain(layer, "root", mode=ROOT_MODE)
            with tree:
                root = self._stage.attach_root(tree)
        try:
            if fill is not None and not has_lower:
                yield from fill(root.number)
            for point, is_file in points.items():
                _open_mount_point(root, point, is_file=is_file).close()
            if self._plan.readonly:
                mount.set_attributes(root.number, mount.ATTR_RDONLY)
        except BaseException:
            root.close()
            raise
        return root

    def _mount_points(self, trees: Mapping[str, OwnedFd]) -> dict[str, bool]:
        """Mount points that the root itself must have -> whether each is a file."""
        files = {
            entry.destination
            for entry in (*self._plan.attached, *self._plan.staged)
            if not is_directory(trees[entry.place].number)
        }
        return {p.destination: p.destination in files for p in self._plan.mount_points}

    def _usable_as_is(self, points: Mapping[str, bool]) -> bool:
        """Whether the lower can be the root as it stands: writable, or all mount points there."""
        if not self._plan.readonly and self._plan.layer.lower == "lisafs":
            return True
        with self._layers.lower(self._plan.layer) as lower:
            return all(_has_mount_point(lower, p, is_file=f) for p, f in points.items())

    def _make_skeleton(self, points: Mapping[str, bool]) -> None:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        with (
            self._layers.lower(self._plan.layer) as lower,
            OwnedFd(os.open(self._stage.skeleton, flags)) as skeleton,
        ):
            _dress(skeleton, "/", lower)
            for destination, is_file in points.items():
                make_mount_point(skeleton.number, destination, is_file=is_file).close()
                names = destination.strip("/").split("/")
                last = len(names) - 1 if is_file else len(names)
                for depth in range(1, last + 1):
                    _dress(skeleton, "/" + "/".join(names[:depth]), lower)

    def _attach(self, root: OwnedFd, trees: Mapping[str, OwnedFd]) -> None:
        for entry in self._plan.attached:
            tree = trees[entry.place]
            is_file = not is_directory(tree.number)
            with (
                _naming(entry.destination),
                _open_mount_point(root, entry.destination, is_file=is_file) as point,
            ):
                mount.attach(tree.number, point.number)
        for entry in self._plan.staged:
            tree = trees[entry.place]
            with _naming(entry.destination):
                self._stage.attach_part(tree, entry.place, is_file=not is_directory(tree.number))


def _open_mount_point(root: OwnedFd, destination: str, *, is_file: bool) -> OwnedFd:
    try:
        return make_mount_point(root.number, destination, is_file=is_file)
    except OSError as error:
        raise LaunchFailed.from_os(
            "mounts", f"mount point {destination}: {error.filename}", error
        ) from error


def _has_mount_point(root: OwnedFd, destination: str, *, is_file: bool) -> bool:
    try:
        with open_beneath(root.number, destination) as point:
            return is_directory(point.number) != is_file
    except OSError:
        return False


def _dress(skeleton: OwnedFd, destination: str, lower: OwnedFd) -> None:
    # The skeleton's directories show on top: let them look like those that they hide.
    with contextlib.suppress(OSError), open_beneath(lower.number, destination) as original:
        if not is_directory(original.number):
            return
        if destination == "/":
            parent, name = skeleton.dup(), "."
        else:
            above, _, name = destination.rpartition("/")
            parent = open_beneath(skeleton.number, above or "/", os.O_PATH | os.O_DIRECTORY)
        with parent:
            copy_ownership(original.number, parent.number, name)


@contextlib.contextmanager
def _naming(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LaunchFailed.from_os("mounts", f"cannot mount {what}", error) from error
