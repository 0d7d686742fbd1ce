"""Start a worker's process.

Little is imported here: a service starts its worker first, and both load what they need side by
side. The worker outlives the manager, so it is in a session of its own and never waited for.
"""

import contextlib
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from manager.adapters.state_directory import prepare_state_directory
from manager.application.errors import StateDirectoryUnsafe
from manager.urpc.unix_address import connect_unix

WORKER_SOCKET: Final = "worker.sock"
WORKER_LOG: Final = "worker.log"


def start_worker_if_none(state: Path, engine_paths: Mapping[str, Path]) -> int | None:
    """Start a worker unless one listens; returns its pid.

    Args:
        state: The service's directory, made, mode 0700, if it is missing.
        engine_paths: As of :func:`start_worker`.

    Returns:
        `None` if one listens, or none can be started: whoever needs it finds out why.
    """
    with contextlib.suppress(OSError, StateDirectoryUnsafe):
        state = prepare_state_directory(state)
        try:
            connect_unix(state / WORKER_SOCKET).close()
        except OSError:
            return start_worker(state, engine_paths, open_files())
    return None


def open_files() -> int:
    """The soft limit of open files that this process has now, for containers to get."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def start_worker(state: Path, engine_paths: Mapping[str, Path], files: int) -> int:
    """Start one; its descriptors are /dev/null and its log, nothing of ours; it hears every signal.

    Args:
        state: The service's directory, existing, absolute.
        engine_paths: Programs that it is to use instead of those in PATH, by engine, or `criu`.
        files: As of :func:`open_files`.

    Returns:
        Its pid: a child of this process, to be reaped when it has ended.

    Raises:
        OSError: No process can be made, or the log cannot be opened.
    """
    log_flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        sys.executable,
        [
            *(sys.executable, "-m", "manager.worker", "--state", str(state)),
            *("--open-files", str(files)),
            *(f"--engine-path={name}={path}" for name, path in engine_paths.items()),
        ],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(state / WORKER_LOG), log_flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=(),
    )
