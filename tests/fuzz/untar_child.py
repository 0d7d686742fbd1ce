"""Unpacks archives that come on standard input, each into an empty root of its own.

A program of its own, as the unpacking script is: shut into the directory in its first argument.
Each archive is a length (u32, big-endian) and its bytes; the answer is one byte, `.` or `!`: it was
unpacked or refused, or what happened is a defect, whose traceback goes to the error output.
"""

import io
import os
import shutil
import struct
import sys
import tarfile
import traceback

from manager.worker.untar import FAILURES, Caps, unpack

ENTRIES_MAX = 100
BYTES_MAX = 1 << 20


def main() -> None:
    os.chdir(sys.argv[1])
    os.chroot(".")
    while header := sys.stdin.buffer.read(4):
        (length,) = struct.unpack(">I", header)
        body = sys.stdin.buffer.read(length)
        answer = b"."
        try:
            with tarfile.open(fileobj=io.BytesIO(body), mode="r|", errorlevel=1) as archive:
                unpack(archive, Caps(entries=ENTRIES_MAX, size_bytes=BYTES_MAX))
        except FAILURES:
            pass
        except Exception:
            traceback.print_exc()
            answer = b"!"
        for name in os.listdir("."):
            if os.path.isdir(name) and not os.path.islink(name):
                os.chmod(name, 0o700)
                shutil.rmtree(name)
            else:
                os.unlink(name)
        os.write(1, answer)


if __name__ == "__main__":
    main()
