"""A machine with processes, and a worker on it that can be killed: the real one's conversation.

The machine is the truth that the log is compared with: what ran, how often, and how it ended.
A worker keeps in memory and on "disk" what the real one keeps there.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Sequence

import anyio
from msgspec import Struct
from msgspec.structs import replace

from manager.application.errors import WorkerGone
from manager.domain.react import AS_RECORDED
from manager.schema import worker as w
from manager.urpc.fds import FdBundle
from tests.simulation.simulated_time import SimulatedLoop

ENGINE = w.EngineReport(name="crun", works=True, version="1.0-simulated")
SIGKILL = 9
SIGTERM = 15
ESRCH = 3
NS = 1_000_000_000


class Record(Struct, kw_only=True):
    """A worker's file about a launch or an exec."""

    launch_id: str
    exec_id: str = ""
    engine_id: str = ""
    boot: int
    identity: w.PidIdentity | None = None
    number: int = 0


class Process(Struct, kw_only=True):
    """A container's init, or what was executed in it."""

    name: str
    launch_id: str
    identity: w.PidIdentity
    status: int | None = None


class Machine:
    """What outlives a service.

    Args:
        loop: The only clock.
        dice: Decides everything here.
        check_intent: Told every command that is about to have an effect.
    """

    def __init__(
        self, loop: SimulatedLoop, dice: random.Random, check_intent: Callable[[w.ToWorker], None]
    ) -> None:
        self.loop = loop
        self.dice = dice
        self.check_intent = check_intent
        self.calm = False
        self.boot = 1
        self.processes: dict[str, Process] = {}
        self.records: dict[str, Record] = {}
        self.ends: dict[str, w.Exited | w.ProcessExited] = {}
        self.mark: w.LogMark | None = None
        self.frozen: set[str] = set()
        self.spawned: Counter[str] = Counter()
        self.exits: dict[str, int] = {}
        """How each process ended whose status the kernel could tell."""
        self.forgotten: set[str] = set()
        """What a reboot, or a worker without its directory, knows nothing about."""
        self.cut_short: set[str] = set()
        """Starts that a worker ended while they were under way, its own or of one before it."""
        self.worker: Worker | None = None
        self.workers = 0
        self._pid = 1000

    # --- processes -------------------------------------------------------------------------------

    def spawn(self, name: str, launch_id: str) -> Process:
        self.spawned[name] += 1
        self._pid += 1
        identity = w.PidIdentity(
            pid=self._pid,
            start_ticks=self._pid * 7,
            pidfd_inode=self._pid * 11,
            boot_id=f"boot-{self.boot}",
        )
        process = self.processes[name] = Process(name=name, launch_id=launch_id, identity=identity)
        launched = self.worker.known.get(name) if self.worker is not None else None
        is_root = launched is not None and launched.command.sandbox is None
        if self.dice.random() < (0.1 if is_root else 0.6):
            status = self.dice.choice((0, 256, 768, 139))
            self.loop.call_later(self.dice.expovariate(1 / 5), self.end, name, status)
        return process

    def end(self, name: str, status: int) -> None:
        process = self.processes.get(name)
        if process is None or process.status is not None:
            return
        for other in list(self.processes.values()):
            if other.launch_id == name and other.name != name:
                self.end(other.name, SIGKILL)
        process.status = self.exits[name] = status
        if self.worker is not None:
            self.worker.later(self.worker.noticed, name)

    def runs(self, name: str) -> bool:
        process = self.processes.get(name)
        return process is not None and process.status is None

    # --- what happens to it ----------------------------------------------------------------------

    def kill_worker(self) -> None:
        if self.worker is not None:
            self.worker.die()

    def reboot(self) -> None:
        self.kill_worker()
        self.forgotten |= {each.name for each in self.processes.values()}
        self.forgotten |= self.records.keys()
        self.processes.clear()
        self.boot += 1

    def lose_directory(self) -> None:
        """A reboot, and the worker's directory was in memory."""
        self.reboot()
        self.forgotten |= self.ends.keys()
        self.records.clear()
        self.ends.clear()
        self.mark = None

    def latency(self) -> float:
        return 0.0 if self.dice.random() < 0.3 else self.dice.expovariate(1 / 0.02)

    def now_ns(self) -> int:
        return int(self.loop.time() * NS) + 1

    # --- the manager's way to it -----------------------------------------------------------------

    def reap(self, pid: int) -> None:
        """Nothing: these are no processes."""

    async def reap_strays(self, living: Callable[[], frozenset[int]]) -> None:
        living()

    async def connect(self) -> "Connection":
        await anyio.sleep(self.latency())
        if not self.calm and self.workers and self.dice.random() < 0.1:
            raise WorkerGone("it cannot be started just now")
        if self.worker is None:
            self.workers += 1
            self.worker = Worker(self)
        connection = Connection(self.worker)
        await anyio.sleep(self.latency())
        if not connection.greet():
            raise WorkerGone("it was killed before it answered")
        return connection

    def close(self) -> None:
        self.kill_worker()


