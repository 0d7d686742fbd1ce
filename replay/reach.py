"""How far settings reach: which recorded decisions may come out otherwise under them.

A rule that does not look at a setting decides the same whatever the setting is. So of a decision
that no setting reaches no more need be known than that a client asked for it, and nearly always the
type of its first event says that. :func:`replay.redecide.whatif` takes the others again.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final, Literal, TypeAlias

from manager.domain import commands as c
from replay.settings import Settings

Origin: TypeAlias = Literal["client", "worker", "unclear"]

ASKED: Final[Mapping[str, type[c.ClientCommand]]] = {
    "sandbox.created": c.CreateSandbox,
    "sandbox.create_rejected": c.CreateSandbox,
    "sandbox.start_requested": c.StartRoot,
    "sandbox.start_rejected": c.StartRoot,
    "sandbox.delete_requested": c.DeleteSandbox,
    "sandbox.delete_rejected": c.DeleteSandbox,
    "sandbox.checkpoint_requested": c.Checkpoint,
    "sandbox.checkpoint_rejected": c.Checkpoint,
    "sandbox.pause_requested": c.Pause,
    "restore.begun": c.Restore,
    "restore.rejected": c.Restore,
    "container.created": c.CreateSubcontainer,
    "container.create_rejected": c.CreateSubcontainer,
    "container.start_accepted": c.StartSubcontainer,
    "container.start_rejected": c.StartSubcontainer,
    "container.start_translated": c.RestoreSubcontainer,
    "container.restore_accepted": c.RestoreSubcontainer,
    "container.restore_rejected": c.RestoreSubcontainer,
    "container.signal_requested": c.Signal,
    "container.destroy_requested": c.DestroySubcontainer,
    "container.destroy_rejected": c.DestroySubcontainer,
    "process.exec_accepted": c.Execute,
    "process.exec_rejected": c.Execute,
}
"""Types of event with which the answer to a client begins, and what the client asked for.

A start that is translated is decided as a restore.
"""
REPORTED: Final = frozenset(
    "sandbox.started sandbox.start_failed sandbox.checkpointed sandbox.checkpoint_failed "
    "container.started container.start_failed container.exited container.lost "
    "container.hold_lost container.signal_sent "
    "process.executed process.exec_failed process.exited process.lost".split()
)
"""Types of event with which nothing begins but what a report of the worker leads to."""
ASKED_WITHOUT: Final[Mapping[str, str]] = {
    "container.signal_rejected": "kill_id",
    "container.destroyed": "launch_id",
}
"""Types of event that are a client's answer if they lack this member, else a report's."""

START_COMMANDS: Final[frozenset[type[c.ClientCommand]]] = frozenset(
    {c.CreateSandbox, c.StartSubcontainer, c.RestoreSubcontainer}
)
RESTORE_COMMANDS: Final[frozenset[type[c.ClientCommand]]] = frozenset(
    {c.Restore, c.RestoreSubcontainer}
)
ENGINE_COMMANDS: Final = frozenset(
    kind for kind in ASKED.values() if "engine" in kind.__struct_fields__
)


def origin_of(tag: str, data: Mapping[str, Any]) -> Origin:
    """Who a decision answers that begins with an event of this type and payload.

    ``unclear`` if only the state before it can tell.
    """
    if tag in ASKED:
        return "client"
    if tag in REPORTED:
        return "worker"
    if tag in ASKED_WITHOUT:
        return "worker" if data.get(ASKED_WITHOUT[tag]) else "client"
    return "unclear"


class Reach:
    """How far settings reach.

    Attributes:
        tags: The types of event with which decisions begin that may come out otherwise. Of those
            that are ``unclear``, see :func:`origin_of`, none is named.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        commands: set[type[c.ClientCommand]] = set()
        if settings.policy is not None:
            commands |= RESTORE_COMMANDS
        if settings.engine is not None:
            commands |= ENGINE_COMMANDS
        self._always = _tags(commands)
        if settings.ignore_namespace_paths is not None or settings.permits is not None:
            commands |= START_COMMANDS
        self.tags = _tags(commands)

    def leaves(self, tag: str, data: Mapping[str, Any]) -> bool:
        """Whether the decision that begins with this type and payload is out of reach.

        It is, too, if it was taken on the very values that are set.
        """
        if tag not in self.tags:
            return True
        if tag in self._always:
            return False
        request = data.get("request", data.get("intent", {}).get("request"))
        return request is not None and self._has_these_values(request)

    def _has_these_values(self, request: Mapping[str, Any]) -> bool:
        paths, permits = self._settings.ignore_namespace_paths, self._settings.permits
        return paths in {None, request.get("ignore_namespace_paths", False)} and (
            permits is None or permits == tuple(request.get("permits", ()))
        )


def _tags(commands: Collection[type[c.ClientCommand]]) -> frozenset[str]:
    return frozenset(tag for tag, command in ASKED.items() if command in commands)
