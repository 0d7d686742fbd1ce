"""Processes that are executed in containers that run: each a task, from descriptors to its end."""

import logging
import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from manager.kernel import pidfd
from manager.kernel.fail_points import reached
from manager.schema import worker as w
from manager.urpc.fds import FdBundle, OwnedFd
from manager.worker.adoption import open_same_process, why_lost
from manager.worker.engine import Engine, Running
from manager.worker.errors import LaunchFailed
from manager.worker.exec_order import ExecOrder
from manager.worker.exec_records import ExecRecord
from manager.worker.exit_report import nobody_knows
from manager.worker.launch import Launch
from manager.worker.loop import Loop, Steps
from manager.worker.machine import Machine
from manager.worker.outbox import Outbox
from manager.worker.reports import Reports
from manager.worker.unheard import end_unheard

logger = logging.getLogger(__name__)

EXECS_IN_FLIGHT_MAX: Final = 2 * (os.cpu_count() or 1)
"""Execs being made at a time: more of them only make each slower."""

EXECS_REMEMBERED_MAX: Final = 100_000
"""Ids of execs that are over, so that a command sent twice does not run twice."""


class Launches(Protocol):
    """Where containers are found."""

    def running(self, launch_id: str) -> Launch | None:
        """The launch of that id, if it is known, whatever its phase."""
        ...


