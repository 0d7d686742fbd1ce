"""Build one file tree of a container from donated descriptors: lower, upper, and what joins them.

Every result is a detached mount; where it goes is decided elsewhere. Nothing here follows a path
that a client could have a say in.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from manager.domain.payload import LayerPlan
from manager.kernel import mount
from manager.kernel.loopdev import attach_loop_device
from manager.kernel.paths import open_beneath
from manager.kernel.user_namespace import in_first_user_namespace
from manager.urpc.fds import FdBundle, OwnedFd
from manager.worker.errors import LaunchFailed
from manager.worker.loop import Steps
from manager.worker.stage import LaunchStage

UPPER: Final = "upper"
WORK: Final = "work"
"""Directories made inside a donated filestore: the writes, and the kernel's scratch space."""

Fill: TypeAlias = Callable[[int], Steps[None]]
"""Something that puts files into an upper layer (a descriptor, lent) before it is used."""


class Layers:
    """Builds the layers of one launch.

    Args:
        stage: The launch's place; parts are mounted there while an overlay is made of them.
        fds: The launch's descriptors, lent.
        overlay_by_fd: Whether overlayfs takes descriptors for its layers here (Linux 6.13).
    """

    def __init__(self, stage: LaunchStage, fds: FdBundle, *, overlay_by_fd: bool) -> None:
        self._stage = stage
        self._fds = fds
        self._overlay_by_fd = overlay_by_fd

    def lower(self, layer: LayerPlan) -> OwnedFd:
        """The donated tree alone: a detached mount.

        Raises:
            LaunchFailed: Stage `mounts`, the descriptor is not among the launch's.
            OSError: The EROFS image cannot be mounted.
        """
        fd = self._donated(layer.lower_fd)
        return mount_erofs(fd.number) if layer.lower == "erofs" else fd.dup()

    def plain(self, layer: LayerPlan, place: str, *, mode: int) -> OwnedFd:
        """A layer that is one filesystem: a donated tree, a tmpfs, or a filestore's directory.

        Args:
            layer: Has no upper, or no lower.
            place: Prefix for the parts' names.
            mode: Permissions of the root of a filesystem made here.
        """
        if layer.lower != "none":
            return self.lower(layer)
        if layer.upper == "memory":
            return mount.tmpfs(layer.size, mode)
        with contextlib.ExitStack() as parts:
            store = self._attached_store(layer, place, parts)
            with _own_directory(store.number, UPPER) as upper:
                return mount.clone_tree(upper.number)

    def overlaid(
        self,
        layer: LayerPlan,
        place: str,
        *,
        skeleton: OwnedFd | None = None,
        fill: Fill | None = None,
    ) -> Steps[OwnedFd]:
        """An overlay: skeleton above lower, and above both an upper layer if the plan has one.

        Args:
            layer: Has a lower.
            place: Prefix for the parts' names.
            skeleton: A directory of mount points, which hides whatever is at their paths in the
                lower; lent.
            fill: Called with the upper directory before the overlay is made.

        Raises:
            LaunchFailed: Stage `mounts`, the lower is no directory; or whatever `fill` raises.
            OSError: The kernel refused a layer.
        """
        with contextlib.ExitStack() as parts:
            lower = parts.enter_context(self.lower(layer))
            if not is_directory(lower.number):
                raise LaunchFailed("mounts", "an overlay lies over a directory, not over a file")
            self._attach_part(lower, f"{place}-lower", parts)
            lowers = [lower.number] if skeleton is None else [skeleton.number, lower.number]
            if layer.upper == "none":
                return make_overlay(lowers, None, by_fd=self._overlay_by_fd)
            store = self._attached_store(layer, place, parts)
            upper = parts.enter_context(_own_directory(store.number, UPPER, like=lower.number))
            work = parts.enter_context(_own_directory(store.number, WORK))
            if fill is not None:
                yield from fill(upper.number)
            return make_overlay(lowers, (upper.number, work.number), by_fd=self._overlay_by_fd)

    def _donated(self, index: int | None) -> OwnedFd:
        if index is None or not 0 <= index < len(self._fds):
            raise LaunchFailed(
                "mounts",
                f"the plan names descriptor {index}, {len(self._fds)} came with the launch",
            )
        return self._fds[index]

    def _attached_store(self, layer: LayerPlan, place: str, parts: contextlib.ExitStack) -> OwnedFd:
        if layer.upper == "memory":
            store = mount.tmpfs(layer.size)
        else:
            store = self._donated(layer.filestore_fd).dup()
        parts.enter_context(store)
        self._attach_part(store, f"{place}-store", parts)
        return store

    def _attach_part(self, tree: OwnedFd, name: str, parts: contextlib.ExitStack) -> None:
        # An overlay takes layers only from mounts that are attached (before Linux 6.15), and
        # keeps private copies of them: the part can go as soon as the overlay stands.
        self._stage.attach_part(tree, name)
        parts.callback(self._stage.detach_part, name)


