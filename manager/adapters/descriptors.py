"""What can be learned of, and done to, donated descriptors in the clients' namespace."""

import os
from typing import Final

from typing_extensions import override

from manager.adapters.answering import describe
from manager.application.ports import Described, Descriptors
from manager.domain.payload import LaunchPlan
from manager.kernel.donated import make_portable, open_namespace_at
from manager.schema.image import Image, read_image
from manager.urpc.fds import FdBundle, OwnedFd

ROOT_UID: Final = 0


class KernelDescriptors(Descriptors):
    """Asks fstat(2), fcntl(2) and fstatfs(2); clones mounts in this process's namespace."""

    @override
    async def describe(self, files: FdBundle) -> Described:
        return await describe(files)

    @override
    def read_image(self, files: FdBundle) -> Image:
        number = files.numbers()[0]
        size = os.fstat(number).st_size
        return read_image(size, lambda offset, length: _read(number, offset, length))

    @override
    def open_namespace(self, name: str, path: str) -> OwnedFd:
        return open_namespace_at(path, name)

    @override
    def prepare(self, plan: LaunchPlan, files: FdBundle) -> FdBundle:
        if os.geteuid() != ROOT_UID:
            # An ordinary user may not clone mounts here; the worker, root of a user namespace of
            # its own, can do so there.
            return files
        return make_portable(plan, files)


def _read(number: int, offset: int, length: int) -> bytes:
    """Read all of it that there is: pread(2) returns at most 2 GiB, and may return less."""
    found = bytearray()
    while len(found) < length:
        piece = os.pread(number, length - len(found), offset + len(found))
        if not piece:
            break
        found += piece
    return bytes(found)
