"""Unpacks archives that come on standard input, each in a process of its own, into an empty root.

The first argument is the root, the second how: `whole` runs what the worker runs, which shuts
itself in; `names` unpacks without that, so that nothing but the check of names and of the targets
of hard links keeps an archive in the root. What symbolic links could do then is for the shutting
in, and an archive that has one is refused.

Each archive is a length (u32, big-endian) and its bytes; the answer is one byte, `.` or `!`: it was
unpacked or refused, or what happened is a defect, which the error output tells.
"""

import io
import os
import shutil
import struct
import sys
import tarfile
import traceback
from collections.abc import Callable

from manager.worker import untar
from manager.worker.untar import FAILURES, Caps, Refused, unpack

ENTRIES_MAX = 100
BYTES_MAX = 1 << 20
REFUSED = 1
DEFECT = 99


class NoSymbolicLinks(Caps):
    """Refuses them before anybody follows one."""

    def admit(self, member: tarfile.TarInfo) -> None:
        super().admit(member)
        if member.issym():
            raise Refused(f"entry {member.name!r}: a symbolic link")


def whole(root: str, body: bytes) -> int:
    archive = os.memfd_create("archive")
    os.write(archive, body)
    os.lseek(archive, 0, os.SEEK_SET)
    sys.argv[1:] = [str(os.open(root, os.O_RDONLY)), str(archive)]
    sys.stderr = io.StringIO()
    return untar.main()


def names(root: str, body: bytes) -> int:
    os.chdir(root)
    try:
        with tarfile.open(fileobj=io.BytesIO(body), mode="r|", errorlevel=1) as archive:
            unpack(archive, NoSymbolicLinks(entries=ENTRIES_MAX, size_bytes=BYTES_MAX))
    except FAILURES:
        return REFUSED
    return os.EX_OK


def in_a_child(how: Callable[[str, bytes], int], root: str, body: bytes) -> int:
    """Its exit code, or DEFECT if an exception came out; -signo if a signal ended it."""
    child = os.fork()
    if child == 0:
        code = DEFECT
        try:
            code = how(root, body)
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    root, how = sys.argv[1], {"whole": whole, "names": names}[sys.argv[2]]
    while header := sys.stdin.buffer.read(4):
        (length,) = struct.unpack(">I", header)
        code = in_a_child(how, root, sys.stdin.buffer.read(length))
        for entry in os.scandir(root):
            if entry.is_dir(follow_symlinks=False):
                os.chmod(entry.path, 0o700)
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        os.write(1, b"." if code in {os.EX_OK, REFUSED} else b"!")


if __name__ == "__main__":
    main()
