"""All launches: what is known, what waits its turn, what is under way."""

import contextlib
import errno
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from msgspec.structs import replace

from manager.domain.payload import LaunchPlan
from manager.kernel.donated import make_portable
from manager.kernel.fail_points import reached
from manager.schema import worker as w
from manager.urpc.fds import FdBundle, OwnedFd
from manager.worker.adoption import bare_command, kill_engine_processes, remaining_life
from manager.worker.delivery import Delivery, Target, to_the_dead
from manager.worker.errors import EngineIdTaken, LaunchAborted, LaunchFailed
from manager.worker.execs import Execs
from manager.worker.holds import Holds
from manager.worker.joining import join_namespaces
from manager.worker.launch import Launch
from manager.worker.leftovers import ENGINE_ID, Leftover
from manager.worker.loop import Loop, Pause, Steps, Task
from manager.worker.machine import Machine
from manager.worker.outbox import Outbox
from manager.worker.records import LEFTOVER_PREFIX, PRIVATE_PREFIXES, TRIAL_PREFIX, Record
from manager.worker.reports import Reports
from manager.worker.starting import Request
from manager.worker.turns import Turns

logger = logging.getLogger(__name__)

LAUNCHES_REMEMBERED_MAX: Final = 100_000
"""Ids of launches that are over, so that a command sent twice does not start twice."""

KILLS_REMEMBERED_MAX: Final = 10_000
"""Ids of signals that were delivered, so that none is delivered twice."""

ENGINE_ID_POLL_SECONDS: Final = 0.01
ENGINE_ID_ROUNDS_MAX: Final = 300
"""How often, and how many times, to look whether a saved container's remains are gone."""


def _nothing_to_settle() -> None:
    """A launch that was not queued frees no place."""


def _to_nobody(outcome: w.Outcome) -> None:
    """No manager has asked for a trial."""


