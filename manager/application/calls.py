"""The calls of both sockets, whatever door they come through.

Each takes ownership of the descriptors it is given, answers only when the outcome is in the log,
and raises :class:`CallRefused` with the very text that the log has.
"""

from collections.abc import Awaitable, Callable, Sequence

from msgspec.structs import replace

from eventstore import Actor, Document
from manager.application.arguments import StartArguments
from manager.application.effects import Luggage
from manager.application.errors import CallRefused
from manager.application.incoming import (
    engine_id_of,
    read_start,
    without_first_file,
)
from manager.application.live_sandbox import LiveSandbox
from manager.application.node import Node
from manager.application.registration import register
from manager.domain import commands as c
from manager.domain import events as e
from manager.domain.decide import decide
from manager.domain.events import Event
from manager.domain.evolve import SANDBOX_ENDED
from manager.domain.gotext import quote
from manager.domain.ids import is_valid_id
from manager.domain.payload_rules import uses_terminal
from manager.domain.query import (
    Ended,
    Pending,
    Refused,
    is_destroyed,
    is_paused,
    launch_to_end,
    runtime_state,
    start_answer,
    wait_answer,
)
from manager.domain.repeat import recorded
from manager.domain.state import ABSENT, RequestOutcome, Sandbox
from manager.schema.events import encode_event
from manager.schema.node_fold import Origin
from manager.urpc.fds import FdBundle

Prepare = Callable[[Sequence[Event]], Awaitable[c.Command]]


