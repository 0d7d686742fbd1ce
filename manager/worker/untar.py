"""Unpack a tar into a directory: a script, run in a process of its own by the worker.

It shuts itself into the directory first (chroot), so that no name, symbolic link or hard link in
the archive leads anywhere else; refusing such names on top of that tells the client that its
archive is not what it believes. From then on it imports nothing: the modules of the standard
library would be looked up in the directory, where the archive may have put its own.

Arguments: the directory's descriptor, the archive's descriptor. Ends with code 0, or 1 and one line
on the error output. Standard library only: it runs isolated from the worker's import path.

Overlay conventions are kept: a character device 0:0 is a whiteout, and the extended attribute
`trusted.overlay.opaque` (as `SCHILY.xattr.…`) hides what lies below a directory.
Source: Documentation/filesystems/overlayfs.rst; pax(1), star's SCHILY.xattr records.
"""

import os
import posixpath
import resource
import sys
import tarfile
from typing import Final

TAR_ENTRIES_MAX: Final = 500_000
"""Most entries of an archive."""

TAR_BYTES_MAX: Final = 16 * 1024**3
"""Most bytes of all its files together, and so of one."""

OPAQUE: Final = "trusted.overlay.opaque"
_OPAQUE_RECORD: Final = f"SCHILY.xattr.{OPAQUE}"


class Refused(Exception):  # noqa: N818 - says what happened
    """The archive holds something that has no place in an upper layer."""


FAILURES: Final = (
    *(Refused, tarfile.TarError, OSError),
    # Of tarfile and the system calls it makes, for members that no honest archive has.
    *(ValueError, OverflowError, KeyError, RecursionError),
)
"""What unpacking may end with: the archive's fault, or the file system's."""


class Caps:
    """Counts what is unpacked, and refuses when it is too much."""

    def __init__(self, *, entries: int = TAR_ENTRIES_MAX, size_bytes: int = TAR_BYTES_MAX) -> None:
        self._entries_left = entries
        self._bytes_left = size_bytes
        self._limits = (entries, size_bytes)

    def admit(self, member: tarfile.TarInfo) -> None:
        """Count one entry.

        Raises:
            Refused: One too many.
        """
        self._entries_left -= 1
        self._bytes_left -= member.size
        if self._entries_left < 0:
            raise Refused(f"more than {self._limits[0]} entries")
        if self._bytes_left < 0:
            raise Refused(f"more than {self._limits[1]} bytes")


def check(member: tarfile.TarInfo) -> None:
    """Refuse names and links that leave the tree, and devices.

    An absolute target of a symbolic link stays: inside a container it leads into the container.

    Raises:
        Refused: Says which entry, and why.
    """
    _check_name(member, member.name, "name")
    if member.islnk():
        _check_name(member, member.linkname, "hard link target")
    if member.issym() and not member.linkname.startswith("/"):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname))
        if target == ".." or target.startswith("../"):
            raise Refused(f"entry {member.name!r}: symbolic link target leaves the tree")
    if member.isblk() or (member.ischr() and (member.devmajor, member.devminor) != (0, 0)):
        raise Refused(f"entry {member.name!r}: a device; only whiteouts (0:0) are unpacked")
    if member.type not in tarfile.SUPPORTED_TYPES:
        raise Refused(f"entry {member.name!r}: unknown type {member.type!r}")


def _check_name(member: tarfile.TarInfo, name: str, what: str) -> None:
    if name.startswith("/"):
        raise Refused(f"entry {member.name!r}: absolute {what}")
    if ".." in name.split("/"):
        raise Refused(f"entry {member.name!r}: '..' in its {what}")


def unpack(archive: tarfile.TarFile, caps: Caps) -> None:
    """Unpack into the working directory, which is the root directory.

    Raises:
        Refused: By name, type or size.
        tarfile.TarError, ValueError, OverflowError, KeyError, RecursionError: It is damaged.
        OSError: The file system is full, or would not take an entry.
    """
    directories: list[tarfile.TarInfo] = []
    for member in archive:
        caps.admit(member)
        check(member)
        _replace(member)
        # The process is confined and the entry checked; a filter would strip modes (of /tmp, of
        # set-id programs) that the upper layer is meant to have.
        if hasattr(tarfile, "fully_trusted_filter"):
            archive.extract(member, ".", numeric_owner=True, filter="fully_trusted")
        else:
            archive.extract(member, ".", numeric_owner=True)
        if member.isdir():
            directories.append(member)
            _mark_opaque(member)
    for member in reversed(directories):
        os.utime(member.name, (member.mtime, member.mtime), follow_symlinks=False)


def _replace(member: tarfile.TarInfo) -> None:
    # A later entry replaces an earlier one, as in every tar; a directory stays a directory.
    try:
        status = os.lstat(member.name)
    except OSError:
        return
    is_directory = (status.st_mode & 0o170000) == 0o040000
    if not (is_directory and member.isdir()):
        if is_directory:
            os.rmdir(member.name)
        else:
            os.unlink(member.name)


def _mark_opaque(member: tarfile.TarInfo) -> None:
    value = member.pax_headers.get(_OPAQUE_RECORD)
    if value:
        os.setxattr(member.name, OPAQUE, value.encode())


def shut_in(directory_fd: int) -> None:
    """Make a directory the root directory, and the end of all imports; closes its descriptor."""
    os.fchdir(directory_fd)
    os.chroot(".")
    os.close(directory_fd)
    sys.path.clear()
    sys.meta_path.clear()


def main() -> int:
    """Run; returns the exit code."""
    upper_fd, tar_fd = map(int, sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_FSIZE, (TAR_BYTES_MAX, TAR_BYTES_MAX))
    os.umask(0)
    try:
        with (
            open(tar_fd, "rb") as file,
            tarfile.open(fileobj=file, mode="r|", errorlevel=1) as archive,
        ):
            shut_in(upper_fd)
            unpack(archive, Caps())
    except FAILURES as error:
        known = isinstance(error, Refused | tarfile.TarError | OSError)
        sys.stderr.write(f"{error}\n" if known else f"a damaged archive: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
