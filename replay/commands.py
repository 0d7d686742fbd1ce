"""From recorded events back to the command that was decided on.

An event carries what its decision was taken on, so the command can be made again; a few reports of
the worker are only in the text that followed from them. Where several commands may have led to an
event all are named, the likeliest first.
"""

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain import restore_events as r
from manager.domain.checkpoint import ImageFacts
from manager.domain.decide_restore import RESTORE
from manager.domain.events import Event
from manager.domain.request import EngineFacts
from manager.domain.silent_files import is_silence
from manager.domain.state import Sandbox
from replay.facts import FactMissing, Facts
from replay.reports import reports_of

MASKED_PREFIX = "creating new process: resolving env: variable"
UNKNOWN_IMAGE = ImageFacts(digest="")


def commands_of(
    state: Sandbox, sandbox_id: str, events: Sequence[Event], facts: Facts
) -> Iterator[c.Command]:
    """The commands of which the first events may have come.

    Args:
        state: The sandbox before them.
        sandbox_id: Its id.
        events: What follows in its stream.
        facts: What :class:`replay.facts.FactReader` found for them.

    Raises:
        FactMissing: No command can be made; the text says what is not in the log.
    """
    yield from _root_commands(events[0], facts)
    yield from _container_commands(state, events, facts)
    yield from _image_commands(state, events[0], facts)
    yield from _life_commands(state, sandbox_id, events[0], facts)
    yield from reports_of(state, events)


def root_engine(state: Sandbox, facts: Facts) -> EngineFacts:
    """The engine that a sandbox was created with, as it was known then."""
    root = state.containers.get(state.id)
    return facts.engine(root.intent.engine if root is not None and root.intent is not None else "")


def _root_commands(event: Event, facts: Facts) -> Iterator[c.Command]:
    match event:
        case e.SandboxCreated(intent=intent):
            yield c.CreateSandbox(
                sandbox_id=event.sandbox,
                request=intent.request,
                spec=facts.spec(intent.request),
                engine=facts.engine(intent.engine, intent.engine_version),
                launch_id=intent.launch_id,
                engine_id=intent.engine_id,
                hold_id=event.hold_id,
                tty=event.tty,
                tty_hold_id=event.tty_hold_id,
            )
        case e.SandboxCreateRejected():
            _check_masked(event.error)
            for hold_error in ("", event.error):
                yield c.CreateSandbox(
                    sandbox_id=event.sandbox,
                    request=event.request,
                    spec=facts.spec(event.request),
                    engine=event.engine,
                    launch_id="",
                    engine_id="",
                    hold_id="",
                    tty=event.tty,
                    requested_cid=event.requested_cid,
                    hold_error=hold_error,
                )
        case e.SandboxStartRequested() | e.SandboxStartRejected():
            yield c.StartRoot(request_id=event.request_id)


def _check_masked(error: str) -> None:
    """Values of an environment are masked in the log, so no rule can look at them again."""
    if error.startswith(MASKED_PREFIX):
        raise FactMissing("the value of an environment variable, which the log masks")


def _silence(error: str) -> str:
    """What nobody but the file system could tell, and is only in the text."""
    return error if is_silence(error) else ""


def _container_commands(
    state: Sandbox, events: Sequence[Event], facts: Facts
) -> Iterator[c.Command]:
    match events[0]:
        case e.ContainerCreated() as event:
            files = (event.tty,) if event.tty is not None else ()
            yield c.CreateSubcontainer(
                cid=event.container, files=files, hold_id=event.hold_id, request_id=event.request_id
            )
        case e.ContainerCreateRejected() as event:
            for hold_error in ("", event.error):
                yield c.CreateSubcontainer(
                    cid=event.container,
                    files=event.files,
                    hold_id="tty",
                    hold_error=hold_error,
                    request_id=event.request_id,
                )
        case e.ContainerStartAccepted(intent=intent):
            yield c.StartSubcontainer(
                request=intent.request,
                spec=facts.spec(intent.request),
                engine=facts.engine(intent.engine, intent.engine_version),
                launch_id=intent.launch_id,
                engine_id=intent.engine_id,
            )
        case e.ContainerStartRejected(request=request) as event:
            _check_masked(event.error)
            yield c.StartSubcontainer(
                request=request,
                spec=facts.spec(request),
                engine=event.engine,
                launch_id="",
                engine_id="",
                hold_error=_silence(event.error),
            )
        case e.ContainerStartTranslated() if len(events) > 1:
            for command in _registrations(state, events[1], facts):
                yield c.StartSubcontainer(
                    request=command.request,
                    spec=command.spec,
                    engine=command.engine,
                    launch_id=command.launch_id,
                    engine_id="",
                    hold_id=command.hold_id,
                    hold_error=command.hold_error,
                    spec_object=command.spec_object,
                    image_specs=command.image_specs,
                )