class Launched:
    """A launch as a worker knows it."""

    def __init__(self, command: w.Launch, files: FdBundle) -> None:
        self.command = command
        self.files = files
        self.phase = "launching"
        self.destroy_wanted = False
        self.executing = 0


class Worker:
    """One life of the worker."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.dice = machine.dice
        self.dead = False
        self.stopping = False
        self.held: dict[str, FdBundle] = {}
        self.known: dict[str, Launched] = {}
        self.executing: dict[str, w.Execute] = {}
        self.over: set[str] = set()
        self.kills: dict[str, int | None] = {}
        self.outbox: dict[int, w.Outcome] = {}
        self.connection: Connection | None = None
        self._seq = 0
        self._adopt()

    def later(self, do: Callable[..., None], *args: object) -> None:
        """Do something after a while, unless this worker is dead by then."""

        def unless_dead() -> None:
            if not self.dead:
                do(*args)

        self.machine.loop.call_later(self.machine.latency(), unless_dead)

    def die(self) -> None:
        self.dead = True
        self.machine.worker = None
        for bundle in self.held.values():
            bundle.close()
        for launched in self.known.values():
            launched.files.close()
        if self.connection is not None:
            self.connection.breaks()

    # --- outcomes --------------------------------------------------------------------------------

    def say(self, make: type[w.Outcome], **members: object) -> None:
        self._seq += 1
        self._send(make(seq=self._seq, **members))

    def put(self, make: type[w.Outcome], **members: object) -> None:
        self._seq += 1
        outcome = make(seq=self._seq, **members)
        if isinstance(outcome, w.Exited | w.ProcessExited):
            self.machine.ends[_subject(outcome)] = outcome
        self.outbox[outcome.seq] = outcome
        self._send(outcome)
        if self.dice.random() < 0.1:
            self._send(outcome)

    def _send(self, outcome: w.Outcome) -> None:
        if self.connection is not None:
            self.connection.arrives(outcome)

    def again(self, subject: str, kind: type[w.Outcome] | None = None) -> bool:
        found = [
            each
            for each in self.outbox.values()
            if _subject(each) == subject and (kind is None or isinstance(each, kind))
        ]
        for outcome in found:
            self._send(outcome)
        return bool(found)

    def welcome(self) -> w.Welcome:
        facts = {
            each.launch_id: "failed" if isinstance(each, w.StartFailed) else "exited"
            for each in self.outbox.values()
            if isinstance(each, w.Exited | w.StartFailed | w.Destroyed)
        }
        facts |= {key: launched.phase for key, launched in self.known.items()}
        told = [
            each.exec_id
            for each in self.outbox.values()
            if isinstance(each, w.Executed | w.ExecFailed | w.ProcessExited)
        ]
        return w.Welcome(
            protocol=w.PROTOCOL_VERSION,
            worker=w.PidIdentity(
                pid=self.machine.workers,
                start_ticks=1,
                pidfd_inode=1,
                boot_id=f"boot-{self.machine.boot}",
            ),
            kernel="6.18",
            engines=(ENGINE,),
            capabilities={},
            held=tuple(self.held),
            launches=tuple(w.LaunchFact(launch_id=k, phase=p) for k, p in facts.items()),
            executions=(*told, *self.executing),
            mark=self.machine.mark,
        )

    # --- what a former one has left --------------------------------------------------------------

    def _adopt(self) -> None:
        machine = self.machine
        for record in list(machine.records.values()):
            if record.exec_id and record.identity is not None:
                self._executed(record)
        told = set(machine.ends)
        for end in list(machine.ends.values()):
            members = {name: getattr(end, name) for name in end.__struct_fields__ if name != "seq"}
            self.put(type(end), **members)
        for record in list(machine.records.values()):
            if not record.exec_id:
                self._adopt_launch(record, told)
        for record in list(machine.records.values()):
            if record.exec_id:
                self._adopt_exec(record, told)

    def _adopt_launch(self, record: Record, told: set[str]) -> None:
        machine, name = self.machine, record.launch_id
        launched = self.known[name] = Launched(_bare(record), FdBundle())
        if name in told:
            launched.phase = "exited"
            self.later(self._clean, name)
        elif record.identity is None:
            machine.cut_short.add(name)
            process = machine.processes.pop(name, None)
            if process is not None:
                machine.forgotten.add(name)
            self._failed(launched, "interrupted", "the worker was killed")
        elif record.boot != machine.boot:
            self._exited(launched, None, "unknown")
        else:
            launched.phase = "running"
            self.started(launched, record.identity)
            if not machine.runs(name):
                self.later(self.noticed, name)

    def _adopt_exec(self, record: Record, told: set[str]) -> None:
        machine, name = self.machine, record.exec_id
        command = w.Execute(
            exec_id=name, launch_id=record.launch_id, process=w.ExecProcess(args=("x",))
        )
        if name in told:
            machine.records.pop(name)
            self.over.add(name)
            return
        self.executing[name] = command
        if record.identity is None:
            machine.cut_short.add(name)
            machine.processes.pop(name, None)
            machine.forgotten.add(name)
            self._exec_over(command)
            self._exec_failed(command, "interrupted")
        elif record.boot != machine.boot or record.launch_id not in self.known:
            self._process_exited(command, None)
        else:
            self.known[record.launch_id].executing += 1
            if not machine.runs(name):
                self.later(self.noticed, name)

    # --- commands --------------------------------------------------------------------------------

    def obey(self, message: w.ToWorker, files: FdBundle) -> None:
        """Do what a manager says; ownership of ``files`` moves in."""
        match message:
            case w.Hold():
                self.held[message.hold_id] = files
                self.put(w.Held, hold_id=message.hold_id)
                return
            case w.Launch():
                self._launch(message, files)
                return
            case w.Retell():
                self._retell()
            case _:
                files.close()
                self._command(message)

    def _command(self, message: w.ToWorker) -> None:
        match message:
            case w.Release(hold_id=hold_id) if hold_id in self.held:
                self.held.pop(hold_id).close()
            case w.Kill():
                self._kill(message)
            case w.Freeze():
                self._freeze(message)
            case w.Execute():
                self._execute(message)
            case w.Destroy():
                self._destroy(message.launch_id)
            case w.Ack(seq=seq):
                self.machine.mark = message.mark
                for outcome in [each for key, each in self.outbox.items() if key <= seq]:
                    del self.outbox[outcome.seq]
                    if isinstance(outcome, w.Exited | w.ProcessExited):
                        self.machine.ends.pop(_subject(outcome), None)
                self._leave_if_idle()
            case w.Stop():
                self.stopping = True
                self._leave_if_idle()
            case _:
                pass

    def _retell(self) -> None:
        for record in self.machine.records.values():
            launched = self.known.get(record.launch_id)
            if record.identity is None or launched is None or launched.phase != "running":
                continue
            if record.exec_id:
                self._executed(record)
            else:
                self.started(launched, record.identity)

    def _leave_if_idle(self) -> None:
        if self.stopping and not (self.known or self.executing or self.outbox):
            self.die()

    def _launch(self, command: w.Launch, files: FdBundle) -> None:
        name = command.launch_id
        if name in self.known or name in self.over:
            files.close()
            self.again(name)
            return
        self.machine.check_intent(command)
        launched = self.known[name] = Launched(command, files)
        self.later(self._begin, launched)

    def _begin(self, launched: Launched) -> None:
        command, machine = launched.command, self.machine
        if launched.phase != "launching" or launched.destroy_wanted:
            return
        hold = command.held_fds
        if hold is not None:
            if hold not in self.held:
                self._failed(launched, "hold", "the descriptors that were held are gone")
                return
            launched.files.close()
            launched.files = self.held.pop(hold)
        if command.sandbox is not None and not machine.runs(command.sandbox):
            self._failed(launched, "namespaces", "the container to be joined is gone")
            return
        machine.records[command.launch_id] = Record(
            launch_id=command.launch_id, engine_id=command.engine_id, boot=machine.boot
        )
        self.later(self._spawn, launched)

    def _spawn(self, launched: Launched) -> None:
        machine, name = self.machine, launched.command.launch_id
        if launched.phase != "launching" or launched.destroy_wanted:
            return
        if self.dice.random() < 0.1:
            self._failed(launched, "create", "as the dice told")
            return
        process = machine.spawn(name, name)
        self.later(self._known_to_run, launched, process)

    def _known_to_run(self, launched: Launched, process: Process) -> None:
        if launched.phase != "launching":
            return
        launched.files.close()
        launched.phase = "running"
        self.machine.records[launched.command.launch_id].identity = process.identity
        self.later(self._tell_started, launched, process)

    def _tell_started(self, launched: Launched, process: Process) -> None:
        self.started(launched, process.identity)
        if not self.machine.runs(process.name):
            self.later(self.noticed, process.name)

    def started(self, launched: Launched, identity: w.PidIdentity) -> None:
        self.put(
            w.Started,
            launch_id=launched.command.launch_id,
            identity=identity,
            engine=ENGINE.name,
            engine_version=ENGINE.version,
            started_at_ns=self.machine.now_ns(),
            phases_us={"create": 1},
        )

    def _failed(self, launched: Launched, stage: str, reason: str) -> None:
        launched.phase = "failed"
        launched.files.close()
        self.put(w.StartFailed, launch_id=launched.command.launch_id, stage=stage, reason=reason)
        self.later(self._clean, launched.command.launch_id)

    def noticed(self, name: str) -> None:
        """A process has ended, and its parent looks."""
        process = self.machine.processes.get(name)
        launched = self.known.get(name)
        if process is None:
            return
        if launched is not None and launched.phase == "running":
            self._exited(launched, process.status, "waitid")
        elif name in self.executing and self.machine.records[name].identity is not None:
            command = self.executing[name]
            self.known[command.launch_id].executing -= 1
            self._process_exited(command, process.status)

    def _exited(self, launched: Launched, status: int | None, source: str) -> None:
        launched.phase = "exited"
        self.put(
            w.Exited,
            launch_id=launched.command.launch_id,
            status=status,
            source=source,
            exited_at_ns=self.machine.now_ns(),
        )
        self.later(self._clean, launched.command.launch_id)

    def _clean(self, name: str) -> None:
        launched = self.known[name]
        if launched.executing:
            self.later(self._clean, name)
            return
        self.machine.records.pop(name, None)
        self.machine.processes.pop(name, None)
        del self.known[name]
        self.over.add(name)
        if launched.destroy_wanted:
            self.put(w.Destroyed, launch_id=name)
        self._leave_if_idle()

    def _destroy(self, name: str) -> None:
        launched = self.known.get(name)
        if launched is None:
            if not self.again(name, w.Destroyed):
                self.put(w.Destroyed, launch_id=name)
            return
        if launched.destroy_wanted:
            return
        launched.destroy_wanted = True
        if launched.phase == "running":
            self.machine.end(name, SIGKILL)
        elif launched.phase == "launching":
            if name in self.machine.processes:
                self.machine.processes.pop(name)
                self.machine.forgotten.add(name)
                self.machine.cut_short.add(name)
            self._failed(launched, "aborted", "it was destroyed")

    def _kill(self, command: w.Kill) -> None:
        if command.kill_id in self.kills:
            if not self.again(command.kill_id):
                self._killed(command, self.kills[command.kill_id])
            return
        self.machine.check_intent(command)
        launched = self.known.get(command.launch_id)
        runs = launched is not None and launched.phase == "running"
        errno = self.kills[command.kill_id] = None if runs else ESRCH
        if runs and command.signo in (SIGKILL, SIGTERM):
            self.machine.end(command.launch_id, command.signo)
        self.later(self._killed, command, errno)

    def _killed(self, command: w.Kill, errno: int | None) -> None:
        tell = self.put if command.durable else self.say
        tell(w.Killed, kill_id=command.kill_id, errno=errno)

    def _freeze(self, command: w.Freeze) -> None:
        if not self.again(command.pause_id):
            self.machine.check_intent(command)
            self.later(self._frozen, command)

    def _frozen(self, command: w.Freeze) -> None:
        named = {each for each in command.launch_ids if self.machine.runs(each)}
        frozen = self.machine.frozen
        undone = named - frozen if command.frozen else named & frozen
        unwilling = undone and not command.pause_id.startswith(AS_RECORDED)
        error = "as the dice told" if unwilling and self.dice.random() < 0.1 else ""
        if not error:
            self.machine.frozen = frozen | named if command.frozen else frozen - named
        self.put(w.Frozen, pause_id=command.pause_id, error=error)

    # --- processes executed ----------------------------------------------------------------------

    def _execute(self, command: w.Execute) -> None:
        name = command.exec_id
        if name in self.executing or name in self.over:
            self.again(name)
            return
        self.machine.check_intent(command)
        self.executing[name] = command
        self.later(self._begin_exec, command)

    def _begin_exec(self, command: w.Execute) -> None:
        launched = self.known.get(command.launch_id)
        if launched is None or launched.phase != "running" or self.dice.random() < 0.1:
            self._exec_over(command)
            self._exec_failed(command, "create")
            return
        machine = self.machine
        machine.records[command.exec_id] = Record(
            launch_id=command.launch_id, exec_id=command.exec_id, boot=machine.boot
        )
        launched.executing += 1
        self.later(self._spawn_exec, command, launched)

    def _spawn_exec(self, command: w.Execute, launched: Launched) -> None:
        machine = self.machine
        if not machine.runs(command.launch_id):
            launched.executing -= 1
            self._exec_over(command)
            self._exec_failed(command, "create")
            return
        process = machine.spawn(command.exec_id, command.launch_id)
        self.later(self._exec_runs, command, process)

    def _exec_runs(self, command: w.Execute, process: Process) -> None:
        record = self.machine.records[command.exec_id]
        record.identity = process.identity
        record.number = process.identity.pid - 1000
        self._executed(record)
        if not self.machine.runs(command.exec_id):
            self.later(self.noticed, command.exec_id)

    def _executed(self, record: Record) -> None:
        assert record.identity is not None
        self.put(
            w.Executed,
            exec_id=record.exec_id,
            launch_id=record.launch_id,
            pid=record.number,
            identity=record.identity,
            engine=ENGINE.name,
            engine_version=ENGINE.version,
            started_at_ns=self.machine.now_ns(),
        )

    def _exec_failed(self, command: w.Execute, stage: str) -> None:
        self.put(
            w.ExecFailed,
            exec_id=command.exec_id,
            launch_id=command.launch_id,
            stage=stage,
            reason="its container has stopped",
        )

    def _process_exited(self, command: w.Execute, status: int | None) -> None:
        self._exec_over(command)
        self.put(
            w.ProcessExited,
            exec_id=command.exec_id,
            launch_id=command.launch_id,
            status=status,
            source="waitid" if status is not None else "unknown",
            exited_at_ns=self.machine.now_ns(),
        )
        self._leave_if_idle()

    def _exec_over(self, command: w.Execute) -> None:
        self.machine.records.pop(command.exec_id, None)
        self.executing.pop(command.exec_id, None)
        self.over.add(command.exec_id)


class Connection:
    """One connection; messages arrive late, in their order, or never."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._machine = worker.machine
        self._loop = worker.machine.loop
        self._broken = False
        self._sent: deque[tuple[w.ToWorker, FdBundle]] = deque()
        self._come: deque[w.Outcome] = deque()
        self._wake = anyio.Event()
        self._not_before = [0.0, 0.0]
        self.welcome: w.Welcome

    def greet(self) -> bool:
        """Introduce a manager; false if there is nobody any more."""
        worker = self._worker
        if worker.dead:
            self._broken = True
            return False
        if worker.connection is not None:
            worker.connection.breaks()
        self.welcome = worker.welcome()
        worker.connection = self
        worker.stopping = False
        for outcome in list(worker.outbox.values()):
            self.arrives(outcome)
        return True

    def breaks(self) -> None:
        """Both ends find that the other one is gone."""
        self._broken = True
        if self._worker.connection is self:
            self._worker.connection = None
        for _, files in self._sent:
            files.close()
        self._sent.clear()
        self._wake.set()

    def arrives(self, outcome: w.Outcome) -> None:
        """The worker has sent something."""

        def arrive() -> None:
            self._come.append(outcome)
            self._wake.set()

        self._in_order(0, arrive)

    async def send(self, message: w.ToWorker, files: FdBundle | None = None) -> None:
        owned = files if files is not None else FdBundle()
        try:
            await anyio.lowlevel.checkpoint()
            if self._broken:
                raise WorkerGone("the connection has ended")
            self._sent.append((message, owned.take_all()))
        finally:
            owned.close()
        self._in_order(1, self._obeyed)

    def _obeyed(self) -> None:
        if self._sent:
            message, files = self._sent.popleft()
            self._worker.obey(message, files)

    def _in_order(self, way: int, do: Callable[[], None]) -> None:
        at = max(self._not_before[way], self._loop.time() + self._machine.latency())
        self._not_before[way] = at + 1e-6
        self._loop.call_at(at, do)

    async def receive(self) -> Sequence[w.Outcome]:
        while True:
            await anyio.lowlevel.checkpoint()
            if self._come:
                count = self._machine.dice.randrange(1, len(self._come) + 1)
                return [self._come.popleft() for _ in range(count)]
            if self._broken:
                raise WorkerGone("the connection has ended")
            self._wake = anyio.Event()
            await self._wake.wait()

    async def aclose(self) -> None:
        """What was sent still arrives: the other end reads it before it finds the end."""
        if self._broken:
            return
        self._in_order(1, self.breaks)


def _bare(record: Record) -> w.Launch:
    plan = w.LaunchPlan(stdio=None, root=None)
    return w.Launch(
        launch_id=record.launch_id,
        engine_id=record.engine_id,
        engine=ENGINE.name,
        spec=b"",
        plan=plan,
    )


def subjects(message: w.ToWorker | w.Outcome) -> list[str]:
    """What a message is about, the closest first."""
    names = ("exec_id", "kill_id", "pause_id", "launch_id", "hold_id", "checkpoint_id")
    return [found for name in names if (found := getattr(message, name, ""))]


def _subject(outcome: w.Outcome) -> str:
    return subjects(outcome)[0]


def without_seq(outcome: w.Outcome) -> w.Outcome:
    """For comparisons."""
    return replace(outcome, seq=0)
