"""Sandboxes as gVisor's `runsc` finds them: state files in its root directory, abstract sockets.

Everything here is derived from the log and made anew at start. `runsc` finds a sandbox by a file,
`<container>_sandbox:<sandbox>.state`, and talks to it at an abstract address. The process that a
file names as the sandbox is the root container's init: `runsc delete --force` kills it, and so ends
what it means to end.

Source: gVisor runsc/container/state_file.go and runsc/boot/controller.go (2022), as observed.
"""

import contextlib
import datetime as dt
import glob
import logging
import os
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc
import msgspec

from manager.adapters.methods import sandbox_methods
from manager.application.calls import Calls
from manager.application.node import Node
from manager.domain.state import Container
from manager.schema.node_fold import STREAM_PREFIX
from manager.urpc.load import Load
from manager.urpc.server_aio import UrpcServer
from manager.urpc.unix_address import AbstractListener

DIRECTORY_MODE: Final = 0o711
FILE_MODE: Final = 0o640
"""As runsc makes them."""

OWNER: Final = "sandtrail"
"""Tells a file of ours from one that `runsc create` has written; shown by `runsc list`."""

EMPTY_SPEC: Final = {"ociVersion": "1.0.2"}
"""Of a container that was created and has got no spec yet."""

logger = logging.getLogger(__name__)


class RunscRoot:
    """Keeps a root directory of `runsc` in step with the log, and serves what it leads to.

    Args:
        node: What is served.
        directory: The `--root` of `runsc`; made if it is missing.
        load: What the connections of the whole service hold together.
    """

    def __init__(self, node: Node, directory: Path, load: Load) -> None:
        self._node = node
        self._load = load
        self._calls = Calls(node)
        self._directory = directory.resolve()
        self._servers: dict[str, UrpcServer] = {}
        self._following = anyio.CancelScope()
        self._told: dict[Path, str] = {}

    async def serve(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until :meth:`stop`; returns when the calls under way are answered.

        Raises:
            OSError: The directory cannot be made.

        Cancellation: calls under way end without an answer; what they asked for is on record.
        """
        self._directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        after = await self._node.ports.log.head()
        self._sweep()
        async with anyio.create_task_group() as tasks:
            for sandbox_id in self._node.registry.all():
                await self._refresh(sandbox_id, tasks)
            task_status.started()
            with self._following:
                await self._follow(after, tasks)
        self._sweep()  # what was deleted in the last moment may not have been heard of

    def stop(self) -> None:
        """Follow the log no more, and close each connection once its call is answered."""
        self._following.cancel()
        for server in self._servers.values():
            server.stop(answer_waits=False)

    async def _follow(self, after: int, tasks: anyio.abc.TaskGroup) -> None:
        async with self._node.ports.log.subscribe(after=after) as records:
            async for record in records:
                if record.stream.startswith(STREAM_PREFIX):
                    await self._refresh(record.stream.removeprefix(STREAM_PREFIX), tasks)

    async def _refresh(self, sandbox_id: str, tasks: anyio.abc.TaskGroup) -> None:
        live = self._node.registry.get(sandbox_id)
        root = live.state.containers.get(sandbox_id) if live is not None else None
        if live is None or root is None or root.launched is None:
            server = self._servers.pop(sandbox_id, None)
            if server is not None:
                server.stop(answer_waits=True)
            self._remove(sandbox_id, ())
            return
        if sandbox_id not in self._servers:
            await self._listen(sandbox_id, tasks)
        containers = [each for each in live.state.containers.values() if each.exists]
        self._remove(sandbox_id, [each.cid for each in containers])
        for container in containers:
            path = self._path(sandbox_id, container.cid, "state")
            if self._told.get(path) == container.status:
                continue
            spec = await self._spec(container)
            content = state_of(container, sandbox_id, root.launched.pid, spec, self._directory)
            try:
                self._write(path, content)
            except OSError as error:  # a full disk, say: with its next event it is tried again
                logger.warning("runsc_root.not_written path=%s reason=%s", path, error.strerror)
            else:
                self._told[path] = container.status

    async def _listen(self, sandbox_id: str, tasks: anyio.abc.TaskGroup) -> None:
        try:
            listener = AbstractListener.bind(f"runsc-sandbox.{sandbox_id}\0".encode())
        except OSError as error:
            logger.warning("runsc_root.not_bound sandbox=%s reason=%s", sandbox_id, error.strerror)
            return
        methods = sandbox_methods(self._calls, sandbox_id, gofers_stand_for_paths=True)
        server = self._servers[sandbox_id] = UrpcServer(methods.dispatch, load=self._load)
        await tasks.start(server.serve, listener)

    async def _spec(self, container: Container) -> dict[str, Any]:
        if container.intent is None or not container.intent.request.spec_digest:
            return EMPTY_SPEC
        document = await self._node.ports.log.document(container.intent.request.spec_digest)
        return msgspec.json.decode(document.body, type=dict[str, Any])

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        """Write a file, unless it says so already or is one that `runsc create` has written."""
        ours = False
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
            present = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
            if present == content or present.get("owner") != OWNER:
                return
            ours = True
        draft = path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(draft, flags, FILE_MODE), "wb") as file:
            file.write(msgspec.json.encode(content))
        if ours:
            draft.rename(path)
        else:
            _appear(draft, path)

    def _remove(self, sandbox_id: str, living: list[str] | tuple[()]) -> None:
        """Remove the files of a sandbox's containers, but for those that live."""
        for path in self._files(f"*_sandbox:{glob.escape(sandbox_id)}.*"):
            if path.name.partition("_sandbox:")[0] not in living:
                self._told.pop(path, None)
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()

    def _sweep(self) -> None:
        """Remove the files of sandboxes that ended while nobody followed."""
        names = (path.stem.partition("_sandbox:")[2] for path in self._files("*_sandbox:*.state"))
        for sandbox_id in set(names) - self._node.registry.all().keys():
            self._remove(sandbox_id, ())

    def _files(self, pattern: str) -> list[Path]:
        return list(self._directory.glob(pattern))

    def _path(self, sandbox_id: str, cid: str, extension: str) -> Path:
        return self._directory / f"{cid}_sandbox:{sandbox_id}.{extension}"


def _appear(draft: Path, path: Path) -> None:
    """Give a file its name, unless `runsc create` was faster: what it writes is its own."""
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()


def state_of(
    container: Container, sandbox_id: str, pid: int, spec: object, directory: Path
) -> dict[str, Any]:
    """The content of one state file: gVisor's container.Container as JSON."""
    started_ns = container.launched.started_at_ns if container.launched is not None else 0
    started = dt.datetime.fromtimestamp(started_ns // 10**9, tz=dt.UTC)
    return {
        "id": container.cid,
        "spec": spec,
        "bundleDir": "",
        "createdAt": started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "owner": OWNER,
        "consoleSocket": "",
        "status": "created" if container.status == "creating" else "running",
        "goferPid": 0,
        "sandbox": {
            "id": sandbox_id,
            "pid": pid,
            "uid": os.geteuid(),
            "gid": os.getegid(),
            "cgroup": None,
            "originalOomScoreAdj": 0,
        },
        "compatCgroup": None,
        "saver": {
            "rootDir": str(directory),
            "id": {"sandboxId": sandbox_id, "containerId": container.cid},
        },
    }
