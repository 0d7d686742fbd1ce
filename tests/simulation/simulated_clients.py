"""Clients of a service that dies: they ask again with the same request id, as the real ones do."""

import os
import random
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from msgspec import Struct

from manager.application.arguments import StartArguments
from manager.application.calls import Calls
from manager.application.default_spec import default_spec
from manager.application.errors import CallRefused, NoEngine, NotRecorded
from manager.application.exec_arguments import ExecArguments
from manager.application.exec_calls import ExecCalls
from manager.domain.state import Sandbox
from manager.schema.node_fold import STREAM_PREFIX
from manager.urpc.fds import FdBundle, OwnedFd
from tests.simulation.simulated_service import Life, Severed, World

SANDBOXES = ("s1", "s2")
CIDS = ("a", "b", "c")
SPEC = default_spec(args=["/bin/true"])
CALM_PATIENCE_S = 300.0
RUNNING_WISHES = ("execute", "execute", "execute", "signal", "signal", "destroy", "wait", "wait")
RUNNING_WISHES += ("pause", "create sub", "delete")
WISHES = ("create", "start root", "create sub", "start sub", "destroy", "signal", "pause")
WISHES += ("resume", "execute", "delete", "wait")


def donate() -> FdBundle:
    flags = (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)
    bundle = FdBundle(OwnedFd(os.open(os.devnull, flag)) for flag in flags)
    bundle.append(OwnedFd(os.open("/", os.O_PATH | os.O_DIRECTORY)))
    return bundle


class Answered(Struct, frozen=True, kw_only=True):
    """What a client was told."""

    sandbox: str
    request_id: str
    what: str
    error: str
    value: Any


Ask = Callable[[Calls], Awaitable[Any]]


class Client:
    """Asks for one thing after the other."""

    def __init__(self, world: World, seed: int, name: int) -> None:
        self.world = world
        self.dice = random.Random(f"client {name} of {seed}")
        self.name = name
        self.answers: list[Answered] = []
        self._asked = 0

    async def run(self, calls: int) -> None:
        for _ in range(calls):
            await anyio.sleep(self.dice.expovariate(1 / 0.5))
            await self._one()

    async def _one(self) -> None:
        self._asked += 1
        rid = f"r{self.name}-{self._asked}"
        sandbox, cid = self.dice.choice(SANDBOXES), self.dice.choice(CIDS)
        what, cid = self._sensible(sandbox, cid)
        if self.dice.random() < 0.15:
            what, cid = self.dice.choice(WISHES), self.dice.choice((*CIDS, sandbox))
        patience = self.dice.choice((0.05, 1.0, 30.0, 30.0, 30.0))
        ask = self._wish(what, sandbox, cid, rid)
        await self._until_answered(sandbox, rid, what, ask, patience)

    def _sensible(self, sandbox: str, cid: str) -> tuple[str, str]:
        """What may well succeed, as far as the log has got."""
        state = self.world.committed.get(STREAM_PREFIX + sandbox, Sandbox())
        found = state.container(cid)
        status = found.status if found is not None else "absent"
        who = self.dice.choice((cid, cid, cid, sandbox))
        match state.phase, status:
            case "absent" | "deleted", _:
                return "create", sandbox
            case "created", _:
                kept = state.containers[sandbox].fds_hold is not None
                return "start root" if kept else "delete", sandbox
            case "stopped", _:
                return self.dice.choice(("delete", "delete", "wait", "destroy")), who
            case _ if state.paused:
                return self.dice.choice(("resume", "resume", "signal", "destroy")), who
            case _, "absent":
                return "create sub", cid
            case _, "creating":
                return self.dice.choice(("start sub", "start sub", "start sub", "destroy")), cid
            case _, "starting":
                return self.dice.choice(("wait", "destroy", "delete", "execute")), cid
            case _, "running":
                return self.dice.choice(RUNNING_WISHES), who
            case _:
                return self.dice.choice(("wait", "destroy", "destroy")), cid

    def _wish(  # noqa: C901 - one arm a wish
        self, what: str, sandbox: str, cid: str, rid: str
    ) -> Ask:
        signo = self.dice.choice((9, 15, 10))
        root = StartArguments(cid=sandbox, spec=SPEC, conf={}, request_id=rid)
        arguments = StartArguments(cid=cid, spec=SPEC, conf={}, request_id=rid)
        executed = ExecArguments(cid=cid, argv=("x",), request_id=rid)

        async def ask(c: Calls) -> Any:
            origin = c.origin(None)
            match what:
                case "create":
                    await c.create(sandbox, root, donate(), origin)
                case "start root":
                    await c.start_root(sandbox, origin, rid)
                case "create sub":
                    await c.create_subcontainer(sandbox, cid, FdBundle(), origin, rid)
                case "start sub":
                    await c.start_subcontainer(sandbox, arguments, donate(), origin)
                case "destroy":
                    await c.destroy(sandbox, cid, origin, rid)
                case "signal":
                    await c.signal(sandbox, cid, signo, origin, request_id=rid)
                case "pause" | "resume":
                    await c.pause(sandbox, origin, paused=what == "pause", request_id=rid)
                case "execute":
                    return await ExecCalls(c).execute(sandbox, executed, FdBundle(), origin)
                case "delete":
                    await c.delete(sandbox, origin, force=True, request_id=rid)
                case _:
                    return await c.wait(sandbox, cid)
            return None

        return ask

    async def _until_answered(
        self, sandbox: str, rid: str, what: str, ask: Ask, patience: float
    ) -> None:
        world = self.world
        while True:
            answer = None
            with anyio.move_on_after(patience) as scope:
                while (life := world.life) is None or life.calls is None or life.dead:
                    await world.born.wait()
                answer = await self._ask(life, sandbox, rid, what, ask)
            if answer is not None:
                self.answers.append(answer)
                return
            if scope.cancelled_caught:
                # What is asked of a service without faults is answered, but for a wait.
                assert not (world.calm and patience >= CALM_PATIENCE_S), f"{rid} {what}: no answer"
                if what == "wait" or not world.calm:
                    return
                patience = CALM_PATIENCE_S
            await anyio.sleep(0.2)

    async def _ask(
        self, life: Life, sandbox: str, rid: str, what: str, ask: Ask
    ) -> Answered | None:
        error, value = "", None
        try:
            async with life.within():
                assert life.calls is not None
                value = await ask(life.calls)
                return Answered(sandbox=sandbox, request_id=rid, what=what, error="", value=value)
        except CallRefused as refused:
            error = refused.text
        except (NotRecorded, NoEngine, Severed):
            return None
        else:
            return None
        return Answered(sandbox=sandbox, request_id=rid, what=what, error=error, value=value)
