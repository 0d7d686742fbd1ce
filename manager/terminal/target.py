"""What a person means by a bare name: a sandbox, or the one container of that name."""

from collections.abc import Collection, Mapping

from manager.terminal.ending import EXIT_USAGE, fail
from manager.terminal.table import printable


def full_target(target: str, containers: Mapping[str, Collection[str]]) -> str:
    """``SANDBOX[/CONTAINER]`` of what was written; as it was if nothing is known by that name.

    Args:
        target: What was written.
        containers: The containers of each sandbox that there is.

    A name that containers of several sandboxes have ends the process, which names them.
    """
    if "/" in target or target in containers:
        return target
    owners = [sandbox_id for sandbox_id, owned in containers.items() if target in owned]
    if len(owners) > 1:
        readings = " or ".join(f"{each}/{target}" for each in owners)
        fail(printable(f"{target!r} can be {readings}: write one of these"), EXIT_USAGE)
    return f"{owners[0]}/{target}" if owners else target
