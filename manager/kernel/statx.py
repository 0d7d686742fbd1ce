"""What is known of a file without asking its file system.

A file system may be somebody's program (FUSE), or far away, and may take for ever to answer. Type
and device of a file that is open already are in the kernel's memory.
"""

import ctypes
import os
import struct
from typing import Final, NamedTuple

from manager.kernel.libc import call

AT_STATX_DONT_SYNC: Final = 0x4000
AT_EMPTY_PATH: Final = 0x1000
STATX_TYPE: Final = 0x1
STATX_INO: Final = 0x100

_STATX_BYTES: Final = 256
_MODE: Final = struct.Struct("=H")
_MODE_OFFSET: Final = 28
_INODE: Final = struct.Struct("=Q")
_INODE_OFFSET: Final = 32
_DEVICE: Final = struct.Struct("=II")
_DEVICE_OFFSET: Final = 136
_RDEV_OFFSET: Final = 128


def known_type(fd: int) -> tuple[int, int]:
    """The type bits of its mode, and the device that it is on.

    Raises:
        OSError: `EBADF`, it is not open.

    Source: statx(2), AT_STATX_DONT_SYNC.
    """
    known = known_status(fd)
    return known.mode, known.device


class KnownStatus(NamedTuple):
    """As in `os.stat_result`; of the mode only the type is sure."""

    mode: int
    device: int
    inode: int
    rdev: int


def known_status(fd: int) -> KnownStatus:
    """The same, and more; raises as :func:`known_type` does."""
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    call("statx", fd, b"", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_INO, buffer)
    (mode,) = _MODE.unpack_from(buffer, _MODE_OFFSET)
    major, minor = _DEVICE.unpack_from(buffer, _DEVICE_OFFSET)
    (inode,) = _INODE.unpack_from(buffer, _INODE_OFFSET)
    rdev = os.makedev(*_DEVICE.unpack_from(buffer, _RDEV_OFFSET))
    return KnownStatus(mode, os.makedev(major, minor), inode, rdev)
