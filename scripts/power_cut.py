"""What runs inside a machine whose power is cut: work for its service, and a look at it afterwards.

The service is the one of docs/sandtrail.service, `make demo` has left a root file system. Usage::

    python scripts/power_cut.py work NAME     # until the power goes: a line for each known status
    python scripts/power_cut.py look TOLD     # with a file of all those lines, after a boot
"""

import itertools
import sys
from pathlib import Path

import anyio
from demo import Donor, run, sh

from eventstore import open_log
from manager import ManagerClient, SandboxClient, connect
from manager.domain.events import ContainerStarted, Event, SandboxStarted
from manager.domain.evolve import fold
from manager.domain.exit_status import Exited
from manager.domain.react import REBOOTED
from manager.domain.state import ALIVE
from manager.schema.events import decode_event
from manager.schema.node_fold import STREAM_PREFIX

STATE = Path("/var/lib/sandtrail")
CLIENTS = 3


async def work(name: str) -> None:
    """Start containers until nobody is there any more to do so."""
    donor = Donor()
    manager: ManagerClient = connect(STATE / "control.sock")
    sandbox = await manager.create_sandbox(name, sh("sleep 600"), donor.donation())
    await sandbox.start_root()
    await sandbox.create_subcontainer("stays")
    await sandbox.start_subcontainer("stays", sh("sleep 600"), donor.donation())
    print(name, "stays", "-", flush=True)
    async with anyio.create_task_group() as tasks:
        for client in range(CLIENTS):
            tasks.start_soon(_work, sandbox, client, donor)


async def _work(sandbox: SandboxClient, client: int, donor: Donor) -> None:
    for number in itertools.count():
        cid, code = f"c{client}-{number}", number % 256
        ended = await run(sandbox, cid, f"exit {code}", donor)
        assert ended == Exited(code=code), ended
        print(sandbox.id, cid, code, flush=True)


async def look(told: Path) -> None:
    """Hold the log against what clients were told, and against a machine that has booted anew."""
    streams: dict[str, list[Event]] = {}
    started: list[str] = []
    async with open_log(STATE / "events.db", read_only=True) as log:
        async for record in log.read():
            if record.stream.startswith(STREAM_PREFIX):
                event = decode_event(record.type, record.data)
                streams.setdefault(record.stream.removeprefix(STREAM_PREFIX), []).append(event)
                if isinstance(event, ContainerStarted | SandboxStarted):
                    started.append(event.launch_id)
    sandboxes = {name: fold(events) for name, events in streams.items()}
    assert len(started) == len(set(started)), "something was started twice"
    lines = [line.split() for line in told.read_text().splitlines()]
    for name, cid, code in lines:
        container = sandboxes[name].containers[cid]
        if code == "-":
            assert (container.status, container.loss) == ("lost", REBOOTED), container
        else:
            assert container.exit == Exited(code=int(code)), (name, container)
    containers = [each for state in sandboxes.values() for each in state.containers.values()]
    alive = [each for each in containers if each.status in ALIVE]
    assert alive == [], "nothing outlives a boot"
    lost = [each for each in containers if each.status == "lost"]
    assert {each.loss for each in lost} <= {REBOOTED}
    print(
        f"{len(lines)} answers are on record; of {len(containers)} containers {len(lost)} are lost"
    )


if __name__ == "__main__":
    task, argument = sys.argv[1:]
    anyio.run(work, argument) if task == "work" else anyio.run(look, Path(argument))
