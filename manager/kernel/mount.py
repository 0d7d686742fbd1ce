"""The descriptor-based mount API: a mount is an object, its place in the tree comes last.

Source: fsopen(2), fsconfig(2), fsmount(2), move_mount(2), open_tree(2), mount_setattr(2). Since
Linux 5.2; mount_setattr 5.12; descriptors for overlayfs layers 6.13.
"""

import os
import struct
from typing import Final, Self

from manager.kernel.libc import call, syscall
from manager.urpc.fds import OwnedFd

_SYS_OPEN_TREE: Final = 428
_SYS_MOVE_MOUNT: Final = 429
_SYS_FSOPEN: Final = 430
_SYS_FSCONFIG: Final = 431
_SYS_FSMOUNT: Final = 432
_SYS_MOUNT_SETATTR: Final = 442

_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 0x04
_MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40
_FS_CLOEXEC: Final = 1

_FSCONFIG_SET_FLAG: Final = 0
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_SET_FD: Final = 5
_FSCONFIG_CMD_CREATE: Final = 6

ATTR_RDONLY: Final = 0x01
ATTR_NOSUID: Final = 0x02
ATTR_NODEV: Final = 0x04
ATTR_NOEXEC: Final = 0x08
ATTR_ATIME: Final = 0x70
ATTR_RELATIME: Final = 0x00
ATTR_NOATIME: Final = 0x10
ATTR_STRICTATIME: Final = 0x20
ATTR_NODIRATIME: Final = 0x80
ATTR_NOSYMFOLLOW: Final = 0x200000
_MOUNT_ATTR: Final = struct.Struct("QQQQ")

MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
MS_SLAVE: Final = 0x80000
MNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8

FS_MESSAGE_BYTES: Final = 1024
"""Longest line that is read back from a filesystem context."""


def clone_tree(fd: int, *, recursive: bool = True) -> OwnedFd:
    """Make a detached copy of the mount tree at `fd`: whatever becomes of its path, this stays.

    Args:
        fd: A directory or file, also `O_PATH`; lent. It must belong to a mount of the caller's own
            mount namespace.
        recursive: Mounts below come along; without, what they hide shows.

    Returns:
        A descriptor for :func:`attach`, in any mount namespace, once.

    Raises:
        OSError: `EINVAL`, not of this mount namespace, or something hidden below may not be shown;
            `EPERM`, no `CAP_SYS_ADMIN`.

    Source: open_tree(2).
    """
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    return OwnedFd(syscall(_SYS_OPEN_TREE, fd, b"", flags))


def reopen_readonly(fd: int) -> OwnedFd:
    """Open the regular file at `fd` anew, so that no path through it can write.

    A descriptor opened `O_RDONLY` can be opened for writing again through `/proc/self/fd`, by
    whoever the file's mode allows. The one returned lies on a mount of its own that is read-only,
    detached, and gone with the last descriptor: there the kernel refuses with `EROFS`.

    Args:
        fd: A regular file of the caller's own mount namespace; lent.

    Returns:
        A new open file description, close-on-exec, at the same offset.

    Raises:
        OSError: As :func:`clone_tree`; `ESPIPE` if `fd` is no regular file.
    """
    offset = os.lseek(fd, 0, os.SEEK_CUR)
    with clone_tree(fd, recursive=False) as tree:
        set_attributes(tree.number, ATTR_RDONLY)
        again = OwnedFd(os.open(f"/proc/self/fd/{tree.number}", os.O_RDONLY | os.O_CLOEXEC))
    os.lseek(again.number, offset, os.SEEK_SET)
    return again


def clone_program(path: str | os.PathLike[str]) -> OwnedFd:
    """Clone the mount of one file, a program of the host's, for reading and executing alone.

    While a process of a container still is that program, a root in there has it as
    `/proc/PID/exe`: it must reach neither the file's bytes nor its mode through that.

    Returns:
        A descriptor to execute by its magic link, or for :func:`attach`.

    Raises:
        OSError: There is no such file; or as :func:`clone_tree`.
    """
    with OwnedFd(os.open(path, os.O_PATH | os.O_CLOEXEC)) as file:
        tree = clone_tree(file.number, recursive=False)
    try:
        set_attributes(tree.number, ATTR_RDONLY)
    except OSError:
        tree.close()
        raise
    return tree


