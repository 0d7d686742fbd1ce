"""Calls with a donated file whose file system does not answer leave their refusal on record."""

import os
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import msgspec
import pytest

from manager.application.calls import Calls
from manager.application.errors import CallRefused
from manager.application.exec_arguments import ExecArguments
from manager.application.exec_calls import ExecCalls
from manager.application.image_calls import ImageCalls
from manager.application.ports import Described
from manager.domain.silent_files import is_silence, silent_file
from manager.kernel.donated import describe
from manager.urpc.fds import FdBundle
from tests.unit.application.conftest import PlainDescriptors, World
from tests.unit.application.test_calls import Donate, arguments, started

Ask = Callable[[Calls, FdBundle], Awaitable[object]]
CALLS: dict[str, Ask] = {
    "sandbox.create_rejected": lambda c, files: c.create(
        "s2", arguments("s2", request_id="r"), files, c.origin(None)
    ),
    "container.create_rejected": lambda c, files: c.create_subcontainer(
        "sb", "c2", files, c.origin(None), "r"
    ),
    "container.start_rejected": lambda c, files: c.start_subcontainer(
        "sb", arguments("c1", request_id="r"), files, c.origin(None)
    ),
    "container.restore_rejected": lambda c, files: ImageCalls(c).restore_subcontainer(
        "sb", arguments("c1", request_id="r"), files, c.origin(None)
    ),
    "process.exec_rejected": lambda c, files: ExecCalls(c).execute(
        "sb", ExecArguments(cid="sb", argv=("x",), request_id="r"), files, c.origin(None)
    ),
    "sandbox.checkpoint_rejected": lambda c, files: ImageCalls(c).checkpoint(
        "sb", files, c.origin(None), request_id="r"
    ),
    "restore.rejected": lambda c, files: ImageCalls(c).restore("sb", files, c.origin(None), "r"),
}


async def silence(_: PlainDescriptors, files: FdBundle) -> Described:
    """As of files that a thread waits for now."""
    facts = tuple(describe(number) for number in files.numbers())
    files.close()
    return Described(facts=facts, problem=silent_file(0))


@pytest.mark.parametrize("kind", CALLS)
async def test_the_refusal_is_on_record(
    world: World,
    donate: Donate,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    def files() -> FdBundle:
        if kind == "container.create_rejected":
            # A terminal is one for as long as its other end is open.
            other, terminal = os.openpty()
            request.addfinalizer(partial(os.close, other))
            return FdBundle.adopt([terminal])
        return donate()

    async with world.manager() as (_, calls):
        await started(calls, donate)
        await calls.create_subcontainer("sb", "c1", FdBundle(), calls.origin(None))
        plain = PlainDescriptors.describe
        monkeypatch.setattr(PlainDescriptors, "describe", silence)
        with pytest.raises(CallRefused) as refused:
            await CALLS[kind](calls, files())
        monkeypatch.setattr(PlainDescriptors, "describe", plain)
        with pytest.raises(CallRefused) as again:
            await CALLS[kind](calls, files())
        await anyio.wait_all_tasks_blocked()
    found = [each async for each in world.log.read() if each.type == kind]
    assert len(found) == 1
    error = msgspec.json.decode(found[0].data)["error"]
    assert (refused.value.text, again.value.text) == (error, error)
    # That no restore is under way is asked first.
    assert is_silence(error) == (kind != "container.restore_rejected")
