"""The methods of both sockets: a name, the Go type of its argument, and the call it makes."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
from msgspec import structs

from eventstore import Actor
from manager.adapters.answering import describe
from manager.adapters.compatibility import reason, refusal
from manager.adapters.gofers import replace_gofers
from manager.adapters.image_methods import ImageMethods
from manager.adapters.observation_methods import ObservationMethods
from manager.application.arguments import from_wire
from manager.application.calls import Calls
from manager.application.errors import CallRefused, ManagerError
from manager.application.exec_arguments import from_wire as exec_from_wire
from manager.application.exec_calls import ExecCalls
from manager.application.image_calls import ImageCalls
from manager.application.inspection import Inspection
from manager.application.marks import Marker
from manager.schema.node_fold import Origin
from manager.schema.summary import inspection, summary
from manager.urpc.errors import UnknownMethod, UrpcError
from manager.urpc.gojson import Shape
from manager.urpc.gotypes import (
    CREATE_ARGS,
    EXEC_ARGS,
    MARK_ARGS,
    MEMORY_USAGE_OPTS,
    NO_ARGUMENT,
    PAUSE_ARGS,
    PS_ARGS,
    RESTORE_OPTS,
    SANDBOX_CREATE_ARGS,
    SANDBOX_DELETE_ARGS,
    SAVE_OPTS,
    SIGNAL_ARGS,
    START_ARGS,
    STRING,
    WAIT_PID_ARGS,
)
from manager.urpc.protocol import Reply, Request
from manager.urpc.server_aio import while_asked

Method = tuple[Shape, Callable[[Any, Request, Origin], Awaitable[Any]]]
EMPTY: Final[dict[str, Any]] = {}
TAKE_FILES: Final = frozenset(
    {
        "Create",
        "CreateSubcontainer",
        "StartSubcontainer",
        "RestoreSubcontainer",
        "Restore",
        "ExecuteAsync",
        "Checkpoint",
    }
)
"""Methods with a use for files: they look at them, and what comes of it is on record."""


class Methods:
    """One socket's methods.

    Args:
        calls: What the methods call.
        table: Method by name.
    """

    def __init__(self, calls: Calls, table: dict[str, Method]) -> None:
        self._calls = calls
        self._table = table

    @property
    def names(self) -> tuple[str, ...]:
        """What it answers."""
        return tuple(self._table)

    async def dispatch(self, request: Request) -> Reply:
        """Answer one call.

        Raises:
            UnknownMethod: No such method; the argument was not looked at.
            UrpcError: The answer is this text; also for a method that only gVisor has.
        """
        method = self._table.get(request.method)
        if method is None and reason(request.method):
            raise UrpcError(refusal(request.method))
        if method is None:
            raise UnknownMethod
        shape, call = method
        argument = request.decode(shape)
        if request.method.partition(".")[2] not in TAKE_FILES:
            described = await describe(request.files)
            if described.problem:
                raise UrpcError(described.problem)
        peer = request.peer
        origin = self._calls.origin(Actor(uid=peer.uid, gid=peer.gid, pid=peer.pid))
        try:
            return Reply(result=await call(argument, request, origin))
        except CallRefused as error:
            raise UrpcError(error.text) from error
        except ManagerError as error:
            raise UrpcError(str(error)) from error
        finally:
            # What nobody has taken is closed, which is a question to its file system, too.
            with anyio.CancelScope(shield=True):
                await describe(request.files)


def node_methods(calls: Calls, version: dict[str, Any]) -> Methods:
    """``sandboxManager``, on the node's socket."""
    marker = Marker(calls.node)

    async def create(argument: Any, request: Request, origin: Origin) -> Any:
        arguments = from_wire(argument, argument["CID"])
        await calls.create(argument["ID"], arguments, request.files.take_all(), origin)
        return EMPTY

    async def list_sandboxes(_: Any, __: Request, ___: Origin) -> Any:
        return [summary(sandbox) for sandbox in calls.sandboxes()]

    async def state(argument: Any, _: Request, __: Origin) -> Any:
        return inspection(calls.state(argument))

    async def delete(argument: Any, _: Request, origin: Origin) -> Any:
        if isinstance(argument, str):
            argument = {"ID": argument, "Force": False, "RequestID": ""}
        await calls.delete(
            argument["ID"], origin, force=argument["Force"], request_id=argument["RequestID"]
        )
        return EMPTY

    async def mark(argument: Any, _: Request, origin: Origin) -> Any:
        position = await marker.add(
            argument["Name"],
            origin,
            at=argument["Position"],
            message=argument["Message"],
            request_id=argument["RequestID"],
        )
        return {"Position": position}

    async def tell_version(_: Any, __: Request, ___: Origin) -> Any:
        return version

    table: dict[str, Method] = {
        "Create": (SANDBOX_CREATE_ARGS, create),
        "List": (NO_ARGUMENT, list_sandboxes),
        "State": (STRING, state),
        "Delete": (SANDBOX_DELETE_ARGS, delete),
        "Mark": (MARK_ARGS, mark),
        "Version": (NO_ARGUMENT, tell_version),
    }
    return Methods(calls, {f"sandboxManager.{name}": method for name, method in table.items()})


