"""Puts the parts together: a manager inside the caller's process, or a service on sockets."""

import os
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
from msgspec import to_builtins

from eventstore import EventLog, SealPolicy, load_signer, open_log
from manager.adapters.client import ManagerClient
from manager.adapters.control_server import NODE_SOCKET, ControlServer, sweep_sockets
from manager.adapters.descriptors import KernelDescriptors
from manager.adapters.identity import RandomIds, boot_id, load_env_key
from manager.adapters.methods import Methods, node_methods, sandbox_methods
from manager.adapters.runsc_root import RunscRoot
from manager.adapters.state_directory import prepare_state_directory
from manager.adapters.transport import EmbeddedTransport
from manager.adapters.worker_client import WorkerProcess
from manager.application.calls import Calls
from manager.application.errors import ungrouped
from manager.application.node import Node, open_node
from manager.application.ports import NodePorts
from manager.application.settings import AUTO, Service
from manager.application.state_sealing import StateSealing
from manager.application.stopping import stop_containers
from manager.kernel.prctl import become_subreaper
from manager.schema.layout import LOG_FILE, SEAL_KEY_FILE
from manager.schema.node_events import ManagerStarted
from manager.schema.node_snapshot import node_snapshots
from manager.urpc.load import Load, LoadLimits
from manager.version import __version__

ENV_KEY_FILE: Final = "keys/env.key"


class Manager:
    """A manager in the caller's process: ``async with Manager.open(root) as manager: …``."""

    @staticmethod
    def open(root: str | Path, *, engine: str = AUTO) -> AbstractAsyncContextManager[ManagerClient]:
        """Open the log in ``root``, start or find its worker, and manage.

        Args:
            root: The state directory, made with mode 0700 if it is missing. One manager at a time.
            engine: ``crun``, ``runc``, ``runsc``, ``bwrap``, or ``auto`` for the first that works.

        Raises:
            StateDirectoryUnsafe: Others can write to this directory.
            LogLocked: Another manager has this directory; its pid is in the text.
            WorkerGone: No worker can be started; the text says why.
            NoEngine: The engine does not work here; see ``sandtrail doctor``.

        Containers go on running when the manager is closed; its clients raise ServiceUnavailable
        from then on, and so do their calls that were under way.
        """
        return _embedded(Path(root), engine)


@asynccontextmanager
async def _embedded(root: Path, engine: str) -> AsyncIterator[ManagerClient]:
    callers: BaseException | None = None
    failure: BaseException | None = None
    try:
        async with _node(Service(root=root, engine=engine)) as node:
            transport = _into(node, root)
            try:
                yield ManagerClient(transport)
            except BaseException as error:
                callers = error
                raise
            finally:
                transport.close()
    except BaseExceptionGroup as group:
        # What the caller's own block raised comes out as it was, a group of theirs included.
        failure = ungrouped(group, keep=callers)
    if failure is not None:
        raise failure


def _into(node: Node, root: Path) -> EmbeddedTransport:
    calls = Calls(node)
    told = describe_service(node, root)

    def methods(sandbox_id: str | None) -> Methods:
        if sandbox_id is None:
            return node_methods(calls, told)
        return sandbox_methods(calls, sandbox_id)

    return EmbeddedTransport(root, methods)


async def serve(
    service: Service,
    stop: anyio.Event,
    on_ready: Callable[[dict[str, Any]], None],
    worker: int | None = None,
) -> None:
    """Serve both kinds of sockets until ``stop`` is set.

    Args:
        service: How.
        stop: Set it to end: calls under way get ``stop_grace_s`` to be answered, then containers
            end, if the service is to stop them; else they go on running.
        on_ready: Called with what ``sandboxManager.Version`` answers, once calls are accepted.
        worker: Pid of a worker that this process has started already; it leaves if this raises
            before the worker was met.

    Raises:
        As :meth:`Manager.open`; OSError if a socket cannot be bound.
    """
    become_subreaper()
    async with _node(service, worker) as node:
        load = Load(LoadLimits.of_process(_raise_open_files()))
        told = describe_service(node, service.root)
        server = ControlServer(node, service.root, told, load)
        async with anyio.create_task_group() as tasks:
            await tasks.start(server.serve)
            runsc_root = None
            if service.runsc_root is not None:
                runsc_root = RunscRoot(node, service.runsc_root, load)
                await tasks.start(runsc_root.serve)
            on_ready(told)
            await stop.wait()
            server.stop()
            if runsc_root is not None:
                runsc_root.stop()
            tasks.cancel_scope.deadline = anyio.current_time() + service.stop_grace_s
        if service.stop_containers:
            await stop_containers(server.calls, service.stop_grace_s)


def _raise_open_files() -> int:
    """Allow this process all the descriptors that it may have; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@asynccontextmanager
async def _node(service: Service, worker: int | None = None) -> AsyncIterator[Node]:
    root = prepare_state_directory(service.root)
    workers = WorkerProcess(root, service.engine_paths, worker)
    started = ManagerStarted(
        version=__version__,
        pid=os.getpid(),
        boot_id=boot_id(),
        kernel=os.uname().release,
        permits=service.permits,
    )
    states = StateSealing()
    async with workers.dismissed_unless_met(), _sealed_log(service, root, states) as log:
        ports = NodePorts(
            log=log,
            workers=workers,
            descriptors=KernelDescriptors(),
            ids=RandomIds(),
            env_key=load_env_key(root / ENV_KEY_FILE),
            snapshots=node_snapshots(root),
            sweep=partial(sweep_sockets, root),
            ignore_namespace_paths=service.ignore_namespace_paths,
            permits=service.permits,
        )
        async with open_node(
            ports,
            engine=service.engine,
            started=started,
            snapshot_events=service.snapshot_events,
        ) as node:
            states.follow(node.registry)
            yield node


def _sealed_log(
    service: Service, root: Path, states: StateSealing
) -> AbstractAsyncContextManager[EventLog]:
    """Raises KeyUnusable, and ValueError if the log cannot be sealed as the service has it."""
    seal = SealPolicy(
        signer=load_signer(service.key or root / SEAL_KEY_FILE),
        events=service.seal_events,
        seconds=service.seal_seconds,
        extensions=states.lines,
    )
    return open_log(root / LOG_FILE, seal=seal)


def describe_service(node: Node, root: Path) -> dict[str, Any]:
    """What ``sandboxManager.Version`` answers."""
    return {
        "Version": __version__,
        "PID": os.getpid(),
        "Socket": str(root.resolve() / NODE_SOCKET),
        "Log": str(root.resolve() / LOG_FILE),
        "Engine": node.engines.chosen().name,
        "Engines": to_builtins(node.engines.reports),
    }
