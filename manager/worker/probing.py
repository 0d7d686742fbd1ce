"""Find out which engines work here, by starting a container with each, and whether CRIU does.

What is found is remembered for as long as the program and the boot of the machine are the same;
a failure is not: it may have been the machine's mood.
"""

import logging
import os
import platform
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from manager.domain.payload import LaunchPlan, LayerPlan
from manager.kernel import mount
from manager.schema import worker as w
from manager.urpc.fds import FdBundle, OwnedFd
from manager.worker.criu import NAME, Criu, try_criu
from manager.worker.engine import Engine
from manager.worker.engines import Program
from manager.worker.errors import LaunchAborted
from manager.worker.launch import Launch
from manager.worker.loop import Loop, Pause, Steps, Task
from manager.worker.machine import Machine
from manager.worker.outbox import Outbox
from manager.worker.records import TRIAL_PREFIX
from manager.worker.reports import Reports
from manager.worker.starting import Request
from manager.worker.tiny_program import tiny_program

logger = logging.getLogger(__name__)

PROBE_SECONDS: Final = 10.0
"""Longest time for a container that does nothing, from its launch to its end."""

BREAK_OFF_SECONDS: Final = 25.0
"""Longest wait for a trial that is broken off: more than an engine that hangs is given to create a
container, and then to delete it."""

POLL_SECONDS: Final = 0.01

PROGRAM_NAME: Final = "probe"


class _Proof(Struct, frozen=True, kw_only=True):
    """An engine, or CRIU, has worked: this program, on this boot."""

    path: str
    size_bytes: int
    modified_ns: int
    boot_id: str


class Prober:
    """Tries engines out.

    Args:
        loop: Runs the trials.
        machine: What launches share.
        programs: The engines' programs.
        criu: Told what stands in its way, if anything does.
        memory: File with the proofs of earlier trials.
    """

    def __init__(
        self,
        loop: Loop,
        machine: Machine,
        programs: Sequence[Program],
        criu: Criu,
        memory: Path,
    ) -> None:
        self._loop = loop
        self._machine = machine
        self._programs = {program.name: program for program in programs}
        self._criu = criu
        self._memory = memory
        self._proofs = self._read_proofs()
        self._problems = {name: each.problem for name, each in self._programs.items()}
        self._pending: set[str] = set()
        self._left: Callable[[], None] | None = None

    def begin(self, missing: str, done: Callable[[], None]) -> None:
        """Start the trials that are needed.

        Args:
            missing: What this machine lacks altogether: then no engine works.
            done: Called once, when every engine has been tried, unless they are to :meth:`leave`.
        """
        if missing:
            self._problems = {name: each or missing for name, each in self._problems.items()}
        untried = [] if missing or tiny_program(platform.machine()) is None else self._untried()
        trials = {engine.name: self._try(engine) for engine in untried}
        if self._criu.path is not None:
            trials[NAME] = self._try_criu(self._criu.path)
        self._pending = set(trials)
        for name, trial in trials.items():
            self._loop.start(self._until_all_are_done(name, trial, done))
        if not trials:
            done()

    def leave(self, left: Callable[[], None]) -> None:
        """Break off what is under way, so that nothing of a trial stays behind.

        This may be called at any moment, by a signal, and more than once.

        Args:
            left: Called when no trial is under way any more; at once, if none is now.
        """
        self._left = left
        if not self._pending:
            left()

    def reports(self) -> tuple[w.EngineReport, ...]:
        """What was found out, one for each engine."""
        engines: Mapping[str, Engine] = self._machine.engines
        return tuple(
            w.EngineReport(
                name=name,
                works=not self._problems[name],
                path=str(program.path or ""),
                version=program.version,
                problem=self._problems[name],
                lacks=tuple(sorted(engines[name].lacks)) if name in engines else (),
                why_not=_reasons(engines[name]) if name in engines else {},
            )
            for name, program in self._programs.items()
        )

    def _until_all_are_done(
        self, name: str, trial: Steps[None], done: Callable[[], None]
    ) -> Steps[None]:
        if self._left is None:
            yield from trial
        self._pending.discard(name)
        if self._pending:
            return
        try:
            self._memory.write_bytes(msgspec.json.encode(self._proofs))
        except OSError as error:
            logger.warning("worker.trials_not_remembered %s", error)
        (self._left or done)()

    def _try_criu(self, path: Path) -> Steps[None]:
        proof = self._proof(path)
        if self._proofs.get(NAME) == proof:
            self._criu.problem = ""
            return
        machine = self._machine
        self._criu.problem = yield from try_criu(path, machine.processes, machine.nothing.number)
        if not self._criu.problem:
            self._proofs[NAME] = proof

    def _try(self, engine: Engine) -> Steps[None]:
        outcomes: list[w.Outcome] = []
        reports = Reports(Outbox(outcomes.append))
        launch = Launch(_command(engine.name), self._machine, reports, lambda: None)
        task = self._loop.start(launch.life(lambda: self._request(launch.command, engine)))
        yield from _until(lambda: task.done or self._left is not None, PROBE_SECONDS)
        self._problems[engine.name] = _problem(outcomes)
        if not self._problems[engine.name]:
            self._proofs[engine.name] = self._proof(engine.path)
        if not task.done:
            yield from _break_off(launch, task)

    def _untried(self) -> list[Engine]:
        engines = self._machine.engines.values()
        return [
            engine
            for engine in engines
            if self._proofs.get(engine.name) != self._proof(engine.path)
        ]

    def _request(self, command: w.Launch, engine: Engine) -> Steps[Request]:
        nothing = self._machine.nothing
        fds = FdBundle([nothing.dup(), nothing.dup(), nothing.dup(), _root()])
        return Request(
            command=command,
            spec=msgspec.json.encode(_spec()),
            fds=fds,
            terminal=None,
            engine=engine,
            namespaces={},
        )
        yield  # a generator, as others have to wait here

    def _proof(self, path: Path) -> _Proof:
        status = path.stat()
        return _Proof(
            path=str(path),
            size_bytes=status.st_size,
            modified_ns=status.st_mtime_ns,
            boot_id=self._machine.boot_id,
        )

    def _read_proofs(self) -> dict[str, _Proof]:
        try:
            return msgspec.json.decode(self._memory.read_bytes(), type=dict[str, _Proof])
        except (OSError, msgspec.MsgspecError):
            return {}


