"""The smallest program there is: it exits with code 0. Pure.

To find out whether an engine works, a container has to be started, and a container needs a program.
This one needs no library, no shell, and nothing of the machine.

Source: elf(5); syscall(2) for the calling conventions.
"""

import struct
from typing import Final

_EXIT_CODE_0: Final = {
    # mov edi, 0; mov eax, 60 (exit); syscall
    "x86_64": (62, bytes.fromhex("bf00000000b83c0000000f05")),
    # mov x0, #0; mov x8, #93 (exit); svc #0
    "aarch64": (183, bytes.fromhex("000080d2a80b80d2010000d4")),
}
_LOAD_ADDRESS: Final = 0x400000
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_EXECUTABLE: Final = 2
_LOAD: Final = 1
_READ_EXECUTE: Final = 5
_PAGE: Final = 0x10000


def tiny_program(machine: str) -> bytes | None:
    """Make the program for a machine (`platform.machine()`); `None` for one that is not known."""
    if machine not in _EXIT_CODE_0:
        return None
    number, code = _EXIT_CODE_0[machine]
    start = _HEADER.size + _SEGMENT.size
    size = start + len(code)
    identity = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = _HEADER.pack(
        identity,
        _EXECUTABLE,
        number,
        1,
        _LOAD_ADDRESS + start,
        _HEADER.size,
        0,
        0,
        _HEADER.size,
        _SEGMENT.size,
        1,
        0,
        0,
        0,
    )
    segment = _SEGMENT.pack(
        _LOAD, _READ_EXECUTE, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, size, size, _PAGE
    )
    return header + segment + code
