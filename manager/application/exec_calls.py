"""Calls about processes that are executed in containers, and about single processes."""

from manager.application.calls import Calls
from manager.application.effects import Luggage
from manager.application.errors import CallRefused
from manager.application.exec_arguments import ExecArguments
from manager.application.worker_link import PROBE_PREFIX
from manager.domain import commands as c
from manager.domain import events as e
from manager.domain.decide import decide
from manager.domain.decide_life import signal_prefix
from manager.domain.decide_report import signal_problem
from manager.domain.events import Event
from manager.domain.execution import process_lost
from manager.domain.query import Ended, Pending, Refused
from manager.domain.query_exec import exec_answer, requested_execution, wait_pid_answer
from manager.domain.state import Sandbox, SignalIntent
from manager.schema import worker as w
from manager.schema.node_fold import Origin
from manager.urpc.fds import FdBundle


class ExecCalls:
    """What can be asked of processes. ``calls`` does what all calls share."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def execute(
        self, sandbox_id: str, arguments: ExecArguments, files: FdBundle, origin: Origin
    ) -> int:
        """Run one more process in a container; returns its PID there once it runs.

        Args:
            sandbox_id: The container's sandbox.
            arguments: What to run; ``guest_fds`` are the numbers of ``files``.
            files: Owned here.
            origin: Who asks.

        Raises:
            CallRefused: Refused, or it never ran; the text is in the log.
            NotRecorded: The log refused; nothing was run.
        """
        calls, node = self._calls, self._calls.node
        with files:
            described = await node.ports.descriptors.describe(files)
            sandbox = calls.live(sandbox_id)
            exec_id = node.ports.ids.new_id()
            root = sandbox.state.containers[sandbox_id].intent
            command = c.Execute(
                request=arguments.request(described.facts, node.ports.env_key),
                exec_id=exec_id,
                engine=node.engines.named(root.engine if root is not None else ""),
                env_error=arguments.env_error(),
                files_error=described.problem,
            )
            luggage = Luggage(files=files, process=arguments.process())
            with sandbox.expect(exec_id) as expectation:
                if await calls.call(sandbox, command, origin, luggage=luggage):
                    return _pid_of(await expectation.wait())
            exec_id = requested_execution(sandbox.state, arguments.cid, arguments.request_id)

        def outcome(state: Sandbox) -> Refused | int | None:
            answer = exec_answer(state, arguments.cid, exec_id)
            return None if isinstance(answer, Pending) else answer

        answer: Refused | int = await sandbox.until(outcome)
        if isinstance(answer, Refused):
            raise CallRefused(answer.error)
        return answer

    async def wait_pid(self, sandbox_id: str, cid: str, pid: int) -> int:
        """Wait for a process's end; returns the raw wait status, the same until destroy.

        Raises:
            CallRefused: No such process, or its status is lost.

        Cancellation: safe.
        """

        def ended(state: Sandbox) -> Ended | Refused | None:
            answer = wait_pid_answer(state, cid, pid)
            return None if isinstance(answer, Pending) else answer

        answer: Ended | Refused = await self._calls.live(sandbox_id).until(ended)
        if isinstance(answer, Refused):
            raise CallRefused(answer.error)
        return answer.wait_status

    async def probe(self, sandbox_id: str, cid: str, *, pid: int = 0, mode: int = 0) -> None:
        """Ask whether a signal could be delivered: signal 0. A read: it leaves no event.

        Raises:
            CallRefused: It could not, with the text that a signal would get.
        """
        state = self._calls.live(sandbox_id).state
        kill_id = PROBE_PREFIX + self._calls.node.ports.ids.new_id()
        command = c.Signal(cid=cid, signo=0, pid=pid, mode=mode, kill_id=kill_id)
        for event in decide(state, command):
            if isinstance(event, e.ContainerSignalRejected):
                raise CallRefused(event.error)
        found = state.containers[cid]
        launch_id = found.intent.launch_id if found.intent is not None else ""
        kill = w.Kill(
            kill_id=kill_id, launch_id=launch_id, signo=0, pid=pid, mode=mode, durable=False
        )
        prefix = signal_prefix(cid, pid, mode)
        killed = await self._calls.node.probe(kill)
        if killed is None:
            raise CallRefused(f"{prefix}the worker does not answer, try again")
        if killed.errno is not None:
            intent = SignalIntent(cid=cid, signo=0, pid=pid, mode=mode)
            report = c.ReportKilled(
                kill_id=kill_id, errno=killed.errno, why=killed.why, owner=killed.owner
            )
            raise CallRefused(prefix + signal_problem(state, intent, report))


def _pid_of(event: Event) -> int:
    """The outcome of an exec, also of one whose container is destroyed by now; may be a refusal."""
    if isinstance(event, e.ProcessExecFailed):
        raise CallRefused(event.failure.error)
    if isinstance(event, e.ProcessLost):
        raise CallRefused(process_lost(event.reason))
    assert isinstance(event, e.ProcessExecuted | e.ProcessExited), "there is no other outcome"
    return event.pid
