"""Finish a file tree inside a sandbox that stands and waits: what its engine could not mount.

The worker prepares everything from outside, by descriptor, and enters the container's mount
namespace for the attaching alone. In there it runs nothing but system calls that take descriptors:
a path, or an import, would be looked up in a file tree that is not to be trusted.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from manager.domain.spec import Mount, Spec
from manager.kernel import mount as kernel_mount
from manager.kernel.namespaces import entered, open_namespace
from manager.kernel.paths import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from manager.urpc.fds import OwnedFd
from manager.worker.errors import LaunchFailed
from manager.worker.layers import is_directory
from manager.worker.mount_options import attributes_of
from manager.worker.stage import make_mount_point

MASK_SIZE: Final = "4k"

_OPTION_KEYS: Final = {
    "devpts": ("newinstance", "ptmxmode", "mode", "gid", "uid", "max"),
    "sysfs": (),
    "mqueue": (),
}
"""Options that are the filesystem's own; the others are attributes of the mount."""

Action = Callable[[], None]


def complete(
    pid: int, spec: Spec, mounts: Iterable[Mount], namespaces: Mapping[str, OwnedFd]
) -> None:
    """Mount what is missing, mask and protect what the spec says.

    Args:
        pid: The container's init, which waits and is known to be alive.
        spec: Has the masked and read-only paths.
        mounts: Filesystems of the container's network and IPC namespaces.
        namespaces: The container's; lent.

    Raises:
        LaunchFailed: Stage `mounts`.
    """
    actions: list[Action] = []
    with contextlib.ExitStack() as owned:
        try:
            root = owned.enter_context(_open_root(pid))
            homes = {name: namespaces[name].number for name in ("net", "ipc")}
            for mount in mounts:
                with entered(homes):
                    tree = owned.enter_context(_filesystem(mount))
                actions.append(_attach_later(root, tree, mount.destination, owned))
            linux = spec.linux
            for path in (linux.masked_paths if linux else None) or ():
                actions += _mask(root, path, owned)
            for path in (linux.readonly_paths if linux else None) or ():
                actions += _protect(root, path, owned)
            if actions:
                mount_namespace = owned.enter_context(open_namespace(pid, "mnt"))
                with entered({"mnt": mount_namespace.number}):
                    for action in actions:
                        action()
        except OSError as error:
            doing = f"cannot finish the file tree: {error.filename or ''}"
            raise LaunchFailed.from_os("mounts", doing, error) from error


def _open_root(pid: int) -> OwnedFd:
    return OwnedFd(os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))


def open_in_container(root: OwnedFd, path: str) -> OwnedFd:
    """Open as the container would: its symbolic links count, and lead nowhere outside."""
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
    return openat2(root.number, path, os.O_PATH, resolve=resolve)


def _filesystem(mount: Mount) -> OwnedFd:
    options = mount.options or ()
    with kernel_mount.FilesystemContext(mount.type) as context:
        for option in options:
            key, separator, value = option.partition("=")
            if key in _OPTION_KEYS[mount.type] and separator:
                context.set_string(key, value)
        return context.mount(attributes_of(options).add)


def _attach_later(
    root: OwnedFd, tree: OwnedFd, destination: str, owned: contextlib.ExitStack
) -> Action:
    point = owned.enter_context(make_mount_point(root.number, destination, is_file=False))
    return lambda: kernel_mount.attach(tree.number, point.number)


def _mask(root: OwnedFd, path: str, owned: contextlib.ExitStack) -> list[Action]:
    point = _open_if_there(root, path, owned)
    if point is None:
        return []
    if is_directory(point.number):
        cover = kernel_mount.tmpfs(MASK_SIZE, attributes=kernel_mount.ATTR_RDONLY)
    else:
        with OwnedFd(os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)) as null:
            cover = kernel_mount.clone_tree(null.number)
    owned.enter_context(cover)
    return [lambda: kernel_mount.attach(cover.number, point.number)]


def _protect(root: OwnedFd, path: str, owned: contextlib.ExitStack) -> list[Action]:
    point = _open_if_there(root, path, owned)
    if point is None:
        return []

    def protect() -> None:
        with kernel_mount.clone_tree(point.number) as tree:
            kernel_mount.set_attributes(tree.number, kernel_mount.ATTR_RDONLY, recursive=True)
            kernel_mount.attach(tree.number, point.number)

    return [protect]


def _open_if_there(root: OwnedFd, path: str, owned: contextlib.ExitStack) -> OwnedFd | None:
    try:
        return owned.enter_context(open_in_container(root, path))
    except (FileNotFoundError, NotADirectoryError):
        return None
