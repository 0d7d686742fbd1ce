"""A file system whose server answers until it is told to be silent, and never again after that.

Run in a mount namespace of its own: ``stalled_fuse.py DIRECTORY``. It prints its pid and the
numbers of four descriptors (the root by ``O_PATH``, the root, a file, a FIFO), to be taken with
pidfd_getfd(2), and is silent from then on. A line on stdin ends the server, and with it every wait.
The descriptors are another process's than the server's, which could not end while it waits for
itself. Source: linux/fuse.h, protocol 7.31.
"""

import ctypes
import os
import signal
import struct
import sys

LOOKUP, GETATTR, INIT = 1, 3, 26
HEADER = struct.Struct("<IIQQIIII")
REPLY = struct.Struct("<IiQ")
ROOT, FILE, FIFO = 1, 2, 3
MODES = {ROOT: 0o40755, FILE: 0o100644, FIFO: 0o10644}
BUFFER_BYTES = 1 << 17
SILENT_SECONDS_MAX = 20
"""When it ends: whoever waits in the kernel could not even be killed before."""


def attributes(node: int) -> bytes:
    return struct.pack("<6Q10I", node, 0, 0, 0, 0, 0, 0, 0, 0, MODES[node], 1, 0, 0, 0, 4096, 0)


def answer(opcode: int, node: int, argument: bytes) -> bytes:
    if opcode == INIT:
        return struct.pack("<4I2H2I2HI", 7, 31, 4096, 0, 8, 8, 4096, 1, 1, 0, 0).ljust(64, b"\0")
    if opcode == LOOKUP:
        found = FIFO if argument == b"fifo\0" else FILE
        return struct.pack("<4Q2I", found, 0, 0, 0, 0, 0) + attributes(found)
    if opcode == GETATTR:
        return struct.pack("<QII", 0, 0, 0) + attributes(node)
    return struct.pack("<QII", 1, 0, 0)


def mount(device: int, place: str) -> None:
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"stalled", os.fsencode(place), b"fuse", 0, options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def serve(device: int) -> None:
    """Answer until SIGTERM; then only read, which keeps the connection, but not for ever."""
    signal.alarm(SILENT_SECONDS_MAX)
    silent = False

    def fall_silent(*_: object) -> None:
        nonlocal silent
        silent = True

    signal.signal(signal.SIGTERM, fall_silent)
    while True:
        request = os.read(device, BUFFER_BYTES)
        _, opcode, unique, node, *_ = HEADER.unpack_from(request)
        if not silent:
            body = answer(opcode, node, request[HEADER.size :])
            os.write(device, REPLY.pack(REPLY.size + len(body), 0, unique) + body)


def main(place: str) -> None:
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    mount(device, place)
    server = os.fork()
    if server == 0:
        serve(device)
    os.close(device)
    flags = os.O_DIRECTORY | os.O_CLOEXEC
    numbers = [os.open(place, os.O_PATH | flags), os.open(place, flags)]
    numbers.append(os.open(f"{place}/file", os.O_RDONLY | os.O_CLOEXEC))
    numbers.append(os.open(f"{place}/fifo", os.O_RDWR | os.O_CLOEXEC))
    os.kill(server, signal.SIGTERM)
    print(os.getpid(), *numbers, flush=True)
    sys.stdin.readline()
    os.kill(server, signal.SIGKILL)
    os.waitpid(server, 0)


if __name__ == "__main__":
    main(sys.argv[1])
