"""Restoring a sandbox: the image, then each container, and with the last one all of them.

Order and texts are gVisor's. What is wrong with one call's arguments is that call's error alone;
what is wrong with the restore ends it.
"""

from msgspec.structs import replace

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain import restore_events as r
from manager.domain.checkpoint import (
    ENFORCE,
    POLICY_NAMES,
    ImageFacts,
    Mismatch,
    RestoreProgress,
)
from manager.domain.decide_checkpoint import FEATURE
from manager.domain.events import Event
from manager.domain.gotext import quote, slice_text
from manager.domain.payload_rules import count_error, uses_terminal
from manager.domain.repeat import check_request_id
from manager.domain.request import EngineFacts, StartRequest
from manager.domain.restore_spec import compare_specs
from manager.domain.spec import Spec
from manager.domain.start import check_arguments, check_start, plan_launch
from manager.domain.state import Container, LaunchIntent, Sandbox

RESTORE = "Restore"
RESTORE_SUBCONTAINER = "RestoreSubcontainer"
NO_TERMINALS = "a container with a terminal cannot be restored"


def decide_restore(state: Sandbox, command: c.Restore) -> tuple[Event, ...]:
    """Take an image in, and the root as the first container of it."""
    root = state.container(state.id)
    error = (
        check_request_id(state, command)
        or command.files_error
        or _restore_error(state, root, command.engine)
    )
    if error or root is None or root.intent is None:
        rejected = e.RestoreRejected(
            error=error, files=command.files, request_id=command.request_id
        )
        return (rejected,)
    error = _image_error(command)
    if error or command.image is None:
        return (
            r.SandboxRestoreFailed(
                error=error,
                method=RESTORE,
                files=command.files,
                image=command.image,
                request_id=command.request_id,
            ),
        )
    image = command.image
    begun = r.RestoreBegun(
        restore_id=command.restore_id,
        hold_id=command.hold_id,
        image=image,
        total=image.container_count or 0,
        policy=_policy(root.intent.request),
        files=command.files,
        root_intent=_as_in(image, root.intent),
        mismatches=_compare(root.intent.name, command.image_specs, command.spec_object),
        begun_at_ns=command.at_ns,
        request_id=command.request_id,
        background=command.background,
    )
    progress = progress_of(begun, state.id)
    return (begun, *_complete(progress, (begun.root_intent,), RESTORE))


def progress_of(begun: r.RestoreBegun, root: str) -> RestoreProgress:
    """How far a restore is that has just begun."""
    return RestoreProgress(
        restore_id=begun.restore_id,
        hold_id=begun.hold_id,
        image=begun.image,
        total=begun.total,
        policy=begun.policy,
        registered=(root,),
        mismatches=begun.mismatches,
        begun_at_ns=begun.begun_at_ns,
        background=begun.background,
    )


def _restore_error(state: Sandbox, root: Container | None, engine: EngineFacts) -> str:
    if state.phase != "created" or root is None:
        return f"cannot restore a container in state={state.phase}"
    if state.deleting or root.destroying:
        return f"sandbox {quote(state.id)} is being deleted"
    if root.status != "creating":
        return f"root container {quote(state.id)} is already being started"
    if root.fds_hold is None:
        return f"the files donated for root container {quote(state.id)} are lost: create it anew"
    if FEATURE in engine.lacks:
        return engine.refusal(FEATURE)
    if root.intent is not None and root.intent.plan.stdio is None:
        return NO_TERMINALS
    if root.intent is not None and root.intent.plan.upper_tar_fd is not None:
        return "rootfs upper tar file is not supported during restore"
    return ""


