"""Making an image of everything that runs in a sandbox, at one moment."""

from typing import Final

from manager.domain import commands as c
from manager.domain import restore_events as r
from manager.domain.checkpoint import COMPRESSIONS, NONE
from manager.domain.gotext import quote
from manager.domain.payload_rules import a_kind
from manager.domain.repeat import check_request_id
from manager.domain.request import FdFact
from manager.domain.restore_events import RestoreEvent
from manager.domain.state import Container, Sandbox

FEATURE: Final = "checkpoint"
BUSY: Final = "sandbox is being checkpointed"


def decide_checkpoint(state: Sandbox, command: c.Checkpoint) -> tuple[RestoreEvent, ...]:
    """Begin a checkpoint, or refuse it; gVisor asks for nothing but the number of files."""
    error = (
        check_request_id(state, command)
        or command.files_error
        or _files_error(command)
        or _labels_error(command)
        or _state_error(state)
        or _engine_error(command)
        or next(filter(None, map(_container_error, state.containers.values())), "")
    )
    if error or command.image is None:
        rejected = r.SandboxCheckpointRejected(
            error=error,
            files=command.files,
            compression=_compression(command),
            reserved_label=command.reserved_label,
            request_id=command.request_id,
        )
        return (rejected,)
    return (
        r.SandboxCheckpointRequested(
            checkpoint_id=command.checkpoint_id,
            resume=command.resume,
            image=command.image,
            file=command.files[0],
            request_id=command.request_id,
        ),
    )


def _files_error(command: c.Checkpoint) -> str:
    got, wanted = len(command.files), command.files_wanted
    if got != wanted or not got:
        return f"got {got} files, wanted {wanted}"
    return _image_file_error(command.files[0])


def _image_file_error(fact: FdFact) -> str:
    if fact.kind != "regular" or fact.access not in {"w", "rw"}:
        kind = a_kind(fact) if fact.kind != "regular" else f"open for {fact.access!r}"
        return f"checkpoint file must be a regular file that can be written, but is {kind}"
    return ""


def _labels_error(command: c.Checkpoint) -> str:
    if command.reserved_label:
        return "statefile error: metadata invalid, can't start with _"
    if _compression(command) not in COMPRESSIONS:
        return "statefile error: flags set is invalid"
    return ""


def _compression(command: c.Checkpoint) -> str:
    return NONE if command.image is None else command.image.compression


def _state_error(state: Sandbox) -> str:
    if state.phase not in {"started", "restored"}:
        return f"sandbox is not in started state, cannot checkpoint: state={state.phase}"
    if state.deleting:
        return f"sandbox {quote(state.id)} is being deleted"
    if state.paused or state.pausing is not None:
        return "sandbox is paused, cannot checkpoint"
    if state.checkpointing is not None:
        return BUSY
    return ""


def _engine_error(command: c.Checkpoint) -> str:
    if FEATURE in command.engine.lacks:
        return command.engine.refusal(FEATURE)
    return ""


def _container_error(found: Container) -> str:
    name = quote(found.cid)
    if found.status == "starting" or found.destroying:
        doing = "destroyed" if found.destroying else "started"
        return f"container {name} is being {doing}, cannot checkpoint"
    if found.status == "running":
        if found.intent is not None and found.intent.plan.stdio is None:
            return f"container {name} has a terminal, cannot checkpoint"
        for execution in found.executions.values():
            if execution.status == "starting":
                program = quote(execution.executable)
                return f"{program} is being executed in container {name}, cannot checkpoint"
    return ""


def decide_saved(
    state: Sandbox, report: c.ReportSaved | c.ReportSaveFailed
) -> tuple[RestoreEvent, ...]:
    """Record what became of a checkpoint."""
    intent = state.checkpointing
    if intent is None or intent.checkpoint_id != report.checkpoint_id:
        return ()
    if isinstance(report, c.ReportSaved):
        return (
            r.SandboxCheckpointed(
                checkpoint_id=report.checkpoint_id,
                image_bytes=report.image_bytes,
                digest=report.digest,
                resumed=report.resumed,
                revived=report.revived,
                request_id=intent.request_id,
            ),
        )
    return (
        r.SandboxCheckpointFailed(
            checkpoint_id=report.checkpoint_id,
            error=f"checkpointing sandbox {quote(state.id)}: {report.stage}: {report.reason}",
            revived=report.revived,
            request_id=intent.request_id,
        ),
    )
