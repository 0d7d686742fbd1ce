"""Carry effects out: each becomes one command to the worker."""

from typing import assert_never

from msgspec import Struct

from manager.application.ports import Descriptors
from manager.application.worker_link import WorkerLink
from manager.domain import commands as c
from manager.domain.effects import (
    DestroyLaunch,
    Effect,
    ExecuteProcess,
    FreezeLaunches,
    Launch,
    ReleaseHold,
    SaveLaunches,
    SendSignal,
)
from manager.domain.state import LaunchIntent
from manager.schema import worker as w
from manager.urpc.fds import FdBundle


class Luggage(Struct, kw_only=True):
    """What a start brings along that no event may hold: the real spec and the descriptors.

    ``files`` belongs to whoever made the luggage until a launch takes it. ``process`` is that of an
    exec, ``metadata`` that of an image.
    """

    spec: bytes = b""
    process: w.ExecProcess | None = None
    metadata: bytes = b""
    files: FdBundle


class EffectRunner:
    """Turns effects into worker commands."""

    def __init__(self, link: WorkerLink, descriptors: Descriptors) -> None:
        self._link = link
        self._descriptors = descriptors

    async def perform(self, effect: Effect, luggage: Luggage | None = None) -> c.Report | None:
        """Carry one effect out; returns a report if the manager's own part of it failed."""
        match effect:
            case Launch():
                return await self._launch(effect, luggage)
            case SaveLaunches():
                return await self._save(effect, luggage)
            case SendSignal():
                kill = w.Kill(
                    kill_id=effect.kill_id,
                    launch_id=effect.launch_id,
                    signo=effect.signo,
                    pid=effect.pid,
                    mode=effect.mode,
                    durable=effect.durable,
                )
                await self._link.send(kill)
            case ExecuteProcess():
                return await self._execute(effect, luggage)
            case FreezeLaunches():
                freeze = w.Freeze(
                    pause_id=effect.pause_id,
                    launch_ids=effect.launch_ids,
                    frozen=effect.frozen,
                )
                await self._link.send(freeze)
            case DestroyLaunch(launch_id=launch_id):
                await self._link.send(w.Destroy(launch_id=launch_id))
            case ReleaseHold(hold_id=hold_id):
                await self._link.send(w.Release(hold_id=hold_id))
            case _:
                assert_never(effect)
        return None

    async def _launch(self, effect: Launch, luggage: Luggage | None) -> c.Report | None:
        intent = effect.intent
        files = luggage.files.take_all() if luggage is not None else FdBundle()
        try:
            prepared = self._descriptors.prepare(intent.plan, files) if files else files
        except OSError as error:
            return c.ReportStartFailed(
                launch_id=intent.launch_id,
                stage="mounts",
                reason=f"a donated file tree cannot be used: {error.strerror}",
                errno=error.errno,
            )
        if failed := self._add_namespaces(intent, prepared):
            return failed
        message = w.Launch(
            launch_id=intent.launch_id,
            engine_id=intent.engine_id,
            engine=intent.engine,
            spec=luggage.spec if luggage is not None else b"",
            plan=intent.plan,
            held_fds=effect.held_fds,
            held_tty=effect.held_tty,
            sandbox=effect.sandbox,
            pid_namespace=effect.pid_namespace,
            namespaces=tuple(intent.namespace_paths),
            run_hooks="hooks" in intent.request.permits,
            held_image=effect.held_image,
            image_name=effect.image_name,
        )
        if not await self._link.send(message, prepared):
            return c.ReportStartFailed(
                launch_id=intent.launch_id, stage="interrupted", reason="the worker is gone"
            )
        return None

    def _add_namespaces(self, intent: LaunchIntent, files: FdBundle) -> c.Report | None:
        """Put the host's namespaces that it joins behind the files; if one fails, close them."""
        for name, path in intent.namespace_paths.items():
            try:
                with self._descriptors.open_namespace(name, path) as namespace:
                    files.append(namespace)
            except OSError as error:
                files.close()
                return c.ReportStartFailed(
                    launch_id=intent.launch_id,
                    stage="namespaces",
                    reason=f"the {name} namespace {path} cannot be joined: {error.strerror}",
                    errno=error.errno,
                )
        return None

    async def _save(self, effect: SaveLaunches, luggage: Luggage | None) -> c.Report | None:
        reason = "the file donated for the image is gone"
        if luggage is not None:
            message = w.Save(
                checkpoint_id=effect.checkpoint_id,
                launch_ids=effect.launch_ids,
                metadata=luggage.metadata,
                resume=effect.resume,
            )
            if await self._link.send(message, luggage.files.take_all()):
                return None
            reason = "the worker is gone"
        return c.ReportSaveFailed(
            checkpoint_id=effect.checkpoint_id, stage="interrupted", reason=reason
        )

    async def _execute(self, effect: ExecuteProcess, luggage: Luggage | None) -> c.Report | None:
        if luggage is None or luggage.process is None:
            reason = "what was donated to it is gone"
        else:
            message = w.Execute(
                exec_id=effect.exec_id, launch_id=effect.launch_id, process=luggage.process
            )
            if await self._link.send(message, luggage.files.take_all()):
                return None
            reason = "the worker is gone"
        return c.ReportExecFailed(exec_id=effect.exec_id, stage="interrupted", reason=reason)
