"""What is known of a file without asking its file system.

A file system may be somebody's program (FUSE), or far away, and may take for ever to answer. Type
and device of a file that is open already are in the kernel's memory.
"""

import ctypes
import os
import struct
from typing import Final

from manager.kernel.libc import call

AT_STATX_DONT_SYNC: Final = 0x4000
AT_EMPTY_PATH: Final = 0x1000
STATX_TYPE: Final = 0x1

_STATX_BYTES: Final = 256
_MODE: Final = struct.Struct("=H")
_MODE_OFFSET: Final = 28
_DEVICE: Final = struct.Struct("=II")
_DEVICE_OFFSET: Final = 136


def known_type(fd: int) -> tuple[int, int]:
    """The type bits of its mode, and the device that it is on.

    Raises:
        OSError: `EBADF`, it is not open.

    Source: statx(2), AT_STATX_DONT_SYNC.
    """
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    call("statx", fd, b"", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, buffer)
    (mode,) = _MODE.unpack_from(buffer, _MODE_OFFSET)
    major, minor = _DEVICE.unpack_from(buffer, _DEVICE_OFFSET)
    return mode, os.makedev(major, minor)
