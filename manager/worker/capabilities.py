"""What this kernel can do for containers: tried, never read off its version number."""

import contextlib
import os
from pathlib import Path
from typing import Final

from msgspec import Struct

from manager.kernel import mount, pidfd
from manager.kernel.paths import open_beneath
from manager.urpc.fds import OwnedFd
from manager.worker.layers import overlay_takes_descriptors

PROBE_EXIT_CODE: Final = 42


class Kernel(Struct, frozen=True, kw_only=True):
    """Facilities found.

    Attributes:
        missing: What nothing can stand in for; empty where containers can be launched.
        overlay_by_fd: Overlay layers by descriptor.
        exit_status_by_pidfd: The wait status of a process that somebody else has reaped.
        has_erofs: EROFS is in this kernel.
    """

    missing: str
    overlay_by_fd: bool
    exit_status_by_pidfd: bool
    pidfd_inodes: bool
    has_erofs: bool

    def paths_taken(self) -> dict[str, str]:
        """For the record, facility -> the way it is done here."""
        return {
            "mounts": self.missing or "open_tree, move_mount, mount_setattr",
            "overlay": "descriptors" if self.overlay_by_fd else "magic links",
            "exit-status": "PIDFD_GET_INFO" if self.exit_status_by_pidfd else "waitid only",
            "identity": "pidfd inode" if self.pidfd_inodes else "pid and start time",
            "erofs": "yes" if self.has_erofs else "no",
        }


def probe_kernel() -> Kernel:
    """Try everything once; call in the worker's own mount namespace, before it has children."""
    missing = _missing()
    exit_status, inodes = probe_pidfds()
    return Kernel(
        missing=missing,
        overlay_by_fd=not missing and _probe_overlay(),
        exit_status_by_pidfd=exit_status,
        pidfd_inodes=inodes,
        has_erofs="\terofs\n" in Path("/proc/filesystems").read_text(encoding="ascii"),
    )


def _missing() -> str:
    try:
        with OwnedFd(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
            open_beneath(root.number, "/").close()
            with mount.clone_tree(root.number) as tree:
                mount.set_attributes(tree.number, mount.ATTR_RDONLY)
            mount.tmpfs().close()
    except OSError as error:
        return f"the kernel's mount API cannot be used: {error.strerror}"
    return ""


def _probe_overlay() -> bool:
    with contextlib.suppress(OSError):
        return overlay_takes_descriptors()
    return False


def probe_pidfds() -> tuple[bool, bool]:
    """What a pidfd is good for: the status of who was reaped already; an inode of its own."""
    pid = os.fork()
    if pid == 0:
        os._exit(PROBE_EXIT_CODE)
    with pidfd.open_pidfd(pid) as handle:
        os.waitpid(pid, 0)
        has_inode = pidfd.inode(handle.number) != 0
        with contextlib.suppress(OSError):
            return pidfd.exit_status(handle.number) == PROBE_EXIT_CODE << 8, has_inode
    return False, has_inode