def _registrations(state: Sandbox, event: Event, facts: Facts) -> Iterator[c.RestoreSubcontainer]:
    image = state.restore.image.digest if state.restore is not None else ""
    hold_errors: tuple[str, ...]
    match event:
        case r.ContainerRestoreAccepted(intent=intent):
            request, engine = intent.request, facts.engine(intent.engine, intent.engine_version)
            launch_id, hold_id, hold_errors = intent.launch_id, event.hold_id, ("",)
        case e.ContainerRestoreRejected():
            _check_masked(event.error)
            request, engine = event.request, root_engine(state, facts)
            launch_id, hold_id, hold_errors = "", "", ("", event.error)
        case _:
            return
    for hold_error in hold_errors:
        yield c.RestoreSubcontainer(
            request=request,
            spec=facts.spec(request),
            engine=engine,
            launch_id=launch_id,
            hold_id=hold_id,
            hold_error=hold_error,
            spec_object=facts.spec_object(request),
            image_specs=facts.image_specs.get(image, {}),
        )


def _image_commands(state: Sandbox, event: Event, facts: Facts) -> Iterator[c.Command]:
    yield from _registrations(state, event, facts)
    engine = root_engine(state, facts)
    match event:
        case r.RestoreBegun():
            yield c.Restore(
                restore_id=event.restore_id,
                engine=facts.engine(event.root_intent.engine, event.image.engine_version),
                files=event.files,
                image=event.image,
                hold_id=event.hold_id,
                spec_object=facts.spec_object(event.root_intent.request),
                image_specs=facts.image_specs.get(event.image.digest, {}),
                at_ns=event.begun_at_ns,
                request_id=event.request_id,
                background=event.background,
            )
        case e.RestoreRejected():
            yield c.Restore(
                restore_id="",
                engine=engine,
                files=event.files,
                files_error=_silence(event.error),
                request_id=event.request_id,
            )
        case r.SandboxRestoreFailed(method=method) if method == RESTORE and state.restore is None:
            image = event.image
            for hold_error in ("", event.error):
                yield c.Restore(
                    restore_id="",
                    engine=engine,
                    files=event.files,
                    image=image,
                    image_error=event.error if image is None else "",
                    hold_error=hold_error,
                    request_id=event.request_id,
                )
        case r.SandboxCheckpointRequested():
            yield c.Checkpoint(
                checkpoint_id=event.checkpoint_id,
                engine=engine,
                resume=event.resume,
                files=(event.file,),
                image=event.image,
                request_id=event.request_id,
            )
        case r.SandboxCheckpointRejected():
            for wanted in (1, 3):
                yield c.Checkpoint(
                    checkpoint_id="",
                    engine=engine,
                    files=event.files,
                    files_wanted=wanted,
                    files_error=_silence(event.error),
                    image=replace(UNKNOWN_IMAGE, compression=event.compression),
                    reserved_label=event.reserved_label,
                    request_id=event.request_id,
                )


def _life_commands(
    state: Sandbox, sandbox_id: str, event: Event, facts: Facts
) -> Iterator[c.Command]:
    match event:
        case e.ContainerSignalRequested() | e.ContainerSignalRejected(kill_id=""):
            yield c.Signal(
                cid=event.container,
                signo=event.signo,
                pid=event.pid,
                mode=event.mode,
                kill_id=event.kill_id,
                request_id=event.request_id,
            )
        case e.SandboxPauseRequested() | e.SandboxPauseRejected(pause_id=""):
            yield c.Pause(
                paused=event.paused,
                pause_id=event.pause_id,
                engine=root_engine(state, facts),
                request_id=event.request_id,
            )
        case e.SandboxPaused() if state.pausing is None:
            yield c.Pause(
                paused=True,
                pause_id=event.pause_id,
                engine=root_engine(state, facts),
                request_id=event.request_id,
            )
        case e.ContainerDestroyRequested() | e.ContainerDestroyRejected():
            yield c.DestroySubcontainer(cid=event.container, request_id=event.request_id)
        case e.ContainerDestroyed(launch_id=""):
            yield c.DestroySubcontainer(cid=event.container, request_id=event.request_id)
        case e.SandboxDeleteRequested() | e.SandboxDeleteRejected():
            yield c.DeleteSandbox(
                sandbox_id=sandbox_id, force=event.force, request_id=event.request_id
            )
        case e.ProcessExecAccepted(exec_id=exec_id, request=request):
            yield c.Execute(request=request, exec_id=exec_id, engine=root_engine(state, facts))
        case e.ProcessExecRejected(request=request):
            told = event.error.removeprefix("resolving env: ")
            for env_error in ("", told if told != event.error else ""):
                yield c.Execute(
                    request=request,
                    exec_id="",
                    engine=root_engine(state, facts),
                    env_error=env_error,
                    files_error=_silence(event.error),
                )
