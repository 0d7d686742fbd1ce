"""The descriptors of one start, by their parts; their order on the wire is made only here."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from manager.domain.request import LOWERS, UPPERS
from manager.urpc.fds import HasFileno

FileLike: TypeAlias = int | HasFileno


class Layer(Struct, frozen=True, kw_only=True):
    """One file tree.

    Attributes:
        source: A directory (or, for a bind mount, a file); with ``image``, an EROFS image; absent
            for a tmpfs.
        image: Whether ``source`` is an EROFS image.
        upper: What catches writes: nothing, memory of ``size``, or the directory ``filestore``.
        size: As in tmpfs(5), e.g. ``64m``; empty for the kernel's default.
        filestore: Where the upper layer is kept; present exactly when ``upper`` is ``filestore``.
    """

    source: FileLike | None = None
    image: bool = False
    upper: Literal["none", "memory", "filestore"] = "none"
    size: str = ""
    filestore: FileLike | None = None

    def conf(self) -> dict[str, Any]:
        """The layer as a gofer mount configuration."""
        lower = "none" if self.source is None else "erofs" if self.image else "lisafs"
        upper = "anon" if self.upper == "filestore" else self.upper
        conf: dict[str, Any] = {
            "lower": LOWERS.index(lower),
            "upper": UPPERS.index(upper),
        }
        if self.size:
            conf["size"] = self.size
        return conf


class Donation(Struct, frozen=True, kw_only=True):
    """What a client lends to a start; it keeps its own descriptors.

    Attributes:
        rootfs: The root filesystem.
        stdio: stdin, stdout, stderr; absent for a process with a terminal.
        tty: The terminal of a *root* container (a subcontainer's is donated when it is created).
        mounts: One layer for each bind or EROFS mount of the spec, in the spec's order.
        dev: A directory that becomes ``/dev``.
        upper_tar: An archive to unpack into the root filesystem's upper layer.
    """

    rootfs: Layer
    stdio: tuple[FileLike, FileLike, FileLike] | None = None
    tty: FileLike | None = None
    mounts: Sequence[Layer] = ()
    dev: FileLike | None = None
    upper_tar: FileLike | None = None

    def _layers(self) -> tuple[Layer, ...]:
        return (self.rootfs, *self.mounts)

    def files(self) -> list[FileLike]:
        """Every descriptor, in the order of the call."""
        layers = self._layers()
        files: list[FileLike | None] = [
            self.tty,
            *(self.stdio or ()),
            *(layer.filestore for layer in layers if layer.upper == "filestore"),
            self.dev,
            self.upper_tar,
            *(layer.source for layer in layers),
        ]
        return [file for file in files if file is not None]

    def arguments(self) -> dict[str, Any]:
        """The members of StartArgs that describe the list."""
        layers = self._layers()
        return {
            "NumGoferFilestoreFDs": sum(layer.upper == "filestore" for layer in layers),
            "IsDevIoFilePresent": self.dev is not None,
            "GoferMountConfs": [layer.conf() for layer in layers],
            "IsRootfsUpperTarFilePresent": self.upper_tar is not None,
        }
