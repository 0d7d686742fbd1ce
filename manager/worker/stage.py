"""The stage: a tmpfs that only the worker sees, where file trees are put together.

Each launch has a tmpfs of its own on it, so that one unmount takes away whatever a launch mounted
or wrote, however far it got.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

from manager.kernel import mount
from manager.kernel.paths import open_beneath
from manager.urpc.fds import OwnedFd

STAGE_SIZE: Final = "16m"
"""Size of the tmpfs that carries the launches' mount points."""

LAUNCH_SIZE: Final = "64m"
"""Size of a launch's tmpfs: its config (up to 16 MiB, re-encoded) and its empty mount points."""

_STAGE_MODE: Final = 0o700


class LaunchStage:
    """One launch's place on the stage.

    Attributes:
        path: Its directory: `root` (the finished root filesystem), `bundle`, `skeleton` (mount
            points for an overlay), `parts` (everything mounted on the way).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path / "root"
        self.bundle = path / "bundle"
        self.skeleton = path / "skeleton"
        self.parts = path / "parts"

    def create(self) -> None:
        """Mount it and make its directories.

        Raises:
            OSError: The kernel refused; `remove` takes away what there is.
        """
        self.path.mkdir(mode=_STAGE_MODE)
        _mount_tmpfs(self.path, LAUNCH_SIZE)
        for directory in (self.root, self.bundle, self.skeleton, self.parts):
            directory.mkdir(mode=_STAGE_MODE)
        # It becomes the top layer of an overlay: its mode is what the container sees of `/`.
        self.skeleton.chmod(0o755)

    def attach_part(self, tree: OwnedFd, name: str, *, is_file: bool = False) -> Path:
        """Attach a detached mount among the parts; returns its place. `tree` is lent."""
        place = self.parts / name
        if is_file:
            place.touch()
        else:
            place.mkdir()
        with OwnedFd(os.open(place, os.O_PATH | os.O_CLOEXEC)) as target:
            mount.attach(tree.number, target.number)
        return place

    def attach_root(self, tree: OwnedFd) -> OwnedFd:
        """Attach the root filesystem; returns it opened, from above. `tree` is lent."""
        with OwnedFd(os.open(self.root, os.O_PATH | os.O_CLOEXEC)) as target:
            mount.attach(tree.number, target.number)
        return OwnedFd(os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    def detach_part(self, name: str) -> None:
        """Unmount a part that is no longer needed by name: an overlay keeps its layers itself."""
        mount.unmount(str(self.parts / name))

    def remove(self) -> list[str]:
        """Take it all away; returns what could not be."""
        with contextlib.suppress(OSError):
            mount.unmount(str(self.path))
        try:
            self.path.rmdir()
        except FileNotFoundError:
            return []
        except OSError as error:
            return [f"{self.path}: {error.strerror}"]
        return []


class Stage:
    """The stage of a worker, mounted over `path` in the worker's own mount namespace."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def mount(self) -> None:
        """Make it.

        Raises:
            OSError: No privilege, or a kernel without the mount API.
        """
        self._path.mkdir(mode=_STAGE_MODE, exist_ok=True)
        _mount_tmpfs(self._path, STAGE_SIZE)

    def of_launch(self, engine_id: str) -> LaunchStage:
        """Name a launch's place; `create()` makes it."""
        return LaunchStage(self._path / engine_id)


def make_mount_point(root_fd: int, destination: str, *, is_file: bool) -> OwnedFd:
    """Open a mount point in a tree that a client can change, making it if it is missing.

    Args:
        root_fd: The tree; `destination` is as seen from inside.
        destination: Absolute and normal.
        is_file: Whether a file is to be mounted on it.

    Raises:
        OSError: `ELOOP`, a component is a symbolic link; `filename` says which.
    """
    here = OwnedFd(os.dup(root_fd))
    names = destination.strip("/").split("/")
    for depth, name in enumerate(names, start=1):
        try:
            entered = _enter(here.number, name, is_file=is_file and depth == len(names))
        except OSError as error:
            raise OSError(error.errno, error.strerror, "/" + "/".join(names[:depth])) from error
        finally:
            here.close()
        here = entered
    return here


def _enter(dir_fd: int, name: str, *, is_file: bool) -> OwnedFd:
    flags = os.O_PATH if is_file else os.O_PATH | os.O_DIRECTORY
    try:
        return open_beneath(dir_fd, name, flags)
    except FileNotFoundError:
        pass
    with contextlib.suppress(FileExistsError):
        if is_file:
            new = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, new, 0o644, dir_fd=dir_fd))
        else:
            os.mkdir(name, 0o755, dir_fd=dir_fd)
    return open_beneath(dir_fd, name, flags)


def _mount_tmpfs(path: Path, size: str) -> None:
    attributes = mount.ATTR_NOSUID | mount.ATTR_NODEV
    with (
        mount.tmpfs(size, _STAGE_MODE, attributes) as tree,
        OwnedFd(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as target,
    ):
        mount.attach(tree.number, target.number)
