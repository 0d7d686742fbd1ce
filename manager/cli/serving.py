"""The process of ``sandtrail serve``: its event loop, its signals, its words."""

from functools import partial
from typing import Any

import anyio
import click

from manager.adapters.service_manager import READY, STOPPING, ServiceManager
from manager.application.settings import Service
from manager.cli.stop_signals import STOP_SIGNALS, hear_stop_signals
from manager.daemon import serve
from manager.terminal.ending import fail
from manager.terminal.output import print_json


def run(service: Service, worker: int | None, *, as_json: bool) -> None:
    """Serve until SIGTERM; ends the process if that fails.

    Args:
        service: How.
        worker: Pid of a worker that was started already.
        as_json: How to say that it is ready.
    """
    problem = ""
    try:
        work = partial(_serve_until_stopped, service, worker, as_json=as_json)
        anyio.run(work, backend_options={"use_uvloop": _has_uvloop()})
    except* Exception as group:
        problem = _first_line(group)
    if problem:
        fail(problem, 1)


async def _serve_until_stopped(service: Service, worker: int | None, *, as_json: bool) -> None:
    service_manager = ServiceManager()
    stop, is_ready = anyio.Event(), anyio.Event()

    def ready(told: dict[str, Any]) -> None:
        is_ready.set()
        service_manager.tell(READY, f"STATUS=Serving on {told['Socket']}, engine {told['Engine']}")
        _tell_ready(told, as_json=as_json)

    async with anyio.create_task_group() as tasks:
        await tasks.start(_watch_signals, stop)
        tasks.start_soon(_tell_of_stop, stop, service_manager)
        with anyio.CancelScope() as start:
            tasks.start_soon(_cut_short, start, stop, is_ready)
            await serve(service, stop, ready, worker)
        tasks.cancel_scope.cancel()


async def _cut_short(start: anyio.CancelScope, stop: anyio.Event, is_ready: anyio.Event) -> None:
    """End a start as soon as somebody asks to stop; a service that is ready heeds `stop` itself."""
    await stop.wait()
    if not is_ready.is_set():
        start.cancel()


def _tell_ready(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json("ready", **told)
    else:
        click.echo(f"ready socket={told['Socket']} engine={told['Engine']} pid={told['PID']}")


async def _watch_signals(
    stop: anyio.Event, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    with anyio.open_signal_receiver(*STOP_SIGNALS) as signals:
        hear_stop_signals()
        task_status.started()
        async for _ in signals:
            stop.set()


async def _tell_of_stop(stop: anyio.Event, service_manager: ServiceManager) -> None:
    await stop.wait()
    service_manager.tell(STOPPING)


def _first_line(error: BaseException) -> str:
    """The cause at the bottom of a group of errors, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401, PLC0415 - an extra; its absence is fine
    except ImportError:
        return False
    return True