class Calls:
    """Every call that a client can make on a node, and that the log has a word to say about."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._ids = node.ports.ids
        self._descriptors = node.ports.descriptors

    def origin(self, actor: Actor | None) -> Origin:
        """A new origin: all that follows from one call carries its correlation id."""
        return Origin(correlation_id=self._ids.new_id(), actor=actor)

    # --- sandboxManager --------------------------------------------------------------------------

    async def create(
        self, sandbox_id: str, arguments: StartArguments, files: FdBundle, origin: Origin
    ) -> None:
        """Register a sandbox's root container; its descriptors go into the worker's keeping.

        Args:
            sandbox_id: Its id, and the root container's.
            arguments: As of a start; ``cid`` is empty or the same id.
            files: In the order of a start; with a terminal, the terminal instead of three stdio.
            origin: Who asks.

        Raises:
            CallRefused: The text is in the log as ``sandbox.create_rejected``.
            NotRecorded: The log refused; nothing was kept.
        """
        with files:
            asked = replace(arguments, cid=sandbox_id)
            incoming = await read_start(asked, files, self.node.ports)
            request, tty = incoming.request, None
            has_terminal = incoming.spec is not None and uses_terminal(incoming.spec)
            if has_terminal and request.files:
                tty, request = without_first_file(request)
            with files.take(1 if tty is not None and files else 0) as terminal:
                launch_id = self._ids.new_id()
                command = c.CreateSandbox(
                    sandbox_id=sandbox_id,
                    request=request,
                    spec=incoming.spec,
                    engine=self.node.engines.chosen(),
                    launch_id=launch_id,
                    engine_id=engine_id_of(launch_id),
                    hold_id=f"fds-{launch_id}",
                    tty=tty,
                    tty_hold_id=f"tty-{launch_id}" if tty is not None else "",
                    requested_cid=arguments.cid,
                    hold_error=incoming.problem,
                )
                if not is_valid_id(sandbox_id):
                    await self._refuse_nameless(command, origin, incoming.documents)

                async def prepare(events: Sequence[Event]) -> c.Command:
                    return await self._hold_root(command, events, incoming.luggage, terminal)

                async with self.node.registry.borrow(sandbox_id) as sandbox:
                    try:
                        await self.call(
                            sandbox, command, origin, documents=incoming.documents, prepare=prepare
                        )
                    finally:
                        await self.node.release_unless_kept(
                            sandbox, command.hold_id, command.tty_hold_id
                        )

    async def _refuse_nameless(
        self, command: c.CreateSandbox, origin: Origin, documents: Sequence[Document]
    ) -> None:
        """Record a refusal that has no stream of its own, because its id cannot name one."""
        for event in decide(ABSENT, command):
            tag, data = encode_event(event)
            await self.node.record(tag, data, origin, documents)
            _raise_refusal((event,))

    async def _hold_root(
        self,
        command: c.CreateSandbox,
        events: Sequence[Event],
        luggage: Luggage,
        terminal: FdBundle,
    ) -> c.Command:
        """Bring the descriptors of an accepted create to safety before it is recorded."""
        accepted = events[-1]
        if not isinstance(accepted, e.SandboxCreated):
            return command
        try:
            prepared = self._descriptors.prepare(accepted.intent.plan, luggage.files.take_all())
        except OSError as problem:
            return replace(command, hold_error=f"a donated file cannot be used: {problem.strerror}")
        error = await self.node.hold(command.hold_id, luggage.spec, prepared)
        if terminal and not error:
            error = await self.node.hold(command.tty_hold_id, b"", terminal.take_all())
        return replace(command, hold_error=error)

    async def delete(
        self, sandbox_id: str, origin: Origin, *, force: bool = False, request_id: str = ""
    ) -> None:
        """Forget a sandbox; with ``force``, end what still runs in it.

        Raises:
            CallRefused: It is unknown, or something in it runs and ``force`` is not set.
            NotRecorded: The log refused.
        """
        if not is_valid_id(sandbox_id):
            raise CallRefused(f"sandbox {quote(sandbox_id)} not found")
        async with self.node.registry.borrow(sandbox_id) as sandbox:
            command = c.DeleteSandbox(sandbox_id=sandbox_id, force=force, request_id=request_id)
            await self.call(sandbox, command, origin)
            await sandbox.until(lambda state: None if state.deleting else True)

    def state(self, sandbox_id: str) -> Sandbox:
        """The derived state of a live sandbox.

        Raises:
            CallRefused: There is none of that id.
        """
        return self.live(sandbox_id).state

    def sandboxes(self) -> list[Sandbox]:
        """The derived states of all live sandboxes, oldest first."""
        return [sandbox.state for sandbox in self.node.registry.all().values()]

    # --- containerManager ------------------------------------------------------------------------

    async def start_root(self, sandbox_id: str, origin: Origin, request_id: str = "") -> None:
        """Run the root container; returns when its own code runs.

        Raises:
            CallRefused: Refused, or the start failed.
            NotRecorded: The log refused; nothing was started.
        """
        sandbox = self.live(sandbox_id)
        for event in await self.call(sandbox, c.StartRoot(request_id=request_id), origin):
            if isinstance(event, e.SandboxStartRequested):
                await _until_started(sandbox, sandbox_id, event.launch_id)

    async def create_subcontainer(
        self, sandbox_id: str, cid: str, files: FdBundle, origin: Origin, request_id: str = ""
    ) -> None:
        """Register a subcontainer; ``files`` holds its terminal, if it has one."""
        with files:
            described = await self._descriptors.describe(files)
            hold_id = f"tty-{self._ids.new_id()}" if files else ""
            command = c.CreateSubcontainer(
                cid=cid,
                files=described.facts,
                hold_id=hold_id,
                hold_error=described.problem,
                request_id=request_id,
            )

            async def prepare(events: Sequence[Event]) -> c.Command:
                if not files or not isinstance(events[-1], e.ContainerCreated):
                    return command
                error = await self.node.hold(command.hold_id, b"", files.take_all())
                return replace(command, hold_error=error)

            sandbox = self.live(sandbox_id)
            try:
                await self.call(sandbox, command, origin, prepare=prepare)
            finally:
                await self.node.release_unless_kept(sandbox, hold_id)

    async def start_subcontainer(
        self, sandbox_id: str, arguments: StartArguments, files: FdBundle, origin: Origin
    ) -> None:
        """Run a subcontainer; returns when its own code runs.

        Raises:
            CallRefused: Refused, or the start failed.
            NotRecorded: The log refused; nothing was started.
        """
        with files:
            incoming = await read_start(arguments, files, self.node.ports)
            sandbox = self.live(sandbox_id)
            launch_id = self._ids.new_id()
            root = sandbox.state.containers[sandbox_id].intent
            command = c.StartSubcontainer(
                request=incoming.request,
                spec=incoming.spec,
                engine=self.node.engines.named(root.engine if root is not None else ""),
                launch_id=launch_id,
                engine_id=engine_id_of(launch_id),
                hold_error=incoming.problem,
            )
            if sandbox.state.phase == "restoringUnstarted":
                await register(self, sandbox, command, incoming, origin)
                return
            events = await self.call(
                sandbox, command, origin, luggage=incoming.luggage, documents=incoming.documents
            )
        if events:
            await _until_started(sandbox, arguments.cid, launch_id)

    async def destroy(
        self, sandbox_id: str, cid: str, origin: Origin, request_id: str = ""
    ) -> None:
        """End every process of a container; returns when nothing of it is left."""
        sandbox = self.live(sandbox_id)
        command = c.DestroySubcontainer(cid=cid, request_id=request_id)
        events = await self.call(sandbox, command, origin)
        if not events and recorded(sandbox.state, command) is not None:
            return  # answered from the log: the id may be another container's by now
        launch_id = launch_to_end(events, sandbox.state.containers.get(cid))

        await sandbox.until(
            lambda state: is_destroyed(state.containers.get(cid), launch_id) or None
        )

    async def signal(
        self,
        sandbox_id: str,
        cid: str,
        signo: int,
        origin: Origin,
        *,
        pid: int = 0,
        mode: int = 0,
        request_id: str = "",
    ) -> None:
        """Send a signal; returns when it is delivered.

        Raises:
            CallRefused: Refused, or the kernel could not deliver it.
        """
        sandbox = self.live(sandbox_id)
        kill_id = self._ids.new_id()
        command = c.Signal(
            cid=cid, signo=signo, pid=pid, mode=mode, kill_id=kill_id, request_id=request_id
        )
        with sandbox.expect(kill_id) as expectation:
            if await self.call(sandbox, command, origin):
                _raise_refusal((await expectation.wait(),))

    async def pause(
        self, sandbox_id: str, origin: Origin, *, paused: bool = True, request_id: str = ""
    ) -> None:
        """Stop everything in a sandbox, or let it go on; returns when that is so.

        Raises:
            CallRefused: Refused, or it could not be done: then all is as it was.
        """
        sandbox = self.live(sandbox_id)
        root = sandbox.state.containers[sandbox_id].intent
        pause_id = self._ids.new_id()
        command = c.Pause(
            paused=paused,
            pause_id=pause_id,
            engine=self.node.engines.named(root.engine if root is not None else ""),
            request_id=request_id,
        )
        with sandbox.expect(pause_id) as expectation:
            if not await self.call(sandbox, command, origin):
                return
            await sandbox.until(lambda state: is_paused(state, pause_id) or None)
            if expectation.event is None:
                raise CallRefused(SANDBOX_ENDED)
            _raise_refusal((expectation.event,))

    async def wait(self, sandbox_id: str, cid: str) -> int:
        """Wait for a container's end; returns the raw wait status, the same one every time.

        Raises:
            CallRefused: Unknown, never started, or its status is lost.

        Cancellation: safe.
        """

        def ended(state: Sandbox) -> Ended | Refused | None:
            answer = wait_answer(state, cid)
            return None if isinstance(answer, Pending) else answer

        answer: Ended | Refused = await self.live(sandbox_id).until(ended)
        if isinstance(answer, Refused):
            raise CallRefused(answer.error)
        return answer.wait_status

    def runtime_state(self, sandbox_id: str, cid: str) -> int:
        """Tell ContainerRuntimeState of gVisor; never an error for an unknown cid."""
        return runtime_state(self.live(sandbox_id).state, cid)

    # --- what they share -------------------------------------------------------------------------

    def live(self, sandbox_id: str) -> LiveSandbox:
        """The sandbox of that id; raises CallRefused if there is none."""
        sandbox = self.node.registry.get(sandbox_id)
        if sandbox is None:
            raise CallRefused(f"sandbox {quote(sandbox_id)} not found")
        return sandbox

    async def call(
        self,
        sandbox: LiveSandbox,
        command: c.ClientCommand,
        origin: Origin,
        *,
        luggage: Luggage | None = None,
        documents: Sequence[Document] = (),
        prepare: Prepare | None = None,
    ) -> tuple[Event, ...]:
        """Carry a client's command out; a request id that is on record is answered from there."""
        events = await self.node.handle(
            sandbox, command, origin, luggage=luggage, documents=documents, prepare=prepare
        )
        _raise_refusal(events)
        if events or recorded(sandbox.state, command) is None:
            return events

        def settled(state: Sandbox) -> RequestOutcome | None:
            outcome = recorded(state, command)
            return outcome if outcome is None or outcome.done else None

        outcome = await sandbox.until(settled)
        if outcome.error:
            raise CallRefused(outcome.error)
        return ()


def _raise_refusal(events: Sequence[Event]) -> None:
    for event in events:
        error = getattr(event, "error", "")
        if error:
            raise CallRefused(error)


async def _until_started(sandbox: LiveSandbox, cid: str, launch_id: str) -> None:
    """Wait for the outcome of a start; raises CallRefused if it failed."""

    def outcome(state: Sandbox) -> Refused | bool | None:
        answer = start_answer(state, cid, launch_id)
        return None if isinstance(answer, Pending) else answer or True

    answer = await sandbox.until(outcome)
    if isinstance(answer, Refused):
        raise CallRefused(answer.error)