def _until(come: Callable[[], bool], seconds: float) -> Steps[None]:
    for _ in range(int(seconds / POLL_SECONDS)):
        if come():
            return
        yield Pause(seconds=POLL_SECONDS)


def _break_off(launch: Launch, task: Task) -> Steps[None]:
    """Have a trial end, and what it has made removed."""
    if launch.interruptible:
        task.throw(LaunchAborted())
    else:
        launch.end()
    yield from _until(lambda: task.done, BREAK_OFF_SECONDS)


def _reasons(engine: Engine) -> dict[str, str]:
    return {str(feature): why for feature, why in engine.why_not.items()}


def _command(engine: str) -> w.Launch:
    return w.Launch(
        launch_id=f"{TRIAL_PREFIX}{engine}",
        engine_id=uuid.uuid4().hex,
        engine=engine,
        spec=b"",
        plan=LaunchPlan(stdio=(0, 1, 2), root=LayerPlan(lower="lisafs", lower_fd=3)),
    )


def _spec() -> dict[str, object]:
    return {
        "ociVersion": "1.0.2",
        "process": {"args": [f"/{PROGRAM_NAME}"], "cwd": "/", "env": []},
        "root": {"path": "/", "readonly": False},
    }


def _root() -> OwnedFd:
    """A detached root filesystem with nothing but the program."""
    program = tiny_program(platform.machine())
    assert program is not None
    root = mount.tmpfs()
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    with open(os.open(PROGRAM_NAME, flags, 0o755, dir_fd=root.number), "wb") as file:
        file.write(program)
    return root


def _problem(outcomes: Sequence[w.Outcome]) -> str:
    for outcome in outcomes:
        if isinstance(outcome, w.StartFailed):
            return outcome.reason
        if isinstance(outcome, w.Exited):
            return "" if outcome.status == 0 else f"a trial ended with status {outcome.status}"
    return f"a trial took more than {PROBE_SECONDS:g} seconds"
