"""Donated descriptors: what the kernel says of them, and making them fit for another namespace."""

import ctypes
import errno
import fcntl
import os
import socket
import stat
from typing import Final

from manager.domain.payload import LaunchPlan, LayerPlan
from manager.domain.request import FdAccess, FdFact, FdKind
from manager.kernel.mount import at, clone_tree, reopen_readonly
from manager.kernel.namespaces import FLAGS
from manager.kernel.statx import known_status
from manager.urpc.fds import FdBundle, OwnedFd

NULL_DEVICE: Final = os.makedev(1, 3)
"""Source: Linux admin-guide/devices.txt."""

PSEUDO_FILESYSTEMS: Final = frozenset(
    {
        0x9FA0,  # proc
        0x62656572,  # sysfs
        0x27E0EB,  # cgroup
        0x63677270,  # cgroup2
        0x1CD1,  # devpts
        0x64626720,  # debugfs
        0x74726163,  # tracefs
        0x73636673,  # securityfs
        0xCAFE4A11,  # bpf
    }
)
"""File systems that are windows into the kernel: nothing that a container should get by accident.

Source: statfs(2).
"""
NSFS: Final = 0x6E736673
_NS_GET_NSTYPE: Final = 0xB703

_STATFS_BYTES: Final = 256
"""Room for struct statfs (120 bytes on 64-bit Linux); its first word is ``f_type``."""

_libc = ctypes.CDLL(None, use_errno=True)


def make_portable(plan: LaunchPlan, files: FdBundle, *, by_name: bool = False) -> FdBundle:
    """Make of donated descriptors what can be mounted in any mount namespace.

    Trees become detached clones, files that are only to be read lie on read-only mounts of their
    own; the order stays.

    Args:
        plan: What each is for.
        files: Ownership moves in, whatever happens.
        by_name: They belong to another mount namespace, of which this one is a copy: each is
            looked up here first. For those who may not clone a mount where it was donated.

    Raises:
        OSError: The kernel refused: `EINVAL`, a directory of another mount namespace. `ESTALE`, by
            name something else is found here than was donated.
    """
    prepared = FdBundle()
    trees = _tree_indices(plan)
    with files:
        try:
            for index, fd in enumerate(files):
                prepared.append(_portable(fd, plan, is_tree=index in trees, by_name=by_name))
        except BaseException:
            prepared.close()
            raise
    return prepared


def _portable(fd: OwnedFd, plan: LaunchPlan, *, is_tree: bool, by_name: bool) -> OwnedFd:
    fact = describe(fd.number)
    read_only = plan.stdio is not None and fact.kind == "regular" and fact.access == "r"
    if not is_tree and not read_only:
        return fd.take()
    if not by_name:
        return clone_tree(fd.number) if is_tree else reopen_readonly(fd.number)
    with _found_here(fd.number) as here:
        if is_tree:
            return clone_tree(here.number)
        with OwnedFd(os.open(at(here.number), os.O_RDONLY | os.O_CLOEXEC)) as file:
            os.lseek(file.number, os.lseek(fd.number, 0, os.SEEK_CUR), os.SEEK_SET)
            return reopen_readonly(file.number)


def _found_here(fd: int) -> OwnedFd:
    """Open by its name, in this mount namespace, the file that `fd` is."""
    name = os.readlink(at(fd))
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        found = OwnedFd(os.open(name, flags))
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}, looked up again by name", name) from error
    ours, theirs = os.fstat(found.number), os.fstat(fd)
    if (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino):
        return found
    found.close()
    raise OSError(errno.ESTALE, "by this name something else is found than was donated", name)


def _tree_indices(plan: LaunchPlan) -> frozenset[int]:
    """Which descriptors are file trees, to be mounted."""
    layers = (plan.root, *(mount.layer for mount in plan.mounts))
    found = (index for layer in layers for index in _layer_trees(layer))
    return frozenset(index for index in (*found, plan.dev_fd) if index is not None)


def _layer_trees(layer: LayerPlan) -> tuple[int | None, ...]:
    lower = layer.lower_fd if layer.lower == "lisafs" else None
    return lower, layer.filestore_fd


