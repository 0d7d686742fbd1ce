"""Which namespaces a container is put into, of those that are there."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Final

from manager.schema import worker as w
from manager.urpc.fds import OwnedFd
from manager.worker.errors import LaunchFailed
from manager.worker.launch import Launch
from manager.worker.loop import Pause, Steps

ROOT_POLL_SECONDS: Final = 0.01
"""How often to look whether a root container, which is restored with all others, runs."""

SANDBOX_NAMESPACES: Final = ("net", "ipc", "uts")
"""What a subcontainer shares with the root container of its sandbox."""


def join_namespaces(
    command: w.Launch,
    given: Mapping[str, OwnedFd],
    running: Callable[[str], Launch | None],
    owned: contextlib.ExitStack,
) -> Steps[dict[str, OwnedFd]]:
    """Duplicate the namespaces that a launch is to join.

    Args:
        command: The launch.
        given: Those that came with it.
        running: Finds a launch by its id.
        owned: Becomes the owner of what is duplicated.

    Returns:
        Name -> descriptor, of what is given as well.

    Raises:
        LaunchFailed: Stage `namespaces`: the other container is gone, or does not run.
    """
    wanted = dict.fromkeys(SANDBOX_NAMESPACES, command.sandbox) | {"pid": command.pid_namespace}
    joined = dict(given)
    for name, launch_id in wanted.items():
        if launch_id is None or name in given:
            continue
        other = running(launch_id)
        while other is not None and command.held_image and other.phase == "launching":
            yield Pause(seconds=ROOT_POLL_SECONDS)
        if other is None:
            reason = f"the container whose {name} namespace is to be joined is gone"
            raise LaunchFailed("namespaces", reason)
        joined[name] = other.join(name)
        owned.callback(joined[name].close)
    return joined