def _image_error(command: c.Restore) -> str:
    image, engine = command.image, command.engine
    if not command.files:
        return "at least one file must be passed to Restore"
    if command.image_error or image is None:
        return command.image_error
    if image.container_count is None:
        return "container count not present in state file"
    if image.container_count < 1:
        return f"invalid container count value: {image.container_count}"
    if image.containers is None:
        return "container specs not found in metadata during restore"
    if len(image.containers) != image.container_count:
        return (
            f"the image says that it holds {image.container_count} containers, "
            f"but has {len(image.containers)}"
        )
    if image.engine != engine.name:
        return f"the image was made by engine {image.engine}, the sandbox runs on {engine.name}"
    if image.engine_version != engine.version:
        return (
            f"{engine.name} version does not match across checkpoint restore, "
            f"checkpoint: {image.engine_version} current: {engine.version}"
        )
    return command.hold_error


def decide_restore_subcontainer(
    state: Sandbox, command: c.RestoreSubcontainer
) -> tuple[Event, ...]:
    """Register one container; with the last one the restore of all begins."""
    progress, request, spec = state.restore, command.request, command.spec
    error = check_request_id(state, command)
    if not error and (state.phase != "restoringUnstarted" or progress is None):
        error = f"sandbox is not being restored, cannot restore subcontainer: state={state.phase}"
    error = error or check_arguments(request, spec)
    intent: LaunchIntent | str = error
    if not error and spec is not None and progress is not None:
        intent = _registration(state, progress, command, spec)
    if isinstance(intent, str) or command.hold_error or progress is None:
        text = intent if isinstance(intent, str) else command.hold_error
        return (e.ContainerRestoreRejected(container=request.cid, request=request, error=text),)
    found = _compare(intent.name, command.image_specs, command.spec_object)
    accepted = r.ContainerRestoreAccepted(
        container=request.cid,
        intent=intent,
        hold_id=command.hold_id,
        registered=len(progress.registered) + 1,
        total=progress.total,
        mismatches=found,
    )
    after = registered(progress, accepted)
    intents = (*_intents(state, progress), intent)
    return (accepted, *_complete(after, intents, RESTORE_SUBCONTAINER))


def registered(progress: RestoreProgress, event: r.ContainerRestoreAccepted) -> RestoreProgress:
    """How far a restore is with one container more."""
    return replace(
        progress,
        registered=(*progress.registered, event.container),
        mismatches=(*progress.mismatches, *event.mismatches),
    )


def _registration(
    state: Sandbox, progress: RestoreProgress, command: c.RestoreSubcontainer, spec: Spec
) -> LaunchIntent | str:
    request = command.request
    error = _request_error(state, request, spec)
    if error:
        return error
    ids = (command.launch_id, "")
    intent = plan_launch(state, request, spec, command.engine, ids)
    if isinstance(intent, str):
        return intent
    owner = state.names.get(intent.name)
    if owner is not None and owner in progress.registered:
        return f"container {quote(intent.name)} already restored"
    if request.cid in progress.registered:
        found = state.containers[request.cid].intent
        name = found.name if found is not None else ""
        return f"container CID {quote(request.cid)} already belongs to container {quote(name)}"
    return _as_in(progress.image, intent)


def _request_error(state: Sandbox, request: StartRequest, spec: Spec) -> str:
    if state.deleting:
        return f"sandbox {quote(state.id)} is being deleted"
    if request.is_rootfs_upper_tar_file_present:
        return "rootfs upper tar file is not supported during restore"
    if error := count_error(request, spec, "restore"):
        return error
    if uses_terminal(spec):
        return NO_TERMINALS
    found = state.container(request.cid)
    if found is None:
        return f"trying to restore a deleted container {quote(request.cid)}"
    if found.destroying:
        return f"container {quote(request.cid)} is being destroyed"
    return check_start(request, spec, has_tty=False, on_container=lambda: "")


def _as_in(image: ImageFacts, intent: LaunchIntent) -> LaunchIntent:
    entry = image.entry(intent.name)
    return replace(intent, engine_id=entry.engine_id if entry is not None else "")


def _compare(
    name: str, before: dict[str, dict[str, object]], now: dict[str, object] | None
) -> tuple[Mismatch, ...]:
    return compare_specs(name, before.get(name), now or {})