def describe(fd: int) -> FdFact:
    """The facts of one descriptor; raises OSError (EBADF) if it is not open."""
    status = os.fstat(fd)
    return FdFact(
        kind=_kind(fd, status.st_mode, status.st_rdev),
        access=_access(fd),
        device=status.st_dev,
        inode=status.st_ino,
    )


def describe_unasked(fd: int) -> FdFact:
    """What the kernel knows of one descriptor without asking its file system.

    Windows into the kernel and namespaces are then files or directories like any others.

    Raises:
        OSError: `EBADF`, it is not open.
    """
    known = known_status(fd)
    unasked: dict[int, FdKind] = {stat.S_IFDIR: "directory", stat.S_IFREG: "regular"}
    kind = unasked.get(stat.S_IFMT(known.mode)) or _kind(fd, known.mode, known.rdev)
    return FdFact(kind=kind, access=_access(fd), device=known.device, inode=known.inode)


def _access(fd: int) -> FdAccess:
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if flags & os.O_PATH:
        return "path"
    modes: dict[int, FdAccess] = {os.O_RDONLY: "r", os.O_WRONLY: "w", os.O_RDWR: "rw"}
    return modes.get(flags & os.O_ACCMODE, "path")


def _kind(fd: int, mode: int, rdev: int) -> FdKind:
    if stat.S_ISSOCK(mode):
        return "socket" if _is_connected(fd) else "unconnected-socket"
    if stat.S_ISCHR(mode):
        return _character_kind(fd, rdev)
    if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
        return _file_kind(fd, mode)
    plain: dict[int, FdKind] = {
        stat.S_IFIFO: "fifo",
        stat.S_IFBLK: "block-device",
        stat.S_IFLNK: "symlink",
    }
    return plain.get(stat.S_IFMT(mode), "anonymous")


def _character_kind(fd: int, rdev: int) -> FdKind:
    if os.isatty(fd):
        return "terminal"
    return "null" if rdev == NULL_DEVICE else "character-device"


def ask(fd: int) -> None:
    """Have the file system say something of an open file, however long it takes.

    Raises:
        OSError: It said that it cannot.
    """
    os.fstat(fd)
    _filesystem(fd)


def _file_kind(fd: int, mode: int) -> FdKind:
    magic = _filesystem(fd)
    if magic == NSFS:
        return "namespace"
    if magic in PSEUDO_FILESYSTEMS:
        return "pseudo-filesystem"
    return "directory" if stat.S_ISDIR(mode) else "regular"


def _is_connected(fd: int) -> bool:
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH:
        return False
    with socket.socket(fileno=os.dup(fd)) as sock:
        try:
            sock.getpeername()
        except OSError:
            return False
        return True


def _filesystem(fd: int) -> int:
    """The magic number of the file system; raises OSError as fstatfs(2) does."""
    buffer = (ctypes.c_ulong * (_STATFS_BYTES // ctypes.sizeof(ctypes.c_ulong)))()
    if _libc.fstatfs(fd, ctypes.byref(buffer)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return buffer[0]


def open_namespace_at(path: str, name: str) -> OwnedFd:
    """Open the namespace at a path, made sure of to be one of that kind before it is opened.

    Args:
        path: A magic link of procfs, or a file that a namespace is mounted on.
        name: Its kind, see :data:`manager.kernel.namespaces.FLAGS`.

    Raises:
        OSError: As open(2); `EINVAL` if it is no namespace, or one of another kind.

    Source: ioctl_nsfs(2).
    """
    with OwnedFd(os.open(path, os.O_PATH | os.O_CLOEXEC)) as found:
        if _filesystem(found.number) != NSFS:
            raise OSError(errno.EINVAL, "it is no namespace", path)
        number = os.open(at(found.number), os.O_RDONLY | os.O_CLOEXEC)
    with OwnedFd(number) as namespace:
        if fcntl.ioctl(namespace.number, _NS_GET_NSTYPE) != FLAGS[name]:
            raise OSError(errno.EINVAL, f"it is no {name} namespace", path)
        return namespace.take()
