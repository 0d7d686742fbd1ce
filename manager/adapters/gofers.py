"""For gVisor's own command alone: what its gofers would have served, from the paths of the spec.

`runsc start` donates connections to a gofer, a process that serves a file tree over a protocol that
only gVisor speaks. A service that was started to work with it (`--runsc-root`) opens the paths that
the gofer was given instead. They are the peer's own choice of paths of the host: only root and the
user of the service are let in.
"""

import os
import stat
from typing import Final

from manager.application.spec_body import SpecObject
from manager.domain.spec import parse_spec_object
from manager.kernel.statx import known_type
from manager.urpc.fds import FdBundle, OwnedFd

_PATH_FLAGS: Final = os.O_PATH | os.O_CLOEXEC


def replace_gofers(spec: SpecObject, files: FdBundle) -> tuple[tuple[str, ...], FdBundle]:
    """Put host directories in the place of gofer connections, if that is what was donated.

    Args:
        spec: As the client sent it.
        files: Ownership moves in, also when this raises.

    Returns:
        The paths that were opened, and the files; no paths, and the files as they came, if the last
        of them are not all sockets, one for the root and one for each bind mount.

    Raises:
        OSError: A path cannot be opened; `filename` says which.
        ValueError: The spec cannot be read.
    """
    with files:
        parsed = parse_spec_object(spec)
        root = parsed.root.path if parsed.root is not None else ""
        paths = (root, *(mount.source for mount in parsed.mounts or () if mount.is_bind))
        first = len(files) - len(paths)
        if first < 0 or not all(_is_socket(fd) for fd in list(files)[first:]):
            return (), files.take_all()
        replaced = FdBundle()
        try:
            for index, fd in enumerate(files):
                replaced.append(fd.take() if index < first else _open(paths[index - first]))
        except BaseException:
            replaced.close()
            raise
        return paths, replaced


def _is_socket(fd: OwnedFd) -> bool:
    return stat.S_ISSOCK(known_type(fd.number)[0])


def _open(path: str) -> OwnedFd:
    return OwnedFd(os.open(path, _PATH_FLAGS))
