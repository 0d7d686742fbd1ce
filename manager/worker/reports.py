"""Outcomes, made from what happened."""

import time

from manager.kernel.pidfd import started_at_ns
from manager.schema import worker as w
from manager.worker.delivery import Delivery
from manager.worker.engine import Engine
from manager.worker.errors import LaunchFailed
from manager.worker.exec_records import ExecRecord
from manager.worker.exit_report import ExitReport
from manager.worker.outbox import Outbox
from manager.worker.phases import Phases


class Reports:
    """Says what happened, to the outbox."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def held(self, hold_id: str) -> None:
        """Descriptors have arrived."""
        self._outbox.put(w.Held(seq=self._outbox.next_seq(), hold_id=hold_id))

    def started(
        self,
        launch_id: str,
        identity: w.PidIdentity,
        engine: Engine,
        phases: Phases,
        *,
        cpu_ns: int = 0,
    ) -> None:
        """The container's own code runs."""
        self._started(launch_id, identity, engine, time.time_ns(), phases.laps_us, cpu_ns)

    def runs(self, launch_id: str, identity: w.PidIdentity, engine: Engine) -> None:
        """The container's own code runs, and has since its process was made."""
        self._started(launch_id, identity, engine, started_at_ns(identity.start_ticks), {}, 0)

    def _started(
        self,
        launch_id: str,
        identity: w.PidIdentity,
        engine: Engine,
        at_ns: int,
        phases_us: dict[str, int],
        cpu_ns: int,
    ) -> None:
        self._outbox.put(
            w.Started(
                seq=self._outbox.next_seq(),
                launch_id=launch_id,
                identity=identity,
                engine=engine.name,
                engine_version=engine.version,
                started_at_ns=at_ns,
                phases_us=phases_us,
                cpu_ns=cpu_ns,
            )
        )

    def start_failed(self, launch_id: str, failure: LaunchFailed) -> None:
        """The container's code never ran, and nothing is left."""
        self._outbox.put(
            w.StartFailed(
                seq=self._outbox.next_seq(),
                launch_id=launch_id,
                stage=failure.stage,
                reason=failure.reason,
                errno=failure.errno,
            )
        )

    def exited(self, launch_id: str, report: ExitReport, *, oom: bool) -> None:
        """Init is gone."""
        self._outbox.put(
            w.Exited(
                seq=self._outbox.next_seq(),
                launch_id=launch_id,
                status=report.status,
                source=report.source,
                exited_at_ns=report.at_ns,
                oom=oom,
                loss=report.loss,
            )
        )

    def killed(self, command: w.Kill, delivery: Delivery) -> None:
        """A signal was delivered, or not."""
        outcome = w.Killed(
            seq=self._outbox.next_seq(),
            kill_id=command.kill_id,
            errno=delivery.errno,
            why=delivery.why,
            owner=delivery.owner,
        )
        if command.durable:
            self._outbox.put(outcome)
        else:
            self._outbox.say(outcome)

    def executed(self, record: ExecRecord, engine: Engine | None) -> None:
        """An executed process runs."""
        assert record.identity is not None
        self._outbox.put(
            w.Executed(
                seq=self._outbox.next_seq(),
                exec_id=record.exec_id,
                launch_id=record.launch_id,
                pid=record.pid,
                identity=record.identity,
                engine=engine.name if engine is not None else "",
                engine_version=engine.version if engine is not None else "",
                started_at_ns=record.started_at_ns,
            )
        )

    def exec_failed(self, command: w.Execute, failure: LaunchFailed) -> None:
        """A process that was to be executed never ran."""
        self._outbox.put(
            w.ExecFailed(
                seq=self._outbox.next_seq(),
                exec_id=command.exec_id,
                launch_id=command.launch_id,
                stage=failure.stage,
                reason=failure.reason,
                errno=failure.errno,
            )
        )

    def exec_abandoned(self, record: ExecRecord, reason: str) -> None:
        """A former worker was killed while it executed a process."""
        self._outbox.put(
            w.ExecFailed(
                seq=self._outbox.next_seq(),
                exec_id=record.exec_id,
                launch_id=record.launch_id,
                stage="interrupted",
                reason=reason,
            )
        )

    def process_exited(self, record: ExecRecord, report: ExitReport) -> None:
        """An executed process is gone."""
        self._outbox.put(
            w.ProcessExited(
                seq=self._outbox.next_seq(),
                exec_id=record.exec_id,
                launch_id=record.launch_id,
                status=report.status,
                source=report.source,
                exited_at_ns=report.at_ns,
                loss=report.loss,
            )
        )

    def frozen(self, pause_id: str, error: str) -> None:
        """A pause or a resume is done, or, with an error, undone."""
        self._outbox.put(w.Frozen(seq=self._outbox.next_seq(), pause_id=pause_id, error=error))

    def destroyed(self, launch_id: str, leftovers: tuple[str, ...] = ()) -> None:
        """Nothing of the launch is left."""
        self._outbox.put(
            w.Destroyed(seq=self._outbox.next_seq(), launch_id=launch_id, leftovers=leftovers)
        )