class Execs:
    """Does what the manager asks of executed processes, once for each id.

    Args:
        loop: Runs the tasks.
        machine: Shared by all.
        launches: The containers.
        outbox: Where outcomes go.
        changed: Called when one is over.
    """

    def __init__(
        self,
        loop: Loop,
        machine: Machine,
        launches: Launches,
        outbox: Outbox,
        changed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._machine = machine
        self._launches = launches
        self._outbox = outbox
        self._reports = Reports(outbox)
        self._changed = changed
        self._known: dict[str, str] = {}
        self._over: OrderedDict[str, None] = OrderedDict()
        self._queue: deque[tuple[w.Execute, FdBundle]] = deque()
        self._in_flight = 0

    @property
    def idle(self) -> bool:
        """Whether nothing executed runs, or waits to."""
        return not self._known

    def names(self) -> tuple[str, ...]:
        """Exec ids of all of which more will be reported."""
        return tuple(self._known)

    def numbers(self, launch_id: str) -> frozenset[int]:
        """What runs of all that was executed in a container, by numbers of its PID namespace."""
        return frozenset(
            record.pid
            for record in self._machine.exec_records.read()
            if record.launch_id == launch_id and record.exec_id in self._known and record.pid
        )

    def execute(self, command: w.Execute, fds: FdBundle) -> None:
        """Execute a process when its turn comes; ownership of `fds` moves in."""
        if command.exec_id in self._known or command.exec_id in self._over:
            fds.close()
            self._outbox.send_again(command.exec_id)
            return
        self._known[command.exec_id] = command.launch_id
        self._queue.append((command, fds))
        self._start_next()

    def retell(self) -> None:
        """Say again of each that it runs: whether the manager has heard it, nobody knows."""
        for record in self._machine.exec_records.read():
            if record.identity is not None:
                self._reports.executed(record, self._engine_of(record))

    def adopt_all(self, kept: dict[str, OwnedFd], told: frozenset[str]) -> None:
        """Go on with what a former worker, which was killed, has left.

        Args:
            kept: Pidfds that it had kept; those of execs are taken out.
            told: Execs whose end it has left word of.
        """
        for record in self._machine.exec_records.read():
            handle = kept.pop(record.exec_id, None)
            if record.exec_id in told:
                if handle is not None:
                    handle.close()
                self._forget(record.exec_id)
                continue
            self._known[record.exec_id] = record.launch_id
            self._loop.start(self._whole(record.exec_id, self._remaining_life(record, handle)))

    def recorded(self, outcomes: Sequence[w.Outcome]) -> None:
        """Forget what the manager has the end of; until then the number it had is told with it."""
        for outcome in outcomes:
            if isinstance(outcome, w.ProcessExited | w.ExecFailed):
                self._machine.exec_records.remove(outcome.exec_id)

    def _start_next(self) -> None:
        while self._queue and self._in_flight < EXECS_IN_FLIGHT_MAX:
            command, fds = self._queue.popleft()
            self._in_flight += 1
            self._loop.start(self._whole(command.exec_id, self._life(command, fds)))

    def _settled(self) -> None:
        self._in_flight -= 1
        # Not from here: a row of failures would become a stack of calls.
        self._loop.call_later(0, self._start_next)

    def _whole(self, exec_id: str, steps: Steps[None]) -> Steps[None]:
        try:
            yield from steps
        except Exception as error:
            logger.exception("worker.exec_crashed exec_id=%s", exec_id)
            self._tell_crash(exec_id, f"a defect of the worker: {type(error).__name__}: {error}")
        self._forget(exec_id)
        self._changed()

    def _tell_crash(self, exec_id: str, why: str) -> None:
        """Tell an end, so that nobody waits for another one."""
        known = {each.exec_id: each for each in self._machine.exec_records.read()}
        record = known.get(exec_id) or ExecRecord(exec_id=exec_id, launch_id=self._known[exec_id])
        if record.identity is None:
            self._reports.exec_abandoned(record, why)
        else:
            self._reports.process_exited(record, nobody_knows(why))

    def _forget(self, exec_id: str) -> None:
        self._machine.keeping.drop(exec_id)
        self._known.pop(exec_id, None)
        self._over[exec_id] = None
        if len(self._over) > EXECS_REMEMBERED_MAX:
            self._over.popitem(last=False)

    def _life(self, command: w.Execute, fds: FdBundle) -> Steps[None]:
        launch = self._launches.running(command.launch_id)
        record = ExecRecord(exec_id=command.exec_id, launch_id=command.launch_id)
        try:
            with fds:
                engine, running, number = yield from self._execute(command, record, launch, fds)
        except LaunchFailed as failure:
            self._reports.exec_failed(command, failure)
            return
        finally:
            self._settled()
        assert launch is not None
        # Before it is on record that it runs: who reads that must be able to learn how it ended.
        self._keep(command.exec_id, running)
        record = ExecRecord(
            exec_id=command.exec_id,
            launch_id=command.launch_id,
            identity=self._identify(running),
            pid=number,
            started_at_ns=time.time_ns(),
        )
        try:
            self._machine.exec_records.write(record)
        except OSError as error:  # it runs, so a full disk is no reason to fail
            logger.warning("worker.record_not_written exec_id=%s %s", command.exec_id, error)
        reached("exec.done")
        self._reports.executed(record, engine)
        reached("exec.reported")
        yield from self._live(record, running, engine, launch)

    def _execute(
        self, command: w.Execute, record: ExecRecord, launch: Launch | None, fds: FdBundle
    ) -> Steps[tuple[Engine, Running, int]]:
        if launch is None or launch.inside is None:
            raise LaunchFailed("create", "its container has stopped")
        engine, inside = launch.inside
        if inside.pidfd is None:
            raise LaunchFailed("create", "its container has stopped")
        try:
            self._machine.exec_records.write(record)
        except OSError as error:
            raise LaunchFailed.from_os("create", "it cannot be recorded", error) from error
        reached("exec.recorded")
        order = ExecOrder(
            engine_id=launch.command.engine_id,
            process=command.process,
            defaults=self._machine.records.process_of(launch.command.engine_id),
            files={
                number: fd.number for number, fd in zip(command.process.guest_fds, fds, strict=True)
            },
            cgroup=inside.cgroup,
            init=inside.pid,
            init_pidfd=inside.pidfd.number,
            place=self._machine.exec_records.place(command.exec_id),
        )
        launch.executing += 1
        try:
            running, number = yield from engine.execute(order)
        except LaunchFailed:
            raise
        except Exception as error:
            logger.exception("worker.exec_crashed exec_id=%s", command.exec_id)
            if launch.phase != "running":
                raise LaunchFailed("create", "its container has stopped") from error
            reason = f"a defect of the worker: {type(error).__name__}: {error}"
            raise LaunchFailed("create", reason) from error
        finally:
            launch.executing -= 1
        return engine, running, number

    def _live(
        self, record: ExecRecord, running: Running, engine: Engine, launch: Launch
    ) -> Steps[None]:
        launch.executing += 1
        try:
            place = self._machine.exec_records.place(record.exec_id)
            report = yield from engine.wait_executed(running, record.pid, place)
        finally:
            launch.executing -= 1
            running.close()
        self._reports.process_exited(record, report)

    def _remaining_life(self, record: ExecRecord, kept: OwnedFd | None) -> Steps[None]:
        launch = self._launches.running(record.launch_id)
        if record.identity is None:
            if kept is not None:
                kept.close()
            yield from end_unheard(self._machine.exec_records.place(record.exec_id), launch)
            reason = "the worker was killed while it was executing this process"
            self._reports.exec_abandoned(record, reason)
            return
        handle = kept or open_same_process(record.identity, self._machine.boot_id)
        if handle is None or launch is None or launch.inside is None:
            why = "its container is gone"
            if handle is not None:
                handle.close()
            else:
                why = why_lost(record.identity, self._machine.boot_id)
            self._reports.process_exited(record, nobody_knows(why))
            return
        engine, inside = launch.inside
        running = Running(
            engine_id=launch.command.engine_id,
            pid=record.identity.pid,
            pidfd=handle,
            cgroup=inside.cgroup,
            start_ticks=record.identity.start_ticks,
        )
        self._keep(record.exec_id, running)
        yield from self._live(record, running, engine, launch)

    def _keep(self, exec_id: str, running: Running) -> None:
        if running.pidfd is not None:
            self._machine.keeping.keep(exec_id, running.pidfd)

    def _identify(self, running: Running) -> w.PidIdentity:
        if running.pidfd is not None:
            running.start_ticks = pidfd.start_ticks(running.pid)
        return running.identity(self._machine.boot_id)

    def _engine_of(self, record: ExecRecord) -> Engine | None:
        names = {each.launch_id: each.engine for each in self._machine.records.read()}
        return self._machine.engine_of(names.get(record.launch_id, ""))
