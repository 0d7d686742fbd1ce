"""The methods of both sockets: a name, the Go type of its argument, and the call it makes."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from eventstore import Actor
from manager.application.arguments import from_wire
from manager.application.calls import Calls
from manager.application.errors import CallRefused, ManagerError
from manager.application.live_sandbox import Origin
from manager.domain.state import Sandbox
from manager.urpc.errors import UnknownMethod, UrpcError
from manager.urpc.gojson import GoBool, GoString, GoStruct, Shape, field
from manager.urpc.gotypes import (
    CREATE_ARGS,
    NO_ARGUMENT,
    SANDBOX_CREATE_ARGS,
    SANDBOX_DELETE_ARGS,
    SIGNAL_ARGS,
    START_ARGS,
    STRING,
)
from manager.urpc.protocol import Reply, Request

Method = tuple[Shape, Callable[[Any, Request, Origin], Awaitable[Any]]]
RESTORE_OPTS: Final = GoStruct(
    "boot.RestoreOpts",
    [
        field("HavePagesFile", GoBool()),
        field("HaveDeviceFile", GoBool()),
        field("Background", GoBool()),
        field("RequestID", GoString()),
    ],
)
EMPTY: Final[dict[str, Any]] = {}


class Methods:
    """One socket's methods.

    Args:
        calls: What the methods call.
        table: Method by name.
    """

    def __init__(self, calls: Calls, table: dict[str, Method]) -> None:
        self._calls = calls
        self._table = table

    async def dispatch(self, request: Request) -> Reply:
        """Answer one call.

        Raises:
            UnknownMethod: No such method; the argument was not looked at.
            UrpcError: The answer is this text.
        """
        method = self._table.get(request.method)
        if method is None:
            raise UnknownMethod
        shape, call = method
        argument = request.decode(shape)
        peer = request.peer
        origin = self._calls.origin(Actor(uid=peer.uid, gid=peer.gid, pid=peer.pid))
        try:
            return Reply(result=await call(argument, request, origin))
        except CallRefused as error:
            raise UrpcError(error.text) from error
        except ManagerError as error:
            raise UrpcError(str(error)) from error


def node_methods(calls: Calls, version: dict[str, Any]) -> Methods:
    """``sandboxManager``, on the node's socket."""

    async def create(argument: Any, request: Request, origin: Origin) -> Any:
        arguments = from_wire(argument, argument["CID"])
        await calls.create(argument["ID"], arguments, request.files.take_all(), origin)
        return EMPTY

    async def list_sandboxes(_: Any, __: Request, ___: Origin) -> Any:
        return [summary(sandbox) for sandbox in calls.sandboxes()]

    async def state(argument: Any, _: Request, __: Origin) -> Any:
        return msgspec.to_builtins(calls.state(argument))

    async def delete(argument: Any, _: Request, origin: Origin) -> Any:
        if isinstance(argument, str):
            argument = {"ID": argument, "Force": False, "RequestID": ""}
        await calls.delete(
            argument["ID"], origin, force=argument["Force"], request_id=argument["RequestID"]
        )
        return EMPTY

    async def tell_version(_: Any, __: Request, ___: Origin) -> Any:
        return version

    table: dict[str, Method] = {
        "Create": (SANDBOX_CREATE_ARGS, create),
        "List": (NO_ARGUMENT, list_sandboxes),
        "State": (STRING, state),
        "Delete": (SANDBOX_DELETE_ARGS, delete),
        "Version": (NO_ARGUMENT, tell_version),
    }
    return Methods(calls, {f"sandboxManager.{name}": method for name, method in table.items()})


def sandbox_methods(calls: Calls, sandbox_id: str) -> Methods:
    """``containerManager``, on one sandbox's socket."""

    async def start_root(_: Any, __: Request, origin: Origin) -> Any:
        await calls.start_root(sandbox_id, origin)
        return EMPTY

    async def create_subcontainer(argument: Any, request: Request, origin: Origin) -> Any:
        files = request.files.take_all()
        await calls.create_subcontainer(
            sandbox_id, argument["CID"], files, origin, argument["RequestID"]
        )
        return EMPTY

    async def start_subcontainer(argument: Any, request: Request, origin: Origin) -> Any:
        arguments = from_wire(argument, argument["CID"])
        await calls.start_subcontainer(sandbox_id, arguments, request.files.take_all(), origin)
        return EMPTY

    async def restore_subcontainer(argument: Any, request: Request, origin: Origin) -> Any:
        arguments = from_wire(argument, argument["CID"])
        await calls.restore_subcontainer(sandbox_id, arguments, request.files.take_all(), origin)
        return EMPTY

    async def restore(argument: Any, request: Request, origin: Origin) -> Any:
        files = request.files.take_all()
        await calls.restore(sandbox_id, files, origin, argument["RequestID"])
        return EMPTY

    async def destroy(argument: Any, _: Request, origin: Origin) -> Any:
        await calls.destroy(sandbox_id, argument, origin)
        return EMPTY

    async def wait(argument: Any, _: Request, __: Origin) -> Any:
        return await calls.wait(sandbox_id, argument)

    async def signal(argument: Any, _: Request, origin: Origin) -> Any:
        await calls.signal(
            sandbox_id,
            argument["CID"],
            argument["Signo"],
            origin,
            pid=argument["PID"],
            mode=argument["Mode"],
            request_id=argument["RequestID"],
        )
        return EMPTY

    async def runtime_state(argument: Any, _: Request, __: Origin) -> Any:
        return calls.runtime_state(sandbox_id, argument)

    table: dict[str, Method] = {
        "StartRoot": (STRING, start_root),
        "CreateSubcontainer": (CREATE_ARGS, create_subcontainer),
        "StartSubcontainer": (START_ARGS, start_subcontainer),
        "RestoreSubcontainer": (START_ARGS, restore_subcontainer),
        "Restore": (RESTORE_OPTS, restore),
        "DestroySubcontainer": (STRING, destroy),
        "Wait": (STRING, wait),
        "Signal": (SIGNAL_ARGS, signal),
        "ContainerRuntimeState": (STRING, runtime_state),
    }
    return Methods(calls, {f"containerManager.{name}": method for name, method in table.items()})


def summary(sandbox: Sandbox) -> dict[str, Any]:
    """One line of a list: the sandbox, its engine, and the status of each container."""
    root = sandbox.containers.get(sandbox.id)
    return {
        "ID": sandbox.id,
        "State": sandbox.phase,
        "Engine": root.intent.engine if root is not None and root.intent is not None else "",
        "Containers": [
            {
                "CID": found.cid,
                "Status": found.status,
                "PID": found.launched.pid if found.launched is not None else 0,
                "StartedAtNs": found.launched.started_at_ns if found.launched is not None else 0,
                "ExitedAtNs": found.exited_at_ns or 0,
                "Exit": msgspec.to_builtins(found.exit),
                "Args0": found.intent.executable if found.intent is not None else "",
            }
            for found in sandbox.containers.values()
            if found.exists
        ],
    }