def shield_program(path: str | os.PathLike[str]) -> None:
    """Mount a program over itself, as :func:`clone_program` has it, unless that is so already.

    Only for a mount namespace of one's own. Its name stays, for what it looks for beside itself;
    whoever replaces the file from another namespace takes the mount away with it.

    Raises:
        OSError: As :func:`clone_program`.
    """
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return
    with (
        clone_program(path) as tree,
        OwnedFd(os.open(path, os.O_PATH | os.O_CLOEXEC)) as target,
    ):
        attach(tree.number, target.number)


def set_attributes(fd: int, add: int, *, clear: int = 0, recursive: bool = False) -> None:
    """Change the per-mount attributes of the mount at `fd` (attached or not).

    Source: mount_setattr(2).
    """
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    attributes = _MOUNT_ATTR.pack(add, clear, 0, 0)
    syscall(_SYS_MOUNT_SETATTR, fd, b"", flags, attributes, _MOUNT_ATTR.size)


def attach(tree_fd: int, target_fd: int) -> None:
    """Put the mount at `tree_fd` where `target_fd` is: directory on directory, file on file.

    Raises:
        OSError: `ENOTDIR`, a file on a directory or the reverse; `EINVAL`, the target is not of
            this mount namespace.

    Source: move_mount(2).
    """
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    syscall(_SYS_MOVE_MOUNT, tree_fd, b"", target_fd, b"", flags)


class FilesystemContext:
    """A filesystem in the making; owns its descriptor.

    Raises:
        OSError: `ENODEV`, this kernel has no such filesystem.

    Source: fsopen(2).
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._fd = OwnedFd(syscall(_SYS_FSOPEN, kind.encode(), _FS_CLOEXEC))

    def set_string(self, key: str, value: str) -> None:
        """Set `key=value`."""
        self._configure(_FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0)

    def set_flag(self, key: str) -> None:
        """Set an option that has no value."""
        self._configure(_FSCONFIG_SET_FLAG, key.encode(), None, 0)

    def set_fd(self, key: str, fd: int) -> None:
        """Set an option to an open file; overlayfs layers since Linux 6.13."""
        self._configure(_FSCONFIG_SET_FD, key.encode(), None, fd)

    def mount(self, attributes: int = 0) -> OwnedFd:
        """Create the filesystem and a detached mount of it, for :func:`attach`."""
        self._configure(_FSCONFIG_CMD_CREATE, None, None, 0)
        return OwnedFd(syscall(_SYS_FSMOUNT, self._fd.number, _FS_CLOEXEC, attributes))

    def close(self) -> None:
        """Give up the context; a mount made from it stays."""
        self._fd.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _configure(self, command: int, key: bytes | None, value: bytes | None, aux: int) -> None:
        try:
            syscall(_SYS_FSCONFIG, self._fd.number, command, key, value, aux)
        except OSError as error:
            detail = self._message() or error.strerror
            raise OSError(error.errno, f"{self._kind}: {detail}") from error

    def _message(self) -> str:
        # The kernel keeps messages for whoever made the context: "e overlay: ...".
        try:
            line = os.read(self._fd.number, FS_MESSAGE_BYTES)
        except OSError:
            return ""
        return line.decode(errors="replace").strip()[2:]


def tmpfs(size: str = "", mode: int = 0o755, attributes: int = 0) -> OwnedFd:
    """Make a detached mount of an empty tmpfs.

    Args:
        size: In the syntax of tmpfs(5); empty for the kernel's default, half of the memory.
        mode: Permissions of its root directory.
        attributes: `ATTR_*` flags of the mount.
    """
    with FilesystemContext("tmpfs") as context:
        if size:
            context.set_string("size", size)
        context.set_string("mode", f"{mode:o}")
        return context.mount(attributes)


def make_private(path: str) -> None:
    """Cut mount propagation, both ways, for everything at and below `path`."""
    call("mount", None, os.fsencode(path), None, MS_REC | MS_PRIVATE, None)


def make_slave(path: str) -> None:
    """Let nothing at and below `path` spread from here, and what others mount there arrive."""
    call("mount", None, os.fsencode(path), None, MS_REC | MS_SLAVE, None)


def unmount(path: str, flags: int = MNT_DETACH) -> None:
    """Take the mount at `path` and all below it out of the tree, busy or not.

    Raises:
        OSError: `EINVAL`, nothing is mounted there.

    Source: umount(2).
    """
    call("umount2", os.fsencode(path), flags | _UMOUNT_NOFOLLOW)


def at(dir_fd: int) -> str:
    """Name an open file to a call that takes only paths; the link leads to that very object."""
    return f"/proc/self/fd/{dir_fd}"
