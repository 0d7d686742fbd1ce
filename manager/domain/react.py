"""From events to effects, and from a state found at start-up back to what was under way."""

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain import restore_events as r
from manager.domain.checkpoint import RestoreProgress
from manager.domain.decide_life import SIGNAL_ALL
from manager.domain.decide_pause import launches_that_run
from manager.domain.decide_report import ERRNO_NO_SUCH_PROCESS
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
from manager.domain.events import Event
from manager.domain.state import ALIVE, Container, Sandbox, SignalIntent

SIGKILL: Final = 9
REBOOTED: Final = "the machine was rebooted"

UNKNOWN_TO_WORKER: Final = "the worker knows nothing of it"
"""It never heard of it, or its files are gone."""

KEEPER_GONE: Final = "no worker keeps the donated descriptors any more"
"""Descriptors are in a process, and end with it."""

MAY_BE_WHOLE: Final = "whether there is an image all the same, its file tells"
AS_RECORDED: Final = "as-recorded-"
"""Begins the pause id of what is stopped, or let go on, because an older log says that it is."""

ENDED: Final = frozenset({"stopped", "restoreFailed"})
"""Phases in which nothing may run: what still starts is ended as soon as it has."""

RESTORING: Final = frozenset({"restoringUnstarted", "restoringStarted"})
"""Phases in which the image is still needed, and so still held."""


def react(  # noqa: C901, PLR0912 - one arm an event
    before: Sandbox, event: Event
) -> tuple[Effect, ...]:
    """The effects of one event, in order.

    Args:
        before: The sandbox as it was before the event; what the event uses up is still in it.
        event: The event, durable by now.
    """
    match event:
        case e.SandboxStartRequested():
            return _launch_root(before)
        case e.ContainerStartAccepted(container=cid, intent=intent):
            found = before.container(cid)
            unused = () if intent.plan.stdio is None else _release(found)
            return (_launch(before, event, found), *unused)
        case e.ContainerSignalRequested():
            return _signal(before, event)
        case e.ProcessExecAccepted(exec_id=exec_id, launch_id=launch_id):
            return (ExecuteProcess(exec_id=exec_id, launch_id=launch_id),)
        case e.SandboxPauseRequested():
            return (_freeze(before, event.pause_id, paused=event.paused),)
        case e.ContainerDestroyRequested(launch_id=launch_id):
            return (DestroyLaunch(launch_id=launch_id),)
        case e.SandboxStartFailed():
            return _release(before.containers.get(before.id))
        case (
            e.ContainerStartFailed(container=cid)
            | e.ContainerDestroyed(container=cid)
            | e.ContainerHoldLost(container=cid)
        ):
            return _release(before.containers.get(cid))
        case e.SandboxStopped():
            return (*_end_others(before), *_release_image(before))
        case e.ContainerStarted(launch_id=launch_id) if before.phase in ENDED:
            return (_kill_everyone(launch_id),)
        case r.SandboxCheckpointRequested():
            return (_save(before, event),)
        case r.RestoreValidated() if not event.error:
            return _launch_restored(before, event)
        case r.SandboxRestored():
            return _release_image(before)
        case e.SandboxDeleted() if before.phase in RESTORING:
            return _release_image(before)
        case r.SandboxRestoreFailed():
            return (*_end_all(before), *_release_all(before), *_release_image(before))
        case _:
            return ()


class Resumption(Struct, frozen=True, kw_only=True):
    """What a manager does first with a sandbox: reports to decide on, then effects to repeat."""

    reports: tuple[c.Report, ...]
    effects: tuple[Effect, ...]


