"""A sandbox's life against a model of the worker that loses, repeats, delays and reorders.

The manager here is the smallest one that obeys the laws: decide, record, fold, react, perform. It
may die between recording and performing; the worker may die at any time. At the end everything
must come to rest: deleted, with no descriptor held and no launch left.
"""

from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from manager.domain import commands as c
from manager.domain import events as e
from manager.domain.decide import decide
from manager.domain.effects import DestroyLaunch, Effect, Launch, ReleaseHold, SendSignal
from manager.domain.evolve import evolve, fold
from manager.domain.exit_status import Exited, Signaled
from manager.domain.query import PENDING, Ended, start_answer, wait_answer
from manager.domain.react import holds, react, resume
from manager.domain.repeat import recorded
from manager.domain.state import ABSENT, ALIVE, Sandbox
from manager.schema.events import decode_event, encode_event
from tests.property.domain_invariants import check_invariants
from tests.unit.domain import builders as b

ERRNO_NO_SUCH_PROCESS: Final = 3
CIDS = ("c1", "c2", "c3")
PICKS = st.integers(0, 9)
CRASHES = st.sampled_from([*[False] * 5, True])
SELDOM = st.sampled_from([*[False] * 7, True])
REQUEST_IDS = st.sampled_from(["", "", "", "r-1", "r-2", "r-3", "r-4", "r-5"])
ROOT = b.SANDBOX


class ModelWorker:
    """Launches by id, holds, and reports that nobody has taken yet."""

    def __init__(self) -> None:
        self.launches: dict[str, str] = {}
        self.answered: dict[str, c.ReportKilled] = {}
        self.holds: set[str] = set()
        self.outbox: list[c.Report] = []

    def perform(self, effect: Effect) -> None:
        match effect:
            case Launch():
                self._launch(effect)
            case SendSignal():
                self._signal(effect)
            case DestroyLaunch(launch_id=launch_id):
                self._destroy(launch_id)
            case ReleaseHold(hold_id=hold_id):
                self.holds.discard(hold_id)

    def _launch(self, effect: Launch) -> None:
        launch_id = effect.intent.launch_id
        if launch_id in self.launches:
            return
        for hold in (effect.held_fds, effect.held_tty):
            if hold is not None:
                assert hold in self.holds, "a launch names a hold that is gone"
                self.holds.discard(hold)
        self.launches[launch_id] = "launching"

    def _signal(self, effect: SendSignal) -> None:
        """The worker acts once on a kill id and repeats its answer."""
        if effect.kill_id not in self.answered:
            runs = self.launches.get(effect.launch_id) == "running"
            errno = None if runs else ERRNO_NO_SUCH_PROCESS
            self.answered[effect.kill_id] = c.ReportKilled(kill_id=effect.kill_id, errno=errno)
            if runs and effect.signo == 9:
                self.exit(effect.launch_id, Signaled(signal=9))
        self.outbox.append(self.answered[effect.kill_id])

    def _destroy(self, launch_id: str) -> None:
        match self.launches.pop(launch_id, "gone"):
            case "launching":
                self.outbox.append(
                    c.ReportStartFailed(launch_id=launch_id, stage="aborted", reason="destroyed")
                )
            case "running":
                self._report_exit(launch_id, Signaled(signal=9))
            case _:
                pass
        self.outbox.append(c.ReportDestroyed(launch_id=launch_id))

    def run(self, launch_id: str) -> None:
        self.launches[launch_id] = "running"
        self.outbox.append(c.ReportStarted(launch_id=launch_id, launched=b.launched()))

    def fail(self, launch_id: str) -> None:
        self.launches[launch_id] = "failed"
        self.outbox.append(
            c.ReportStartFailed(launch_id=launch_id, stage="exec", reason="why", errno=2)
        )

    def exit(self, launch_id: str, status: Any) -> None:
        self.launches[launch_id] = "exited"
        self._report_exit(launch_id, status)

    def _report_exit(self, launch_id: str, status: Any) -> None:
        self.outbox.append(
            c.ReportExited(launch_id=launch_id, exit=status, source="waitid", exited_at_ns=1)
        )

    def in_phase(self, phase: str) -> list[str]:
        return [launch_id for launch_id, found in self.launches.items() if found == phase]


