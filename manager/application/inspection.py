"""Looking at what runs: questions to the worker, which leave nothing in the log."""

from collections.abc import Sequence
from typing import Literal

from manager.application.errors import CallRefused
from manager.application.node import Node
from manager.domain.gotext import quote
from manager.domain.state import Sandbox
from manager.schema.observation import ProcessFacts, UsageFacts


class Inspection:
    """What the processes of sandboxes are and use.

    Args:
        node: Where they are.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    def sandbox(self, sandbox_id: str) -> Sandbox:
        """The state of a sandbox that lives.

        Raises:
            CallRefused: There is none.
        """
        found = self._node.registry.get(sandbox_id)
        if found is None:
            raise CallRefused(f"sandbox {quote(sandbox_id)} not found")
        return found.state

    async def processes(
        self, sandbox_id: str, cid: str = "", *, details: bool = False
    ) -> Sequence[ProcessFacts]:
        """Look at the processes of a container, or of all; one that does not run has none.

        Args:
            sandbox_id: Where.
            cid: The container; empty for every one of the sandbox.
            details: Look at everything that /proc tells, environments among it.

        Raises:
            CallRefused: No such sandbox.
            WorkerGone: The worker did not answer. Ask again.
        """
        launches = self._running(sandbox_id, cid)
        what: Literal["processes", "details"] = "details" if details else "processes"
        return (await self._node.link.ask(tuple(launches), what)).processes if launches else ()

    async def usages(self, sandbox_id: str) -> dict[str, UsageFacts]:
        """What each container that runs has used, by cid.

        Raises:
            CallRefused: No such sandbox.
            WorkerGone: The worker did not answer. Ask again.
        """
        launches = self._running(sandbox_id)
        if not launches:
            return {}
        answer = await self._node.link.ask(tuple(launches), "usage")
        return {launches[usage.launch_id]: usage for usage in answer.usages}

    def _running(self, sandbox_id: str, cid: str = "") -> dict[str, str]:
        """Cids of the containers in which there are processes, by launch id."""
        return {
            found.intent.launch_id: found.cid
            for found in self.sandbox(sandbox_id).containers.values()
            if found.intent is not None
            and found.status in {"running", "paused"}
            and cid in {"", found.cid}
        }
