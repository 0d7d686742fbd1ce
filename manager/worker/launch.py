"""One container's life, from the descriptors that arrived to the last trace removed."""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, TypeAlias

from manager.kernel.fail_points import reached
from manager.schema import worker as w
from manager.schema.observation import ProcessFacts, UsageFacts
from manager.urpc.fds import FdBundle, OwnedFd
from manager.worker import emptying
from manager.worker.delivery import GROUP, Delivery, Inhabitants, Target, to_the_dead
from manager.worker.engine import Engine, RevivingEngine, Running, SavingEngine
from manager.worker.errors import EngineIdTaken, LaunchFailed
from manager.worker.executing import until_executed
from manager.worker.exit_report import ExitReport, nobody_knows
from manager.worker.loop import Pause, Steps
from manager.worker.machine import Machine
from manager.worker.phases import Phases
from manager.worker.reports import Reports
from manager.worker.starting import Request, start_container
from manager.worker.usage import usage_of

logger = logging.getLogger(__name__)

REVIVAL_POLL_SECONDS: Final = 0.005
"""How often to look whether a container that was saved goes on."""

Phase: TypeAlias = Literal["launching", "running", "exited", "failed"]


class Launch:
    """The life of one container, as a task.

    Args:
        command: What the manager asked for.
        machine: Shared by all launches.
        reports: Told what happens.
        settled: Called once, when the start has succeeded or failed.

    Attributes:
        cgroup: Where its processes are found.
        executing: How many executed processes of it are being made, or run.
    """

    def __init__(
        self,
        command: w.Launch,
        machine: Machine,
        reports: Reports,
        settled: Callable[[], None],
    ) -> None:
        self.command = command
        self.launch_id = command.launch_id
        self.phase: Phase = "launching"
        self.identity: w.PidIdentity | None = None
        self.destroy_wanted = False
        self.executing = 0
        self._streams: FdBundle | None = None
        self._starting = False
        self._left_in_image = False
        self._machine = machine
        self._reports = reports
        self._settled = settled
        self._engine: Engine | None = None
        self._running: Running | None = None
        self._stage = machine.stage.of_launch(command.engine_id)
        self.cgroup = machine.cgroups.of_launch(command.engine_id)

    def life(self, request: Callable[[], Steps[Request]]) -> Steps[None]:
        """Start, wait for the end, clean up. Never raises.

        Args:
            request: Looks up what the command names; called first, its result is owned here.
        """
        phases = Phases()
        try:
            running = yield from self._start(request, phases)
        except EngineIdTaken as failure:
            self._told_failed(failure)
            self._leave([])
            return
        except LaunchFailed as failure:
            yield from self._fail(failure)
            return
        yield from self._live(running, phases)

    def adopted_life(self, running: Running, engine: Engine) -> Steps[None]:
        """Go on with a container that a former worker started, and may not have told of."""
        self._engine = engine
        # Its root was on the former worker's stage. Nothing is to be had by that name any more, but
        # a directory of that name must be there: `runc exec` begins by changing into it.
        try:
            self._stage.create()
        except OSError as error:
            logger.warning("worker.no_stage launch_id=%s %s", self.launch_id, error)
        yield from self._live(running, Phases())

    def lost_life(self, engine: Engine | None, why: str) -> Steps[None]:
        """Report and clean up a container of which nobody can tell any more how it ended."""
        self._engine = engine
        self.phase = "exited"
        self._reports.exited(self.launch_id, nobody_knows(why), oom=self.cgroup.ran_out_of_memory())
        yield from self._finish()

    def told_life(self, engine: Engine | None) -> Steps[None]:
        """Clean up a container whose end a former worker has seen and left word of."""
        self._engine = engine
        self.phase = "exited"
        yield from self._finish()

    def abandoned_life(self, engine: Engine | None, failure: LaunchFailed) -> Steps[None]:
        """Remove what there is of a start that was not finished, or not begun."""
        self._engine = engine
        yield from self._fail(failure)

    def crashed_life(self, error: Exception) -> Steps[None]:
        """End a life that a defect of this program has cut short; its end is told, whatever it was.

        Else it would be waited for until this worker ends, and would keep it from ending.
        """
        why = f"a defect of the worker: {type(error).__name__}: {error}"
        if self.phase == "launching":
            yield from self._fail(LaunchFailed("create", why))
        elif self.phase == "running":
            yield from self.lost_life(self._engine, why)
        else:
            yield from self._finish()

    @property
    def interruptible(self) -> bool:
        """Whether LaunchAborted may be thrown into the task now."""
        return self._starting

    def fact(self) -> w.LaunchFact:
        """What there is to say of it now."""
        return w.LaunchFact(launch_id=self.launch_id, phase=self.phase, identity=self.identity)

    def join(self, name: str) -> OwnedFd:
        """Duplicate one of the container's namespaces.

        Raises:
            LaunchFailed: Stage `namespaces`: the container does not run, or has none to join.
        """
        if self._running is None or self.phase != "running":
            reason = f"the container whose {name} namespace is to be joined does not run"
            raise LaunchFailed("namespaces", reason)
        if name not in self._running.namespaces:
            reason = f"the container whose {name} namespace is to be joined has none of its own"
            raise LaunchFailed("namespaces", reason)
        return self._running.namespaces[name].dup()

    @property
    def inside(self) -> tuple[Engine, Running] | None:
        """The container's init and what runs it, while it runs."""
        if self._running is None or self._engine is None or self.phase != "running":
            return None
        return self._engine, self._running

    def signal(self, signo: int, target: Target) -> Steps[Delivery]:
        """Signal one process of the container, all of them, or a process group."""
        if self.inside is None:
            return to_the_dead(target)
        engine, running = self.inside
        return (yield from engine.signal(running, signo, target))

    def shares_numbers(self, other: "Launch") -> bool:
        """Whether both containers number processes alike: they share a PID namespace."""
        if self.inside is None or other.inside is None:
            return False
        mine, theirs = (each[1].namespaces.get("pid") for each in (self.inside, other.inside))
        if mine is None or theirs is None:
            return False
        return os.path.sameopenfile(mine.number, theirs.number)

    def has(self, target: Target) -> bool:
        """Whether the process or the group that a signal is for lives here."""
        if self.inside is None:
            return False
        running = self.inside[1]
        inside = Inhabitants(running.pid, running.cgroup)
        if target.mode == GROUP:
            return bool(inside.in_group(target.pid))
        return inside.by_number(target.pid) is not None

    def freeze(self, *, frozen: bool) -> Steps[str]:
        """Stop every process, or let them go on; returns why it could not be done."""
        if self._running is None or self._engine is None or self.phase != "running":
            return ""
        return (yield from self._engine.freeze(self._running, frozen=frozen))

    def processes(self, *, details: bool) -> Steps[tuple[ProcessFacts, ...]]:
        """Look at every process; none if it does not run."""
        if self._running is None or self._engine is None or self.phase != "running":
            return ()
        return (yield from self._engine.processes(self.launch_id, self._running, details=details))

    def usage(self) -> UsageFacts:
        """What it has used."""
        return usage_of(self.launch_id, self.cgroup)

    @property
    def unsaveable(self) -> str:
        """Why it cannot be saved as it is; empty if it can."""
        if self.inside is None or not isinstance(self._engine, SavingEngine):
            return "the container has ended meanwhile"
        return self._engine.unsaveable(self.inside[1])

    def save(self, image: Path) -> Steps[str]:
        """Write it, frozen, to files in a directory; returns why it could not be done.

        If it was, `revive` or `let_end` must follow: until then nobody is told that it ends.
        """
        if self.inside is None or not isinstance(self._engine, SavingEngine):
            return "the container has ended meanwhile"
        running = self.inside[1]
        if isinstance(self._engine, RevivingEngine):
            try:
                self._streams = self._engine.streams(running)
            except OSError as problem:
                return f"its streams cannot be kept: {problem.strerror}"
        error = "it crashed"
        try:
            error = yield from self._engine.save(running, image)
        finally:
            if error:
                self._close_streams()
        return error

    def revive(self, image: Path) -> Steps[w.Revived | None]:
        """Have it go on after it was saved; `None` if it goes on as it was, or has ended."""
        running, engine, streams = self._running, self._engine, self._streams
        if running is None or streams is None or not isinstance(engine, RevivingEngine):
            yield from self.freeze(frozen=False)
            return None
        try:
            self._running = yield from engine.revive(running, image, self._stage, streams)
            identity = self._know(self._running)
        except (LaunchFailed, OSError) as error:
            logger.warning("worker.revival_failed launch_id=%s %s", self.launch_id, error)
            return None
        finally:
            self._close_streams()
        return w.Revived(
            launch_id=self.launch_id,
            identity=identity,
            engine=engine.name,
            engine_version=engine.version,
            started_at_ns=time.time_ns(),
        )

    def let_end(self) -> Steps[None]:
        """Have it end after it was saved: nothing of it is left to do.

        It ends with status 0, as gVisor has it. That is said here and not asked: gVisor of 2022,
        when it may go on and end at once, panics now and then ("Invalid stopCount: -1").
        """
        self._left_in_image = True
        self._close_streams()
        if not isinstance(self._engine, RevivingEngine):
            self.end()
        yield from self.freeze(frozen=False)

    def _close_streams(self) -> None:
        if self._streams is not None:
            self._streams.close()
            self._streams = None

    def contains(self, pid: int) -> bool:
        """Whether a process of the host's belongs to the container."""
        return pid in self.cgroup.pids()

    def end(self) -> None:
        """Kill every process of the container; its exit and its removal follow by themselves."""
        self.cgroup.kill_everyone()
        if self._running is not None and self._running.pidfd is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._running.pidfd.number, signal.SIGKILL)

    def _start(self, request: Callable[[], Steps[Request]], phases: Phases) -> Steps[Running]:
        self._starting = True
        looked_up = None
        try:
            looked_up = yield from request()
            self._engine = looked_up.engine
            return (
                yield from start_container(
                    looked_up,
                    self._machine,
                    stage=self._stage,
                    cgroup=self.cgroup,
                    phases=phases,
                )
            )
        except LaunchFailed:
            raise
        except Exception as error:
            logger.exception("worker.launch_crashed launch_id=%s", self.launch_id)
            reason = f"a defect of the worker: {type(error).__name__}: {error}"
            raise LaunchFailed("create", reason) from error
        finally:
            self._starting = False
            if looked_up is not None:
                looked_up.close()

    def _live(self, running: Running, phases: Phases) -> Steps[None]:
        assert self._engine is not None
        self._running = running
        self.phase = "running"
        reached("launch.unrecorded")
        identity = self._know(running)
        yield from until_executed(running, phases)
        reached("launch.done")
        self._settled()
        cpu_ns = (self.usage().cpu_ns or 0) if self.command.held_image else 0
        self._reports.started(self.launch_id, identity, self._engine, phases, cpu_ns=cpu_ns)
        reached("launch.reported")
        report = yield from self._engine.wait(running)
        while (successor := (yield from self._successor(running))) is not None:
            running = successor
            report = yield from self._engine.wait(running)
        if self._left_in_image:
            report = ExitReport(status=0, source=report.source, at_ns=report.at_ns)
        reached("exit.seen")
        self.phase = "exited"
        oom = self.cgroup.ran_out_of_memory()
        self._reports.exited(self.launch_id, report, oom=oom)
        yield from self._finish()

    def _successor(self, running: Running) -> Steps[Running | None]:
        """What a container goes on as of which only the process that was saved has ended."""
        while self._streams is not None:
            yield Pause(seconds=REVIVAL_POLL_SECONDS)
        if self._running is running:
            return None
        running.close()
        return self._running

    def _know(self, running: Running) -> w.PidIdentity:
        """Leave word of the process for the next worker."""
        self.identity = identity = running.identity(self._machine.boot_id)
        # First, so that whoever reads that it runs can learn how it ended.
        if running.pidfd is not None:
            self._machine.keeping.keep(self.launch_id, running.pidfd)
        self._machine.records.running(self.command, identity)
        return identity

    def _fail(self, failure: LaunchFailed) -> Steps[None]:
        leftovers = yield from self._clean_up()
        if leftovers:
            logger.error("worker.leftovers launch_id=%s %s", self.launch_id, "; ".join(leftovers))
        self._told_failed(failure)
        self._depart(leftovers)

    def _told_failed(self, failure: LaunchFailed) -> None:
        self.phase = "failed"
        self._reports.start_failed(self.launch_id, failure)
        self._settled()

    def _finish(self) -> Steps[None]:
        # How it ended is told, if not by this worker then by the one before.
        self._machine.keeping.drop(self.launch_id)
        self._depart((yield from self._clean_up()))

    def _depart(self, leftovers: list[str]) -> None:
        reached("launch.cleaned")
        if leftovers:
            self._machine.records.left(self.command)
        else:
            self._machine.records.remove(self.command.engine_id)
        self._leave(leftovers)

    def _leave(self, leftovers: list[str]) -> None:
        if self.destroy_wanted:
            self._reports.destroyed(self.launch_id, tuple(leftovers))

    def _clean_up(self) -> Steps[list[str]]:
        """Remove every trace; returns what could not be removed."""
        leftovers: list[str] = []
        try:
            leftovers += yield from emptying.empty(self.cgroup)
            # What was executed in it is dead by now, and to be told before its container is gone.
            yield from emptying.until(lambda: not self.executing)
            if self._engine is not None:
                leftovers += yield from self._engine.clean_up(self.command.engine_id)
            leftovers += self._stage.remove()
            leftovers += yield from emptying.remove(self.cgroup)
        except Exception as error:
            logger.exception("worker.clean_up_crashed launch_id=%s", self.launch_id)
            leftovers.append(f"{type(error).__name__}: {error}")
        finally:
            if self._running is not None:
                self._running.close()
        return leftovers
