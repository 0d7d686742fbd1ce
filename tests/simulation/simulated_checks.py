"""What must be true, whatever happened."""

from collections import Counter
from typing import Any

from manager.application import live_sandbox
from manager.application.live_sandbox import LiveSandbox
from manager.domain import commands as c
from manager.domain.decide import decide
from manager.domain.events import Event
from manager.domain.evolve import fold
from manager.domain.exit_status import Exited, Signaled, to_wait_status
from manager.domain.state import ALIVE, Sandbox
from manager.schema.events import decode_event
from manager.schema.node_fold import STREAM_PREFIX
from tests.simulation.simulated_clients import Answered
from tests.simulation.simulated_service import Life, World

NOT_FOUND = " not found"


class Decisions:
    """Every decision that was made, so that it can be made again."""

    def __init__(self) -> None:
        self.made: list[tuple[Sandbox, c.Command, tuple[Event, ...]]] = []

    def decide(self, state: Sandbox, command: c.Command) -> tuple[Event, ...]:
        events = decide(state, command)
        self.made.append((state, command, events))
        return events

    def check(self) -> None:
        """Deciding again, on what the log says, decides the same."""
        for state, command, events in self.made:
            assert decide(state, command) == events, command


def watch(world: World, monkeypatch: Any) -> Decisions:
    """Compare what is live with what is committed, after every event."""
    decisions = Decisions()
    monkeypatch.setattr(live_sandbox, "decide", decisions.decide)
    fulfil = LiveSandbox._fulfil
    folded: dict[str, list[Sandbox]] = {}

    def compare(live: LiveSandbox, event: Event) -> None:
        fulfil(live, event)
        stream = live._stream
        states = folded.setdefault(stream, [Sandbox()])
        records = world.log._history.streams.get(stream, [])
        for record in records[len(states) - 1 :]:
            states.append(fold([decode_event(record.type, record.data)], states[-1]))
        assert states[live.version] == live.state, f"{stream} at {live.version}"

    monkeypatch.setattr(LiveSandbox, "_fulfil", compare)
    world.copied.append(folded.clear)
    return decisions


def states_of(world: World) -> dict[str, Sandbox]:
    """Every sandbox, folded from the log alone."""
    found: dict[str, Sandbox] = {}
    for record in world.log._history.records:
        if record.stream.startswith(STREAM_PREFIX):
            before = found.get(record.stream, Sandbox())
            found[record.stream] = fold([decode_event(record.type, record.data)], before)
    return found


def check_live(life: Life, world: World) -> None:
    """What is live is what the log says, neither more nor less."""
    assert life.node is not None
    live = {STREAM_PREFIX + key: sandbox.state for key, sandbox in life.node.registry.all().items()}
    lasting = {
        stream: state
        for stream, state in states_of(world).items()
        if state.phase not in {"absent", "deleted"}
    }
    assert live == lasting


def check_settled(world: World) -> None:
    """Every intent has its outcome."""
    for stream, state in states_of(world).items():
        for container in state.containers.values():
            assert container.status != "starting", f"{stream} {container}"
            assert not container.destroying, f"{stream} {container}"
            for execution in container.executions.values():
                assert execution.status != "starting", f"{stream} {execution}"
                alive = container.status in ALIVE
                assert alive or execution.status != "running", f"{stream} {execution}"
        assert state.signals == {}, stream
        assert state.pausing is None, stream
        assert state.checkpointing is None, stream
        assert not state.deleting, stream
        undone = {key: each for key, each in state.requests.items() if not each.done}
        assert undone == {}, stream


def check_machine(world: World) -> None:
    """The log and the machine agree on what ran, how often, and how it ended."""
    machine = world.machine
    assert {name: n for name, n in machine.spawned.items() if n > 1} == {}, "started twice"
    started: Counter[str] = Counter()
    ended: dict[str, Any] = {}
    interrupted: set[str] = set()
    for record in world.log._history.records:
        if not record.stream.startswith(STREAM_PREFIX):
            continue
        event = decode_event(record.type, record.data)
        name = getattr(event, "exec_id", "") or getattr(event, "launch_id", "")
        match record.type:
            case "container.started" | "sandbox.started" | "process.executed":
                started[name] += 1
            case "container.exited" | "process.exited":
                assert name not in ended or ended[name] == "lost", f"{name} ended twice"
                status = event.exit
                known = isinstance(status, Exited | Signaled)
                ended[name] = to_wait_status(status) if known else "unknown"
            case "container.lost" | "process.lost":
                ended.setdefault(name, "lost")
            case "container.start_failed" | "sandbox.start_failed" | "process.exec_failed":
                if event.failure.stage != "aborted":
                    interrupted.add(name)
    assert {name: n for name, n in started.items() if n > 1} == {}, "told twice to have started"
    forgotten = machine.forgotten
    ran = {name for name in interrupted if machine.spawned[name]} - machine.cut_short
    assert ran == set(), f"ran, and were said not to: {ran}"
    assert {name for name in started if not machine.spawned[name]} == set(), "never ran"
    wrong = {
        name: (status, ended.get(name))
        for name, status in machine.exits.items()
        if name not in forgotten | world.before_copies and ended.get(name) != status
    }
    assert wrong == {}, f"lost exits: {wrong}"
    guessed = {
        name: (machine.exits.get(name), ended[name])
        for name in world.before_copies & ended.keys()
        if ended[name] not in {machine.exits.get(name), "lost", "unknown"}
    }
    assert guessed == {}, f"guessed from an older log: {guessed}"
    alive = {
        container.intent.launch_id
        for state in states_of(world).values()
        for container in state.containers.values()
        if container.status in ALIVE and container.intent is not None
    }
    running = {p.launch_id for p in machine.processes.values() if p.status is None}
    assert running == alive, "what runs is not what the log says"
    paused = {
        container.intent.launch_id
        for state in states_of(world).values()
        for container in state.containers.values()
        if container.status == "paused" and container.intent is not None
    }
    assert machine.frozen & running == paused, "what is frozen is not what the log says"


def check_answers(world: World, answers: list[Answered]) -> None:
    """What a client was told is what the log says."""
    states = states_of(world)
    for answer in answers:
        state = states.get(STREAM_PREFIX + answer.sandbox)
        if answer.error.endswith(NOT_FOUND) or answer.what == "wait":
            continue
        assert state is not None, answer
        recorded = state.requests.get(answer.request_id)
        assert recorded is not None, answer
        assert recorded.done, answer
        if answer.what == "execute" and answer.error.endswith(" has stopped"):
            continue  # asked again when its container was destroyed: which PID, nobody knows now
        assert recorded.error == answer.error, f"{answer} {recorded}"
