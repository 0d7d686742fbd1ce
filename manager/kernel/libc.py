"""The door to libc: errno becomes OSError, and nothing else is decided here."""

import ctypes
import os
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def syscall(number: int, *args: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Make a system call; integers go as 64-bit words, bytes as NUL-terminated strings.

    Raises:
        OSError: What the kernel said; `ENOSYS` where this kernel lacks the call.

    Source: syscall(2).
    """
    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        _raise()
    return result


def call(name: str, *args: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Call a libc function that returns -1 and sets errno on failure.

    Raises:
        OSError: What the kernel said.
    """
    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result: int = getattr(_libc, name)(*words)
    if result < 0:
        _raise()
    return result


def _raise() -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))