class Lifecycle(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.state: Sandbox = ABSENT
        self.log: list[tuple[str, bytes]] = []
        self.worker = ModelWorker()
        self.taken: list[c.Report] = []
        self.number = 0
        self.exits: dict[str, int] = {}

    # --- the manager -----------------------------------------------------------------------------

    def handle(self, command: c.Command, *, crash: bool = False) -> tuple[e.Event, ...]:
        """Decide, record, fold, react, perform; a crash comes before the first effect."""
        events = decide(self.state, command)
        effects: list[Effect] = []
        for event in events:
            effects += react(self.state, event)
            self.state = evolve(self.state, event)
            self.log.append(encode_event(event))
            if isinstance(event, e.SandboxCreated):
                self.worker.holds |= {event.hold_id, event.tty_hold_id} - {""}
            elif isinstance(event, e.ContainerCreated) and event.hold_id:
                self.worker.holds.add(event.hold_id)
            elif isinstance(event, e.ContainerExited):
                self.exits[event.launch_id] = 1
        if crash:
            self.restart_manager()
        else:
            self.perform(effects)
        return events

    def perform(self, effects: Any) -> None:
        for effect in effects:
            self.worker.perform(effect)

    def settle(self) -> None:
        """What a manager does when it meets a worker."""
        plan = resume(
            self.state,
            launches=frozenset(self.worker.launches),
            held=frozenset(self.worker.holds),
            boot_id="b",
        )
        for report in plan.reports:
            self.handle(report)
        self.perform(plan.effects)
        self.worker.holds &= holds(self.state)

    def next_id(self, kind: str) -> str:
        self.number += 1
        return f"{kind}-{self.number}"

    def choose(self, pick: int, *statuses: str) -> str:
        """A cid: mostly one whose container is in one of these statuses, if there is any."""
        fitting = [
            cid
            for cid in CIDS
            if getattr(self.state.containers.get(cid), "status", "unknown") in statuses
        ]
        if fitting and pick < 8:
            return fitting[pick % len(fitting)]
        return CIDS[pick % len(CIDS)]

    # --- clients ---------------------------------------------------------------------------------

    def call(self, command: c.ClientCommand, *, crash: bool = False) -> None:
        self.handle(command, crash=crash)
        if recorded(self.state, command) is not None:
            assert decide(self.state, command) == ()

    @initialize(grown=st.sampled_from(["running", "started", "created", "running", ""]))
    def begin(self, grown: str) -> None:
        if grown:
            self.create("", terminal=False)
        if grown in {"started", "running"}:
            self.start_root("", crash=False)
            self.worker.run(self.worker.in_phase("launching")[0])
            self.deliver(0, keep=False)
        if grown == "running":
            self.create_subcontainer(0, "", terminal=False, crash=False)
            self.start_subcontainer(0, "", odd=False, crash=False, sent=True)
            self.worker.run(self.worker.in_phase("launching")[0])
            self.deliver(0, keep=False)

    @precondition(lambda self: self.state.phase in {"absent", "deleted"} or self.number % 7 == 0)
    @rule(request_id=REQUEST_IDS, terminal=st.booleans())
    def create(self, request_id: str, *, terminal: bool) -> None:
        files = (b.DIRECTORY,) if terminal else (*b.STDIO, b.DIRECTORY)
        self.call(
            b.create(
                b.a_request(ROOT, files=files, request_id=request_id),
                b.a_spec(process=b.a_process(terminal=terminal)),
                launch_id=self.next_id("L"),
                hold_id=self.next_id("H"),
                tty=b.TTY if terminal else None,
                tty_hold_id=self.next_id("T") if terminal else "",
            )
        )

    @precondition(lambda self: self.state.phase == "created" or self.number % 7 == 0)
    @rule(request_id=REQUEST_IDS, crash=CRASHES)
    def start_root(self, request_id: str, *, crash: bool) -> None:
        self.call(c.StartRoot(request_id=request_id), crash=crash)

    @precondition(lambda self: self.state.phase == "started" or self.number % 7 == 0)
    @rule(pick=PICKS, request_id=REQUEST_IDS, terminal=st.booleans(), crash=CRASHES)
    def create_subcontainer(
        self, pick: int, request_id: str, *, terminal: bool, crash: bool
    ) -> None:
        cid = self.choose(pick, "unknown", "destroyed")
        self.call(
            c.CreateSubcontainer(
                cid=cid,
                files=(b.TTY,) if terminal else (),
                hold_id=self.next_id("T"),
                request_id=request_id,
            ),
            crash=crash,
        )

    @precondition(lambda self: self.state.phase == "started" or self.number % 7 == 0)
    @rule(pick=PICKS, request_id=REQUEST_IDS, odd=SELDOM, crash=CRASHES, sent=st.booleans())
    def start_subcontainer(
        self, pick: int, request_id: str, *, odd: bool, crash: bool, sent: bool
    ) -> None:
        """``odd``: a process with a terminal where none was donated, or the other way round."""
        cid = self.choose(pick, "creating", "failed")
        found = self.state.container(cid)
        terminal = (found is not None and found.tty_hold is not None) != odd
        files = (b.DIRECTORY,) if terminal else (*b.STDIO, b.DIRECTORY)
        command = b.start(
            cid,
            b.a_spec(process=b.a_process(terminal=terminal)),
            b.a_request(cid, files=files, request_id=request_id),
            launch_id=self.next_id("L"),
        )
        if sent or crash:
            self.call(command, crash=crash)
            return
        # the manager's own part of the launch fails: the worker never hears of it
        before = dict(self.worker.launches), set(self.worker.holds)
        if self.handle(command) and command.launch_id in self.worker.launches:
            self.worker.launches, self.worker.holds = before
            self.handle(
                c.ReportStartFailed(launch_id=command.launch_id, stage="mounts", reason="EINVAL")
            )

    @precondition(lambda self: len(self.state.containers) > 1 or self.number % 7 == 0)
    @rule(pick=PICKS, root=SELDOM, request_id=REQUEST_IDS, crash=CRASHES)
    def destroy(self, pick: int, request_id: str, *, root: bool, crash: bool) -> None:
        cid = ROOT if root else self.choose(pick, "starting", "running", "stopped", "failed")
        self.call(c.DestroySubcontainer(cid=cid, request_id=request_id), crash=crash)

    @precondition(lambda self: self.worker.in_phase("running") or self.number % 7 == 0)
    @rule(
        pick=PICKS,
        root=SELDOM,
        signo=st.sampled_from([0, 9, 15]),
        mode=st.sampled_from([0, 1]),
        request_id=REQUEST_IDS,
        crash=CRASHES,
    )
    def signal(
        self, pick: int, signo: int, mode: int, request_id: str, *, root: bool, crash: bool
    ) -> None:
        cid = ROOT if root else self.choose(pick, "running", "stopped")
        kill_id = self.next_id("K")
        self.call(
            b.kill(cid, signo, mode=mode, kill_id=kill_id, request_id=request_id), crash=crash
        )

    @precondition(lambda self: self.number % 5 == 0)
    @rule(force=st.booleans(), request_id=REQUEST_IDS, crash=CRASHES)
    def delete(self, request_id: str, *, force: bool, crash: bool) -> None:
        self.number += 1
        self.call(c.DeleteSandbox(force=force, request_id=request_id), crash=crash)

    # --- the worker ------------------------------------------------------------------------------

    @precondition(lambda self: self.worker.in_phase("launching"))
    @rule(works=st.integers(0, 3), pick=PICKS)
    def launch_ends(self, works: int, pick: int) -> None:
        waiting = self.worker.in_phase("launching")
        launch_id = waiting[pick % len(waiting)]
        if works:
            self.worker.run(launch_id)
        else:
            self.worker.fail(launch_id)

    @precondition(lambda self: self.worker.in_phase("running"))
    @rule(pick=PICKS)
    def process_exits(self, pick: int) -> None:
        running = self.worker.in_phase("running")
        self.worker.exit(running[pick % len(running)], Exited(code=0))

    @precondition(lambda self: self.worker.outbox)
    @rule(pick=PICKS, keep=st.booleans())
    def deliver(self, pick: int, *, keep: bool) -> None:
        """Any report at any time; one that is kept will come again."""
        at = pick % len(self.worker.outbox)
        report = self.worker.outbox[at] if keep else self.worker.outbox.pop(at)
        self.take(report)

    def take(self, report: c.Report) -> None:
        self.handle(report)
        assert decide(self.state, report) == ()
        self.taken.append(report)

    @precondition(lambda self: self.taken)
    @rule(pick=st.integers(0, 99))
    def deliver_again(self, pick: int) -> None:
        self.handle(self.taken[pick % len(self.taken)])

    @rule()
    def time_passes(self) -> None:
        """Ids go on, and with them what is seldom tried becomes possible."""
        self.number += 1

    # --- crashes ---------------------------------------------------------------------------------

    @precondition(lambda self: self.number % 4 == 0)
    @rule()
    def restart_manager(self) -> None:
        replayed = fold(decode_event(tag, data) for tag, data in self.log)
        assert replayed == self.state
        self.settle()

    @precondition(lambda self: self.number % 6 == 0)
    @rule()
    def worker_dies(self) -> None:
        self.number += 1
        self.worker = ModelWorker()
        self.settle()

    # --- what must hold --------------------------------------------------------------------------

    @invariant()
    def state_is_sound(self) -> None:
        check_invariants(self.state)

    @invariant()
    def no_hold_is_forgotten(self) -> None:
        assert self.worker.holds <= holds(self.state)

    @invariant()
    def recorded_ends_stay_known(self) -> None:
        for cid, found in self.state.containers.items():
            if found.intent is not None and found.intent.launch_id in self.exits:
                assert isinstance(wait_answer(self.state, cid), Ended)

    def teardown(self) -> None:
        """Faults stop; whatever was begun comes to an outcome."""
        self.drain()
        assert self.state.signals == {}
        if self.state.phase == "stopped":
            assert not {found.status for found in self.state.containers.values()} & ALIVE
        for found in self.state.containers.values():
            if found.intent is not None and found.status != "creating":
                assert start_answer(self.state, found.cid, found.intent.launch_id) != PENDING
        assert all(outcome.done for outcome in self.state.requests.values())
        self.handle(c.DeleteSandbox(force=True))
        self.drain()
        assert self.state.phase in {"absent", "deleted"}
        assert self.worker.holds == set()
        left = set(self.worker.launches) - set(self.worker.in_phase("failed"))
        assert left == set(), "only a failed launch needs no destroy: nothing of it is left"
        self.state_is_sound()

    def drain(self) -> None:
        while self.worker.outbox or self.worker.in_phase("launching"):
            for launch_id in self.worker.in_phase("launching"):
                self.worker.run(launch_id)
            while self.worker.outbox:
                self.take(self.worker.outbox.pop(0))


@pytest.mark.parametrize(("steps", "examples"), [(12, 200), (40, 300)])
def test_lifecycle(steps: int, examples: int) -> None:
    run_state_machine_as_test(
        Lifecycle,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