class Launches:
    """Does what the manager asks of containers, once for each id.

    Args:
        loop: Runs the tasks.
        machine: Shared by all launches.
        holds: Where held descriptors are.
        outbox: Where outcomes go.
        changed: Called when something ended, so that a worker that is to stop can.

    Attributes:
        execs: What is executed in them.
        leftovers: What former workers had left behind and this one has set about to remove.
    """

    def __init__(
        self,
        loop: Loop,
        machine: Machine,
        holds: Holds,
        outbox: Outbox,
        changed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._machine = machine
        self._holds = holds
        self._outbox = outbox
        self._reports = Reports(outbox)
        self._changed = changed
        self.execs = Execs(loop, machine, self, outbox, changed)
        self.leftovers: tuple[str, ...] = ()
        self._known: dict[str, Launch] = {}
        self._tasks: dict[str, Task] = {}
        self._turns = Turns(loop, self._start)
        self._over: OrderedDict[str, None] = OrderedDict()
        self._kills: OrderedDict[str, Delivery | None] = OrderedDict()

    @property
    def idle(self) -> bool:
        """Whether nothing runs, starts or waits."""
        return not self._known and self.execs.idle

    def running(self, launch_id: str) -> Launch | None:
        """The launch of that id, if it is known, whatever its phase."""
        return self._known.get(launch_id)

    def executed(self, launch_id: str) -> frozenset[int]:
        """What runs of all that was executed in it, by numbers of its PID namespace."""
        return self.execs.numbers(launch_id)

    def facts(self) -> tuple[w.LaunchFact, ...]:
        """Every launch of a manager's that is not over."""
        return tuple(
            launch.fact()
            for launch in self._known.values()
            if not launch.launch_id.startswith(PRIVATE_PREFIXES)
        )

    def retell(self) -> None:
        """Say again of each container and each executed process that it runs."""
        for launch in self._known.values():
            if launch.inside is not None and launch.identity is not None:
                self._reports.runs(launch.launch_id, launch.identity, launch.inside[0])
        self.execs.retell()

    def launch(self, command: w.Launch, fds: FdBundle) -> None:
        """Start a container when its turn comes; ownership of `fds` moves in."""
        if command.launch_id in self._known or command.launch_id in self._over:
            fds.close()
            self._outbox.send_again(command.launch_id)
            return
        reached("launch.received")
        settled = partial(self._turns.settled, command)
        launch = Launch(command, self._machine, self._reports, settled)
        self._known[command.launch_id] = launch
        self._turns.wait(launch, fds)

    def kill(self, command: w.Kill) -> None:
        """Deliver a signal."""
        if command.kill_id in self._kills:
            result = self._kills[command.kill_id]
            if result is not None and not self._outbox.send_again(command.kill_id):
                self._reports.killed(command, result)
            return
        self._kills[command.kill_id] = None
        if len(self._kills) > KILLS_REMEMBERED_MAX:
            self._kills.popitem(last=False)
        self._loop.start(self._kill(command))

    def freeze(self, command: w.Freeze) -> None:
        """Stop launches, or let them go on."""
        if not self._outbox.send_again(command.pause_id):
            self._loop.start(self._freeze(command))

    def answer(self, command: w.Ask, answer: Callable[[w.Answer], None]) -> None:
        """Look at launches."""
        self._loop.start(self._answer(command, answer))

    def destroy(self, command: w.Destroy) -> None:
        """End and remove a container in whatever phase it is."""
        launch = self._known.get(command.launch_id)
        if launch is None:
            if not self._outbox.send_again(command.launch_id, w.Destroyed):
                self._reports.destroyed(command.launch_id)
            return
        if launch.destroy_wanted:
            return
        launch.destroy_wanted = True
        reached("destroy.received")
        if launch.interruptible:
            self._tasks[launch.launch_id].throw(LaunchAborted())
        elif launch.phase == "running":
            launch.end()
        else:
            self._withdraw(launch)

    def adopt_all(self, kept: dict[str, OwnedFd]) -> None:
        """Go on with what a former worker, which was killed, has left; once, before anything.

        Args:
            kept: Pidfds that it had kept, by launch; ownership moves in.
        """
        self.execs.retell()
        told = self._outbox.inherit()
        leftovers, records = self._machine.take_stock()
        self.leftovers = tuple(trace for leftover in leftovers for trace in leftover.found)
        for leftover in leftovers:
            self._remove(leftover)
        for record in records:
            is_trial = record.launch_id.startswith(TRIAL_PREFIX)
            reports = Reports(Outbox(_to_nobody)) if is_trial else self._reports
            launch = Launch(bare_command(record), self._machine, reports, _nothing_to_settle)
            handle = kept.pop(record.launch_id, None)
            if record.launch_id in told:
                if handle is not None:
                    handle.close()
                steps = launch.told_life(self._machine.engine_of(record.engine))
            else:
                steps = remaining_life(launch, record, self._machine, handle)
            self._known[launch.launch_id] = launch
            self._begin(launch, steps)
        self.execs.adopt_all(kept, told)
        for name, handle in kept.items():
            handle.close()
            self._machine.keeping.drop(name)

    def _remove(self, leftover: Leftover) -> None:
        """Clean up after a launch that nobody waits for; what stays is found by the next worker."""
        launch = Launch(
            bare_command(
                Record(
                    launch_id=LEFTOVER_PREFIX + leftover.engine_id,
                    engine_id=leftover.engine_id,
                    engine=leftover.engine,
                    boot_id=self._machine.boot_id,
                )
            ),
            self._machine,
            Reports(Outbox(_to_nobody)),
            _nothing_to_settle,
        )
        self._known[launch.launch_id] = launch
        kill_engine_processes(leftover.engine_id)
        self._begin(launch, launch.told_life(self._machine.engine_of(leftover.engine)))

    def _start(self, launch: Launch, fds: FdBundle) -> None:
        self._begin(launch, launch.life(partial(self._look_up, launch.command, fds)))

    def _withdraw(self, launch: Launch) -> None:
        """Give up a launch that still waits for its turn; any other is on its way out already."""
        fds = self._turns.withdraw(launch)
        if fds is not None:
            fds.close()
            self._begin(launch, launch.abandoned_life(None, LaunchAborted()))

    def _begin(self, launch: Launch, steps: Steps[None]) -> None:
        task = self._loop.start(self._whole(launch, steps))
        if not task.done:
            self._tasks[launch.launch_id] = task

    def _whole(self, launch: Launch, steps: Steps[None]) -> Steps[None]:
        error = yield from self._crash_of(launch, steps)
        if error is not None:
            yield from self._crash_of(launch, launch.crashed_life(error))
        del self._known[launch.launch_id]
        self._tasks.pop(launch.launch_id, None)
        self._over[launch.launch_id] = None
        if len(self._over) > LAUNCHES_REMEMBERED_MAX:
            self._over.popitem(last=False)
        self._changed()

    def _crash_of(self, launch: Launch, steps: Steps[None]) -> Steps[Exception | None]:
        try:
            yield from steps
        except Exception as error:
            logger.exception("worker.life_crashed launch_id=%s", launch.launch_id)
            return error
        return None

    def _kill(self, command: w.Kill) -> Steps[None]:
        launch = self._known.get(command.launch_id)
        target = Target(pid=command.pid, mode=command.mode)
        delivery = to_the_dead(target)
        if launch is not None:
            delivery = yield from launch.signal(command.signo, target)
            if delivery.why in {"no-process", "no-group"}:
                delivery = self._find_owner(launch, target) or delivery
        reached("kill.delivered")
        self._kills[command.kill_id] = delivery
        self._reports.killed(command, delivery)

    def _find_owner(self, launch: Launch, target: Target) -> Delivery | None:
        """Look among those who share a PID namespace for whom a number really belongs to."""
        for other in self._known.values():
            if other is not launch and other.shares_numbers(launch) and other.has(target):
                return Delivery(errno=errno.ESRCH, why="other-container", owner=other.launch_id)
        return None

    def _freeze(self, command: w.Freeze) -> Steps[None]:
        done: list[Launch] = []
        error = ""
        for launch in self._named(command.launch_ids):
            error = yield from launch.freeze(frozen=command.frozen)
            if error:
                break
            done.append(launch)
        if error:
            for launch in done:
                yield from launch.freeze(frozen=not command.frozen)
        self._reports.frozen(command.pause_id, error)

    def _answer(self, command: w.Ask, answer: Callable[[w.Answer], None]) -> Steps[None]:
        launches = self._named(command.launch_ids)
        if command.what == "usage":
            usages = tuple(launch.usage() for launch in launches)
            answer(w.Answer(ask_id=command.ask_id, usages=usages))
            return
        found = w.Answer(ask_id=command.ask_id)
        for launch in launches:
            more = yield from launch.processes(details=command.what == "details")
            found = replace(found, processes=(*found.processes, *more))
        answer(found)

    def _named(self, launch_ids: Sequence[str]) -> list[Launch]:
        return [self._known[each] for each in launch_ids if each in self._known]

    def _look_up(self, command: w.Launch, fds: FdBundle) -> Steps[Request]:
        """Find what a command names.

        Raises:
            LaunchFailed: Stage `hold`, `namespaces`, `restore` or `create`; everything is closed.
        """
        with contextlib.ExitStack() as owned:
            owned.callback(fds.close)
            given = self._take_namespaces(command, fds, owned)
            yield from self._until_free(command)
            engine = self._machine.engines.get(command.engine)
            if engine is None:
                raise LaunchFailed("create", f"no engine named {command.engine!r} works here")
            if not ENGINE_ID.fullmatch(command.engine_id):
                raise LaunchFailed("create", "an engine id is 32 hexadecimal digits")
            spec = command.spec
            if command.held_fds is not None:
                held = self._holds.take(command.held_fds)
                fds.close()
                fds = held.fds
                owned.callback(fds.close)
                spec = spec or held.spec
            if self._machine.rootless:
                fds = _portable(command.plan, fds)
                owned.callback(fds.close)
            terminal = self._take_terminal(command, owned)
            image = self._take_image(command, owned)
            namespaces = {}
            if engine.joins_namespaces:
                namespaces = yield from join_namespaces(command, given, self.running, owned)
            owned.pop_all()
        return Request(
            command=command,
            spec=spec,
            fds=fds,
            terminal=terminal,
            engine=engine,
            namespaces=namespaces,
            image=image,
        )

    def _until_free(self, command: w.Launch) -> Steps[None]:
        """Wait until nothing has the engine id any more: an image brings back one that was used."""
        for _ in range(ENGINE_ID_ROUNDS_MAX):
            if not any(
                other.command.engine_id == command.engine_id
                for other in self._known.values()
                if other.launch_id != command.launch_id
            ):
                return
            yield Pause(seconds=ENGINE_ID_POLL_SECONDS)
        raise EngineIdTaken

    def _take_image(self, command: w.Launch, owned: contextlib.ExitStack) -> OwnedFd | None:
        if not command.held_image:
            return None
        with self._holds.lend(command.held_image) as lent:
            image = lent.take_first()
        owned.callback(image.close)
        return image

    def _take_namespaces(
        self, command: w.Launch, fds: FdBundle, owned: contextlib.ExitStack
    ) -> dict[str, OwnedFd]:
        files = fds.take(max(0, len(fds) - len(command.namespaces)))
        given = {name: fds.take_first() for name in command.namespaces if fds}
        fds.extend(files)
        for namespace in given.values():
            owned.callback(namespace.close)
        return given

    def _take_terminal(self, command: w.Launch, owned: contextlib.ExitStack) -> OwnedFd | None:
        if command.held_tty is None:
            return None
        held = self._holds.take(command.held_tty)
        owned.callback(held.fds.close)
        if len(held.fds) != 1:
            raise LaunchFailed("hold", f"a terminal is one descriptor, {len(held.fds)} were held")
        terminal = held.fds.take_first()
        owned.callback(terminal.close)
        return terminal


def _portable(plan: LaunchPlan, fds: FdBundle) -> FdBundle:
    try:
        return make_portable(plan, fds, by_name=True)
    except OSError as error:
        doing = f"cannot take {error.filename or 'a donated descriptor'} over"
        raise LaunchFailed.from_os("mounts", doing, error) from error