def _policy(request: StartRequest) -> int:
    """The root's RestoreSpecValidation; a client that does not know of it gets gVisor's default."""
    value = (request.conf or {}).get("RestoreSpecValidation", ENFORCE)
    return value if isinstance(value, int) else ENFORCE


def _intents(state: Sandbox, progress: RestoreProgress) -> tuple[LaunchIntent, ...]:
    found = (state.containers[cid].intent for cid in progress.registered)
    return tuple(intent for intent in found if intent is not None)


def _complete(
    progress: RestoreProgress, intents: tuple[LaunchIntent, ...], method: str
) -> tuple[Event, ...]:
    """What follows from a registration: nothing, unless it was the last one."""
    if len(progress.registered) < progress.total:
        return ()
    error = _validation_error(progress) or _remapping_error(progress.image, intents)
    validated = r.RestoreValidated(
        restore_id=progress.restore_id,
        policy=progress.policy,
        verdict="differs" if progress.mismatches else "same",
        mismatches=progress.mismatches,
        error=error,
    )
    if not error:
        return (validated,)
    return (validated, r.SandboxRestoreFailed(error=error, method=method))


def _validation_error(progress: RestoreProgress) -> str:
    if progress.policy not in POLICY_NAMES:
        error = f"invalid option for restore spec validation {progress.policy}"
    elif progress.policy == ENFORCE and progress.mismatches:
        first = progress.mismatches[0]
        error = first.error
        if first.field != "Container":
            error = f"failed to validate spec for container {quote(first.container)}: {error}"
        error = f"failed to validate restore spec: {error}"
    else:
        if progress.image.network == "host":
            return "checkpoint created with host networking cannot be restored with none networking"
        return ""
    return f"failed to handle restore spec validation: {error}"


def _remapping_error(image: ImageFacts, intents: tuple[LaunchIntent, ...]) -> str:
    for intent in intents:
        if image.entry(intent.name) is None:
            names = slice_text(each.name for each in image.containers or ())
            return (
                f"unable to remap task with CID {quote(intent.request.cid)} "
                f"(name: {quote(intent.name)}). Available names: {names}"
            )
    return ""


def after_outcome(state: Sandbox, cid: str, now_ns: int, *, cpu_ns: int = 0) -> tuple[Event, ...]:
    """What the outcome of one container's launch means for a restore that is under way.

    Saved is what the image says was used, less what it took to bring it back, ``cpu_ns`` by this
    container.
    """
    progress = state.restore
    if state.phase != "restoringStarted" or progress is None:
        return ()
    waiting = {
        each
        for each in progress.registered
        if (found := state.containers.get(each)) is not None and found.status == "starting"
    }
    if waiting - {cid}:
        return ()
    image = progress.image
    others = (state.containers[each].launched for each in progress.registered if each != cid)
    taken_ns = cpu_ns + sum(launched.cpu_ns for launched in others if launched is not None)
    return (
        r.SandboxRestored(
            restore_id=progress.restore_id,
            cpu_saved_ns=image.cpu_ns - taken_ns,
            wall_saved_ns=image.wall_ns - (now_ns - progress.begun_at_ns),
        ),
    )


def after_failure(state: Sandbox, error: str) -> tuple[Event, ...]:
    """What the failure of one container's launch means for a restore that is under way."""
    progress = state.restore
    if state.phase not in {"restoringUnstarted", "restoringStarted"} or progress is None:
        return ()
    method = RESTORE if progress.total == 1 else RESTORE_SUBCONTAINER
    return (r.SandboxRestoreFailed(error=error, method=method),)


def decide_image_lost(state: Sandbox, report: c.ReportImageLost) -> tuple[Event, ...]:
    """Record that a restore cannot go on without its image."""
    progress = state.restore
    if progress is None or progress.restore_id != report.restore_id:
        return ()
    return after_failure(state, f"the image is lost: {report.reason}")
