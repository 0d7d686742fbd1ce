"""The methods that make an image of a sandbox, and that bring one back."""

from typing import Any, Final

from manager.application.arguments import from_wire
from manager.application.image_calls import ImageCalls
from manager.schema.node_fold import Origin
from manager.urpc.protocol import Request
from manager.urpc.server_aio import while_asked

EMPTY: Final[dict[str, Any]] = {}
FILES_WANTED: Final = {False: 1, True: 3}
"""Files of a checkpoint: one, or with ``have_pages_file`` two more, which stay empty here."""


class ImageMethods:
    """For one sandbox; each as in :class:`manager.adapters.methods.ContainerManager`."""

    def __init__(self, calls: ImageCalls, sandbox_id: str) -> None:
        self._calls = calls
        self._id = sandbox_id

    async def checkpoint(self, argument: Any, request: Request, origin: Origin) -> Any:
        """Write an image of everything that runs to the donated file."""
        await self._calls.checkpoint(
            self._id,
            request.files.take_all(),
            origin,
            resume=argument["Resume"],
            files_wanted=FILES_WANTED[argument["have_pages_file"]],
            labels=argument["metadata"],
            request_id=argument["RequestID"],
        )
        return EMPTY

    async def wait_checkpoint(self, _: Any, request: Request, __: Origin) -> Any:
        """Wait for the end of a checkpoint."""
        await while_asked(request, lambda: self._calls.wait_checkpoint(self._id))
        return EMPTY

    async def restore(self, argument: Any, request: Request, origin: Origin) -> Any:
        """Begin to restore the sandbox from the donated image."""
        files = request.files.take_all()
        await self._calls.restore(
            self._id,
            files,
            origin,
            argument["RequestID"],
            background=argument["Background"],
        )
        return EMPTY

    async def restore_subcontainer(self, argument: Any, request: Request, origin: Origin) -> Any:
        """Register one container of the image."""
        arguments = from_wire(argument, argument["CID"])
        files = request.files.take_all()
        await self._calls.restore_subcontainer(self._id, arguments, files, origin)
        return EMPTY

    async def wait_restore(self, _: Any, request: Request, __: Origin) -> Any:
        """Wait for the end of a restore."""
        await while_asked(request, lambda: self._calls.wait_restore(self._id))
        return EMPTY

    async def get_savings(self, _: Any, __: Request, ___: Origin) -> Any:
        """Tell what a restore has saved, in nanoseconds; zeros where there was none."""
        cpu_ns, wall_ns = self._calls.savings_ns(self._id)
        return {"CPUTimeSaved": cpu_ns, "WallTimeSaved": wall_ns}
