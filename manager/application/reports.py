"""What the worker says, in the words of the domain."""

from typing import Final

from manager.domain import commands as c
from manager.domain.exit_status import from_wait_status
from manager.domain.state import Launched
from manager.schema import worker as w

UNTOLD: Final = "the kernel could not tell any more"
"""Why an exit of an older worker has no status."""


def to_report(  # noqa: C901 - one arm an outcome
    outcome: w.Outcome,
) -> c.Report | None:
    """Translate an outcome; one that concerns no sandbox gives ``None``."""
    match outcome:
        case w.Started():
            return c.ReportStarted(
                launch_id=outcome.launch_id,
                launched=_launched(outcome),
                phases_us=outcome.phases_us,
            )
        case w.StartFailed():
            return c.ReportStartFailed(
                launch_id=outcome.launch_id,
                stage=outcome.stage,
                reason=outcome.reason,
                errno=outcome.errno,
            )
        case w.Exited():
            return _ended(outcome)
        case w.Killed():
            return c.ReportKilled(
                kill_id=outcome.kill_id, errno=outcome.errno, why=outcome.why, owner=outcome.owner
            )
        case w.Frozen():
            return c.ReportFrozen(pause_id=outcome.pause_id, error=outcome.error)
        case w.Saved():
            return c.ReportSaved(
                checkpoint_id=outcome.checkpoint_id,
                image_bytes=outcome.image_bytes,
                digest=outcome.digest,
                resumed=outcome.resumed,
                revived=_revived(outcome),
            )
        case w.SaveFailed():
            return c.ReportSaveFailed(
                checkpoint_id=outcome.checkpoint_id,
                stage=outcome.stage,
                reason=outcome.reason,
                revived=_revived(outcome),
            )
        case w.Destroyed():
            return c.ReportDestroyed(launch_id=outcome.launch_id, leftovers=outcome.leftovers)
        case w.Executed() | w.ExecFailed() | w.ProcessExited():
            return _of_execution(outcome)
        case w.Held():
            return None


def _of_execution(outcome: w.Executed | w.ExecFailed | w.ProcessExited) -> c.Report:
    match outcome:
        case w.Executed():
            return c.ReportExecuted(
                exec_id=outcome.exec_id, pid=outcome.pid, launched=_launched(outcome)
            )
        case w.ExecFailed():
            return c.ReportExecFailed(
                exec_id=outcome.exec_id,
                stage=outcome.stage,
                reason=outcome.reason,
                errno=outcome.errno,
            )
        case w.ProcessExited():
            return _process_ended(outcome)


def _ended(outcome: w.Exited) -> c.Report:
    if outcome.status is None:
        reason = outcome.loss or UNTOLD
        return c.ReportLost(launch_id=outcome.launch_id, reason=reason, ran=True)
    return c.ReportExited(
        launch_id=outcome.launch_id,
        exit=from_wait_status(outcome.status),
        source=outcome.source,
        exited_at_ns=outcome.exited_at_ns,
        oom=outcome.oom,
    )


def _process_ended(outcome: w.ProcessExited) -> c.Report:
    if outcome.status is None:
        return c.ReportProcessLost(exec_id=outcome.exec_id, reason=outcome.loss or UNTOLD)
    return c.ReportProcessExited(
        exec_id=outcome.exec_id,
        exit=from_wait_status(outcome.status),
        source=outcome.source,
        exited_at_ns=outcome.exited_at_ns,
    )


def _revived(outcome: w.Saved | w.SaveFailed) -> dict[str, Launched]:
    return {each.launch_id: _launched(each) for each in outcome.revived}


def _launched(outcome: w.Started | w.Executed | w.Revived) -> Launched:
    identity = outcome.identity
    return Launched(
        pid=identity.pid,
        start_ticks=identity.start_ticks,
        pidfd_inode=identity.pidfd_inode,
        boot_id=identity.boot_id,
        engine=outcome.engine,
        engine_version=outcome.engine_version,
        started_at_ns=outcome.started_at_ns,
        cpu_ns=outcome.cpu_ns if isinstance(outcome, w.Started) else 0,
    )
