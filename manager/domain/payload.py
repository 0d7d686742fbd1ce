"""Which donated file descriptor plays which part.

A start call carries its descriptors as one flat list. Their order is gVisor's:
``[stdin stdout stderr]`` unless the process has a terminal, then the filestores, the ``/dev``
directory, the root filesystem's upper tar, and last one descriptor for the root filesystem and one
for each configured mount. A plan names them by their index in that list, so that it can be decided
on, recorded and sent to the worker without touching a descriptor.
"""

from typing import Literal, TypeAlias

from msgspec import Struct

Lower: TypeAlias = Literal["none", "lisafs", "erofs"]
Upper: TypeAlias = Literal["none", "memory", "self", "anon"]


class LayerPlan(Struct, frozen=True, kw_only=True):
    """One mounted file tree: what lies below, and what catches the writes.

    ``lower_fd`` is absent exactly when ``lower`` is ``none`` (a tmpfs); ``filestore_fd`` is present
    exactly when ``upper`` is ``self`` or ``anon``. ``size`` bounds a memory upper (or the tmpfs) in
    the syntax of tmpfs(5), empty for the kernel's default.
    """

    lower: Lower
    lower_fd: int | None = None
    upper: Upper = "none"
    filestore_fd: int | None = None
    size: str = ""
    readonly: bool = False


class MountPlan(Struct, frozen=True, kw_only=True):
    """A layer to attach at ``destination`` (absolute, in the container).

    ``options`` are the mount options of the spec, in its order (``ro``, ``nosuid``, ``rbind``, …).
    """

    destination: str
    layer: LayerPlan
    options: tuple[str, ...] = ()


class LaunchPlan(Struct, frozen=True, kw_only=True):
    """Every descriptor of one start, by index into the donated list.

    ``stdio`` is ``None`` for a process with a terminal: its three streams are the terminal that was
    donated when the container was created.
    """

    stdio: tuple[int, int, int] | None
    root: LayerPlan
    mounts: tuple[MountPlan, ...] = ()
    dev_fd: int | None = None
    upper_tar_fd: int | None = None