def is_directory(fd: int) -> bool:
    """Whether an open file, by any kind of descriptor, is a directory."""
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def make_overlay(
    lowers: Sequence[int], upper_and_work: tuple[int, int] | None, *, by_fd: bool
) -> OwnedFd:
    """Make a detached overlay of attached directories, the first of `lowers` on top.

    Args:
        lowers: Directories; two at least if there is no upper.
        upper_and_work: Two directories of one mount, neither inside the other.
        by_fd: Hand over descriptors; else magic links, which lead to the same objects.

    Source: Documentation/filesystems/overlayfs.rst.
    """
    with mount.FilesystemContext("overlay") as context:
        context.set_string("source", "sandtrail")
        if not in_first_user_namespace():
            # Its marks in the upper layer are trusted.* attributes, which only real root may set.
            context.set_flag("userxattr")
        if by_fd:
            for lower in lowers:
                context.set_fd("lowerdir+", lower)
        else:
            context.set_string("lowerdir", ":".join(mount.at(lower) for lower in lowers))
        if upper_and_work is not None:
            for key, fd in zip(("upperdir", "workdir"), upper_and_work, strict=True):
                if by_fd:
                    context.set_fd(key, fd)
                else:
                    context.set_string(key, mount.at(fd))
        return context.mount()


def overlay_takes_descriptors() -> bool:
    """Whether overlayfs accepts its layers by descriptor here: tried, not looked up."""
    with (
        mount.FilesystemContext("overlay") as context,
        OwnedFd(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root,
    ):
        try:
            context.set_fd("lowerdir+", root.number)
        except OSError:
            return False
    return True


def mount_erofs(image_fd: int) -> OwnedFd:
    """Make a detached read-only mount of an EROFS image: the file itself, or a loop device on it.

    Raises:
        OSError: `EINVAL`, no EROFS image; `ENODEV`, a kernel without EROFS.

    Source: Documentation/filesystems/erofs.rst; images in plain files since Linux 6.12.
    """
    try:
        return _mount_erofs_source(mount.at(image_fd))
    except OSError as error:
        if error.errno != errno.ENOTBLK:
            raise
    with attach_loop_device(image_fd) as device:
        return _mount_erofs_source(mount.at(device.number))


def _mount_erofs_source(source: str) -> OwnedFd:
    with mount.FilesystemContext("erofs") as context:
        context.set_string("source", source)
        context.set_flag("ro")
        return context.mount(mount.ATTR_RDONLY)


def _own_directory(store_fd: int, name: str, *, like: int | None = None) -> OwnedFd:
    # A directory of ours in a donated one: made if missing, never reached through a symlink.
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=store_fd)
        if like is not None:
            copy_ownership(like, store_fd, name)
    return open_beneath(store_fd, name, os.O_RDONLY | os.O_DIRECTORY)


def copy_ownership(source_fd: int, dir_fd: int, name: str) -> None:
    """Give the directory `name` in `dir_fd` owner and permissions of the one at `source_fd`."""
    status = os.fstat(source_fd)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=dir_fd, follow_symlinks=False)
    with open_beneath(dir_fd, name, os.O_RDONLY | os.O_DIRECTORY) as made:
        os.fchmod(made.number, stat.S_IMODE(status.st_mode))
