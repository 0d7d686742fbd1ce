"""The methods that look at a sandbox, pause it and let it go on."""

import time
from typing import Any, Final

from manager.adapters import gvisor_shapes as shapes
from manager.application.calls import Calls
from manager.application.errors import CallRefused
from manager.application.inspection import Inspection
from manager.domain.gotext import quote
from manager.schema.node_fold import Origin
from manager.urpc.protocol import Request

EMPTY: Final[dict[str, Any]] = {}


class ObservationMethods:
    """For one sandbox; each as in :class:`manager.adapters.methods.ContainerManager`."""

    def __init__(self, calls: Calls, inspection: Inspection, sandbox_id: str) -> None:
        self._calls = calls
        self._inspection = inspection
        self._id = sandbox_id

    async def pause(self, argument: Any, _: Request, origin: Origin) -> Any:
        """Stop every process of the sandbox."""
        await self._calls.pause(self._id, origin, request_id=_request_id(argument))
        return EMPTY

    async def resume(self, argument: Any, _: Request, origin: Origin) -> Any:
        """Let the sandbox go on."""
        request_id = _request_id(argument)
        await self._calls.pause(self._id, origin, paused=False, request_id=request_id)
        return EMPTY

    async def processes(self, argument: Any, _: Request, __: Origin) -> Any:
        """List the processes of a container, or with an empty id of the sandbox."""
        found = await self._inspection.processes(self._id, argument)
        now_ns = time.time_ns()
        return [shapes.process(facts, now_ns) for facts in found] or None

    async def ps(self, argument: Any, _: Request, __: Origin) -> Any:
        """List the processes of the sandbox, as text or as text of JSON."""
        found = list(await self._inspection.processes(self._id))
        now_ns = time.time_ns()
        if argument["JSON"]:
            return shapes.ps_json(found, now_ns)
        return shapes.ps_table(found, now_ns)

    async def event(self, argument: Any, _: Request, __: Origin) -> Any:
        """Tell what a container uses; the client of 2022 names none and means the root."""
        cid = argument or self._id
        if self._inspection.sandbox(self._id).container(cid) is None:
            raise CallRefused(f"container {quote(cid)} not found")
        return shapes.event(cid, await self._inspection.usages(self._id))

    async def collect(self, _: Any, __: Request, ___: Origin) -> Any:
        """Tell what memory the sandbox uses."""
        return shapes.memory_usage(await self._inspection.usages(self._id))

    async def procfs_dump(self, _: Any, __: Request, ___: Origin) -> Any:
        """Tell everything about every process."""
        found = await self._inspection.processes(self._id, details=True)
        return [shapes.procfs_dump(facts) for facts in found]


def _request_id(argument: Any) -> str:
    return argument["RequestID"] if argument else ""
