"""Loop devices by descriptor: a block device on a file whose path does not matter.

Source: loop(4); LOOP_CONFIGURE since Linux 5.8.
"""

import errno
import fcntl
import os
import struct
from typing import Final

from manager.urpc.fds import OwnedFd

_LOOP_CONFIGURE: Final = 0x4C0A
_LOOP_CTL_GET_FREE: Final = 0x4C82
_LO_FLAGS_READ_ONLY: Final = 1
_LO_FLAGS_AUTOCLEAR: Final = 4
_CONFIG: Final = struct.Struct("=II" + "Q5Q4I64s64s32s2Q" + "64s")
"""struct loop_config: fd, block_size, struct loop_info64, reserved."""

_ATTEMPTS_MAX: Final = 16
"""Tries for a free device: another process may take the one that was offered."""


def attach_loop_device(file_fd: int) -> OwnedFd:
    """Set up a read-only loop device that goes away with its last user.

    Args:
        file_fd: A regular file; lent.

    Returns:
        The device, opened. Once it is mounted it may be closed.

    Raises:
        OSError: `ENOENT`, no loop devices on this machine; `EBUSY`, none free.
    """
    with OwnedFd(os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)) as control:
        for _ in range(_ATTEMPTS_MAX):
            number = fcntl.ioctl(control.number, _LOOP_CTL_GET_FREE)
            device = OwnedFd(os.open(f"/dev/loop{number}", os.O_RDONLY | os.O_CLOEXEC))
            try:
                fcntl.ioctl(device.number, _LOOP_CONFIGURE, _config(file_fd))
            except OSError as error:
                device.close()
                if error.errno != errno.EBUSY:
                    raise
            else:
                return device
    raise OSError(errno.EBUSY, "no free loop device")


def _config(file_fd: int) -> bytes:
    flags = _LO_FLAGS_READ_ONLY | _LO_FLAGS_AUTOCLEAR
    numbers = (0, 0, 0, 0, 0, 0, 0, 0, 0, flags)
    return _CONFIG.pack(file_fd, 0, *numbers, b"", b"", b"", 0, 0, b"")