def sandbox_methods(
    calls: Calls, sandbox_id: str, *, gofers_stand_for_paths: bool = False
) -> Methods:
    """``containerManager``, on one sandbox's socket.

    Args:
        calls: What the methods call.
        sandbox_id: Whose socket.
        gofers_stand_for_paths: See :func:`manager.adapters.gofers.replace_gofers`.
    """
    manager = ContainerManager(calls, sandbox_id, gofers_stand_for_paths=gofers_stand_for_paths)
    observation = ObservationMethods(calls, Inspection(calls.node), sandbox_id)
    images = ImageMethods(ImageCalls(calls), sandbox_id)
    table: dict[str, Method] = {
        "StartRoot": (STRING, manager.start_root),
        "CreateSubcontainer": (CREATE_ARGS, manager.create_subcontainer),
        "StartSubcontainer": (START_ARGS, manager.start_subcontainer),
        "RestoreSubcontainer": (START_ARGS, images.restore_subcontainer),
        "Restore": (RESTORE_OPTS, images.restore),
        "DestroySubcontainer": (STRING, manager.destroy_subcontainer),
        "Wait": (STRING, manager.wait),
        "WaitPID": (WAIT_PID_ARGS, manager.wait_pid),
        "Signal": (SIGNAL_ARGS, manager.signal),
        "ExecuteAsync": (EXEC_ARGS, manager.execute_async),
        "ContainerRuntimeState": (STRING, manager.container_runtime_state),
        "Pause": (PAUSE_ARGS, observation.pause),
        "Resume": (PAUSE_ARGS, observation.resume),
        "Processes": (STRING, observation.processes),
        "Event": (STRING, observation.event),
        "ProcfsDump": (NO_ARGUMENT, observation.procfs_dump),
        "Checkpoint": (SAVE_OPTS, images.checkpoint),
        "WaitCheckpoint": (NO_ARGUMENT, images.wait_checkpoint),
        "WaitRestore": (NO_ARGUMENT, images.wait_restore),
        "GetSavings": (NO_ARGUMENT, images.get_savings),
    }
    others: dict[str, Method] = {
        "Lifecycle.Pause": (PAUSE_ARGS, observation.pause),
        "Lifecycle.Resume": (PAUSE_ARGS, observation.resume),
        "Proc.Ps": (PS_ARGS, observation.ps),
        "Usage.Collect": (MEMORY_USAGE_OPTS, observation.collect),
    }
    named = {f"containerManager.{name}": method for name, method in table.items()}
    return Methods(calls, named | others)


class ContainerManager:
    """The methods of gVisor's object of that name, for one sandbox.

    Each takes the decoded argument, the request (whose files it takes out) and the call's origin,
    and returns the result.
    """

    def __init__(self, calls: Calls, sandbox_id: str, *, gofers_stand_for_paths: bool) -> None:
        self._calls = calls
        self._processes = ExecCalls(calls)
        self._id = sandbox_id
        self._gofers_stand_for_paths = gofers_stand_for_paths

    async def start_root(self, _: Any, __: Request, origin: Origin) -> Any:
        """Run the root container; the argument names no other."""
        await self._calls.start_root(self._id, origin)
        return EMPTY

    async def create_subcontainer(self, argument: Any, request: Request, origin: Origin) -> Any:
        """Register a subcontainer, with its terminal as the only file if it has one."""
        files = request.files.take_all()
        await self._calls.create_subcontainer(
            self._id, argument["CID"], files, origin, argument["RequestID"]
        )
        return EMPTY

    async def start_subcontainer(self, argument: Any, request: Request, origin: Origin) -> Any:
        """Run a subcontainer."""
        arguments = from_wire(argument, argument["CID"])
        files = request.files.take_all()
        if self._gofers_stand_for_paths and arguments.spec is not None:
            try:
                paths, files = replace_gofers(arguments.spec, files)
            except OSError as error:
                raise CallRefused(
                    f"a path of the spec cannot be opened: {error.filename}: {error.strerror}"
                ) from error
            arguments = structs.replace(arguments, host_paths=paths)
        await self._calls.start_subcontainer(self._id, arguments, files, origin)
        return EMPTY

    async def destroy_subcontainer(self, argument: Any, _: Request, origin: Origin) -> Any:
        """End every process of a container."""
        await self._calls.destroy(self._id, argument, origin)
        return EMPTY

    async def wait(self, argument: Any, request: Request, _: Origin) -> Any:
        """Wait for a container's raw wait status."""
        return await while_asked(request, lambda: self._calls.wait(self._id, argument))

    async def wait_pid(self, argument: Any, request: Request, _: Origin) -> Any:
        """Wait for the raw wait status of an executed process."""
        cid, pid = argument["CID"], argument["PID"]
        return await while_asked(request, lambda: self._processes.wait_pid(self._id, cid, pid))

    async def execute_async(self, argument: Any, request: Request, origin: Origin) -> Any:
        """Run one more process in a container; its PID in there."""
        files = request.files.take_all()
        return await self._processes.execute(
            self._id, exec_from_wire(argument, len(files)), files, origin
        )

    async def signal(self, argument: Any, _: Request, origin: Origin) -> Any:
        """Send a signal; signal 0 asks whether one could be sent."""
        if argument["Signo"] == 0:
            cid, pid, mode = argument["CID"], argument["PID"], argument["Mode"]
            await self._processes.probe(self._id, cid, pid=pid, mode=mode)
            return EMPTY
        await self._calls.signal(
            self._id,
            argument["CID"],
            argument["Signo"],
            origin,
            pid=argument["PID"],
            mode=argument["Mode"],
            request_id=argument["RequestID"],
        )
        return EMPTY

    async def container_runtime_state(self, argument: Any, _: Request, __: Origin) -> Any:
        """Tell whether a container is being created, runs or is stopped."""
        return self._calls.runtime_state(self._id, argument)