def resume(
    state: Sandbox,
    *,
    launches: frozenset[str],
    held: frozenset[str],
    boot_id: str,
    executions: frozenset[str] = frozenset(),
    saves: frozenset[str] = frozenset(),
    doubt: str = "",
) -> Resumption:
    """Leave every state that a crash can have left behind, or a log that was older than the worker.

    Args:
        state: The sandbox as the log tells it.
        launches: Launch ids that the worker knows; it will report their outcomes itself.
        held: Hold ids that the worker still keeps.
        boot_id: Of the machine as it runs now: what was launched under another one ended with it.
        executions: Exec ids that the worker knows; it will report their outcomes itself.
        saves: Checkpoint ids of which the worker will tell what became.
        doubt: Why what the worker does not know may have happened all the same; empty if what it
            does not know either never happened or is on record.
    """
    reports: list[c.Report] = list(_resume_images(state, held, saves, doubt))
    effects: list[Effect] = []
    for found in state.containers.values():
        launch_id = found.intent.launch_id if found.intent is not None else ""
        known = launch_id in launches
        if _can_begin_again(state, found, held) and not known:
            effects += _launch_again(state, found)
        elif found.status in ALIVE and not known:
            reports.append(_cut_short(found, launch_id, boot_id, doubt))
        if found.status == "creating" and _missing(found, held):
            reports.append(c.ReportHoldLost(cid=found.cid, reason=doubt or KEEPER_GONE))
        # What was executed in it may have ended in a way that is yet to be told: that comes first.
        owed = not executions.isdisjoint(found.executions)
        if found.destroying and (known or owed):
            effects.append(DestroyLaunch(launch_id=launch_id))
        elif found.destroying:
            reports.append(c.ReportDestroyed(launch_id=launch_id))
        reports += _resume_executions(found, executions, boot_id, doubt)
    if state.phase == "stopped":
        effects += [effect for effect in _end_others(state) if effect.launch_id in launches]
    if state.pausing is not None:
        effects.append(_freeze(state, state.pausing.pause_id, paused=state.pausing.paused))
    elif doubt and (alive := launches.intersection(launches_that_run(state))):
        # It may have been paused or resumed since: what runs is made what the log says of it.
        effects.append(
            FreezeLaunches(
                pause_id=f"{AS_RECORDED}{state.id}",
                launch_ids=tuple(sorted(alive)),
                frozen=state.paused,
            )
        )
    signal_reports, signal_effects = _resume_signals(state, launches, doubt)
    return Resumption(reports=(*reports, *signal_reports), effects=(*effects, *signal_effects))


def _resume_signals(
    state: Sandbox, launches: frozenset[str], doubt: str
) -> tuple[list[c.Report], list[Effect]]:
    reports: list[c.Report] = []
    effects: list[Effect] = []
    for kill_id, intent in state.signals.items():
        target = _launch_id(state, intent.cid)
        if doubt:
            # Not sent again: it may have been delivered long ago.
            reports.append(c.ReportKilled(kill_id=kill_id, untold=doubt))
        elif target is not None and target in launches:
            effects.append(_send(kill_id, target, intent))
        else:
            reports.append(c.ReportKilled(kill_id=kill_id, errno=ERRNO_NO_SUCH_PROCESS))
    return reports, effects


def _resume_executions(
    found: Container, known: frozenset[str], boot_id: str, doubt: str
) -> list[c.Report]:
    why = _why_lost(found, boot_id, doubt)
    reports: list[c.Report] = []
    for exec_id, execution in found.executions.items():
        if exec_id in known:
            continue
        if execution.status == "starting" and doubt:
            reports.append(c.ReportProcessLost(exec_id=exec_id, reason=why, doubtful=True))
        elif execution.status == "starting":
            failed = c.ReportExecFailed(exec_id=exec_id, stage="interrupted", reason=why)
            reports.append(failed)
        elif execution.status == "running":
            reports.append(c.ReportProcessLost(exec_id=exec_id, reason=why))
    return reports


def _why_lost(found: Container, boot_id: str, doubt: str) -> str:
    if found.launched is not None and found.launched.boot_id != boot_id:
        return REBOOTED
    return doubt or UNKNOWN_TO_WORKER


def _cut_short(found: Container, launch_id: str, boot_id: str, doubt: str) -> c.Report:
    why = _why_lost(found, boot_id, doubt)
    if found.status == "starting" and doubt:
        return c.ReportLost(launch_id=launch_id, reason=why, doubtful=True)
    if found.status == "starting":
        return c.ReportStartFailed(launch_id=launch_id, stage="interrupted", reason=why)
    return c.ReportLost(launch_id=launch_id, reason=why)


def holds(state: Sandbox) -> frozenset[str]:
    """The hold ids that the sandbox still needs."""
    named = [
        hold for found in state.containers.values() for hold in (found.fds_hold, found.tty_hold)
    ]
    if state.phase in RESTORING and state.restore is not None:
        named.append(state.restore.hold_id)
    return frozenset(hold for hold in named if hold)


def _can_begin_again(state: Sandbox, found: Container, held: frozenset[str]) -> bool:
    """Whether a start got no further than the log: all that it needs is still held.

    That is so of a root, and of whatever is restored.
    """
    waits = found.status == "starting" and found.fds_hold is not None and not found.destroying
    if state.restore is not None and state.restore.hold_id not in held:
        return False
    return waits and not _missing(found, held)


def _launch_again(state: Sandbox, found: Container) -> tuple[Effect, ...]:
    if state.restore is None:
        return _launch_root(state)
    return (_restored(state, state.restore, found),)


def _resume_images(
    state: Sandbox, held: frozenset[str], saves: frozenset[str], doubt: str
) -> Iterator[c.Report]:
    intent, progress = state.checkpointing, state.restore
    if intent is not None and intent.checkpoint_id not in saves:
        yield c.ReportSaveFailed(
            checkpoint_id=intent.checkpoint_id,
            stage="interrupted",
            reason=f"{doubt or UNKNOWN_TO_WORKER}; {MAY_BE_WHOLE}",
        )
    under_way = state.phase in RESTORING
    if progress is not None and under_way and progress.hold_id not in held:
        yield c.ReportImageLost(restore_id=progress.restore_id, reason=doubt or KEEPER_GONE)


