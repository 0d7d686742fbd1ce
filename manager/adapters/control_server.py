"""The sockets of a node: one for the node, one for each sandbox while it lives."""

import contextlib
import logging
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc

from manager.adapters.methods import node_methods, sandbox_methods
from manager.application.calls import Calls
from manager.application.node import Node
from manager.urpc.load import Load
from manager.urpc.server_aio import UrpcServer
from manager.urpc.unix_address import UnixListener

NODE_SOCKET: Final = "control.sock"
SANDBOXES: Final = "sandboxes"
BIND_RETRY_S: Final = 1.0
"""Pause before a sandbox's socket that could not be made, on a full disk say, is tried again."""

logger = logging.getLogger(__name__)


def sandbox_socket(state: Path, sandbox_id: str) -> Path:
    """Where a sandbox's socket is."""
    return state / SANDBOXES / sandbox_id / NODE_SOCKET


def sweep_sockets(state: Path, alive: Collection[str]) -> tuple[str, ...]:
    """Remove the directories of sandboxes that ended while nobody served; returns their names."""
    parent = state / SANDBOXES
    parent.mkdir(mode=0o700, exist_ok=True)
    stale = sorted(each for each in parent.iterdir() if each.name not in alive)
    for directory in stale:
        _remove(directory)
    return tuple(f"socket {each.relative_to(state) / NODE_SOCKET}" for each in stale)


def _remove(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)


class ControlServer:
    """Opens and closes sockets as sandboxes come and go.

    Args:
        node: What is served.
        state: The service's state directory.
        version: What ``sandboxManager.Version`` answers.
        load: What the connections of the whole service hold together.

    Attributes:
        calls: What its methods call.
    """

    def __init__(self, node: Node, state: Path, version: dict[str, Any], load: Load) -> None:
        self._node = node
        self.calls = Calls(node)
        self._state = state
        self._version = version
        self._load = load
        self._servers: dict[str, UrpcServer] = {}
        self._tasks: anyio.abc.TaskGroup | None = None
        self._stopping = False

    async def serve(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until :meth:`stop`; returns when the calls under way are answered.

        Raises:
            OSError: The node's socket cannot be bound. That of a sandbox, which is on record
                whether it can be reached or not, is tried until it can.

        Cancellation: calls under way end without an answer; what they asked for is on record.
        """
        methods = node_methods(self.calls, self._version)
        self._node.listen(self._sandbox_changed)
        async with anyio.create_task_group() as self._tasks:
            for sandbox_id in self._node.registry.all():
                await self._open(sandbox_id)
            server = self._servers[""] = UrpcServer(methods.dispatch, load=self._load)
            await self._tasks.start(server.serve, UnixListener.bind(self._state / NODE_SOCKET))
            task_status.started()

    def stop(self) -> None:
        """Accept nothing more, and close each connection once its call is answered.

        Who waits for a container need not be answered for that: the next service will.
        """
        self._stopping = True
        for server in self._servers.values():
            server.stop(answer_waits=False)

    async def _sandbox_changed(self, sandbox_id: str, lives: bool) -> None:
        if lives:
            await self._open(sandbox_id)
        else:
            self._close(sandbox_id)

    async def _open(self, sandbox_id: str) -> None:
        if self._tasks is None:
            raise AssertionError("sockets are opened while the server serves")
        try:
            listener = self._bind(sandbox_id)
        except OSError as error:
            logger.warning("socket.not_bound sandbox=%s reason=%s", sandbox_id, error.strerror)
            self._tasks.start_soon(self._open_later, sandbox_id)
            return
        server = UrpcServer(sandbox_methods(self.calls, sandbox_id).dispatch, load=self._load)
        self._servers[sandbox_id] = server
        await self._tasks.start(server.serve, listener)

    def _bind(self, sandbox_id: str) -> UnixListener:
        path = sandbox_socket(self._state, sandbox_id)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return UnixListener.bind(path)

    async def _open_later(self, sandbox_id: str) -> None:
        await anyio.sleep(BIND_RETRY_S)
        if sandbox_id in self._node.registry.all() and not self._stopping:
            await self._open(sandbox_id)

    def _close(self, sandbox_id: str) -> None:
        server = self._servers.pop(sandbox_id, None)
        if server is not None:
            server.stop(answer_waits=True)
        _remove(sandbox_socket(self._state, sandbox_id).parent)
