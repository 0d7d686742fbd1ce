"""Walk a path inside a tree that somebody else may be changing: openat2(2)."""

import os
import struct
from typing import Final

from manager.kernel.libc import syscall
from manager.urpc.fds import OwnedFd

_SYS_OPENAT2: Final = 437
_HOW: Final = struct.Struct("QQQ")

RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_IN_ROOT: Final = 0x10


def openat2(dir_fd: int, path: str, flags: int, *, mode: int = 0, resolve: int = 0) -> OwnedFd:
    """Open `path` below `dir_fd`, close-on-exec.

    Raises:
        OSError: `ELOOP`, a symlink where `resolve` forbids one; `EXDEV`, out of the tree.

    Source: openat2(2).
    """
    how = _HOW.pack(flags | os.O_CLOEXEC, mode, resolve)
    return OwnedFd(syscall(_SYS_OPENAT2, dir_fd, os.fsencode(path), how, _HOW.size))


def open_beneath(root_fd: int, path: str, flags: int = os.O_PATH) -> OwnedFd:
    """Open `path` as seen from inside `root_fd` (`/` is the root), through no symlink at all.

    Raises:
        OSError: `ELOOP`, a component is a symlink; `ENOENT`, `ENOTDIR` as usual.
    """
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
    return openat2(root_fd, path, flags, resolve=resolve)