def _missing(found: Container, held: frozenset[str]) -> bool:
    return any(hold and hold not in held for hold in (found.fds_hold, found.tty_hold))


def _launch_root(before: Sandbox) -> tuple[Effect, ...]:
    root = before.container(before.id)
    if root is None or root.intent is None:
        return ()
    return (Launch(intent=root.intent, held_fds=root.fds_hold, held_tty=root.tty_hold),)


def _launch(before: Sandbox, event: e.ContainerStartAccepted, found: Container | None) -> Launch:
    joined = event.intent.joins_pid_namespace
    return Launch(
        intent=event.intent,
        held_tty=found.tty_hold if found is not None and event.intent.plan.stdio is None else None,
        sandbox=_launch_id(before, before.id),
        pid_namespace=_launch_id(before, joined) if joined is not None else None,
    )


def _save(before: Sandbox, event: r.SandboxCheckpointRequested) -> SaveLaunches:
    return SaveLaunches(
        checkpoint_id=event.checkpoint_id,
        launch_ids=launches_that_run(before),
        resume=event.resume,
    )


def _launch_restored(before: Sandbox, event: r.RestoreValidated) -> tuple[Effect, ...]:
    progress = before.restore
    if progress is None or progress.restore_id != event.restore_id:
        return ()
    found = (before.containers.get(cid) for cid in progress.registered)
    return tuple(_restored(before, progress, each) for each in found if each is not None)


def _restored(state: Sandbox, progress: RestoreProgress, found: Container) -> Effect:
    assert found.intent is not None, "what is registered has an intent"
    joined = found.intent.joins_pid_namespace
    is_root = found.cid == state.id
    return Launch(
        intent=found.intent,
        held_fds=found.fds_hold,
        sandbox=None if is_root else _launch_id(state, state.id),
        pid_namespace=_launch_id(state, joined) if joined is not None else None,
        held_image=progress.hold_id,
        image_name=found.intent.name,
    )


def _release_image(before: Sandbox) -> tuple[Effect, ...]:
    if before.restore is None:
        return ()
    return (ReleaseHold(hold_id=before.restore.hold_id),)


def _release_all(before: Sandbox) -> tuple[Effect, ...]:
    return tuple(effect for found in before.containers.values() for effect in _release(found))


def _end_all(state: Sandbox) -> tuple[SendSignal, ...]:
    root = state.containers.get(state.id)
    runs = root is not None and root.intent is not None and root.status == "running"
    first = (_kill_everyone(root.intent.launch_id),) if runs and root and root.intent else ()
    return (*first, *_end_others(state))


def _launch_id(state: Sandbox, cid: str) -> str | None:
    found = state.container(cid)
    return found.intent.launch_id if found is not None and found.intent is not None else None


def _freeze(state: Sandbox, pause_id: str, *, paused: bool) -> FreezeLaunches:
    return FreezeLaunches(pause_id=pause_id, launch_ids=launches_that_run(state), frozen=paused)


def _signal(before: Sandbox, event: e.ContainerSignalRequested) -> tuple[Effect, ...]:
    launch_id = _launch_id(before, event.container)
    if launch_id is None:
        return ()
    return (_send(event.kill_id, launch_id, event),)


def _send(
    kill_id: str, launch_id: str, wanted: SignalIntent | e.ContainerSignalRequested
) -> SendSignal:
    return SendSignal(
        kill_id=kill_id,
        launch_id=launch_id,
        signo=wanted.signo,
        pid=wanted.pid,
        mode=wanted.mode,
    )


def _release(found: Container | None) -> tuple[Effect, ...]:
    if found is None:
        return ()
    named = (found.fds_hold, found.tty_hold)
    return tuple(ReleaseHold(hold_id=hold) for hold in named if hold)


def _end_others(state: Sandbox) -> tuple[SendSignal, ...]:
    """End what runs beside the root; one that is still starting is ended once it has started."""
    return tuple(
        _kill_everyone(found.intent.launch_id)
        for found in state.containers.values()
        if found.status in ALIVE - {"starting"}
        and found.cid != state.id
        and found.intent is not None
    )


def _kill_everyone(launch_id: str) -> SendSignal:
    """A sandbox takes its containers with it, as gVisor's does.

    The worker acts once on a kill id, so this is sent only to what runs.
    """
    return SendSignal(
        kill_id=f"sandbox-stopped-{launch_id}",
        launch_id=launch_id,
        signo=SIGKILL,
        mode=SIGNAL_ALL,
        durable=False,
    )
