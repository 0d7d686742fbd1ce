"""How long another process waits for what is appended to a log."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from eventstore import ANY, NewEvent, open_log

TAIL_CODE = """
import asyncio, sys, time
from eventstore import open_log
async def main():
    async with open_log(sys.argv[1], read_only=True) as log:
        head = await log.head()
        async with log.subscribe(after=head) as records:
            print("ready", flush=True)
            for _ in range(int(sys.argv[2])):
                position = (await anext(records)).position
                print(position, time.monotonic_ns(), flush=True)
asyncio.run(main())
"""


async def tail(path: Path, new_event: Callable[[], NewEvent], count: int) -> list[float]:
    """Milliseconds from an append's answer until another process has the event; sorted."""
    answered: dict[int, int] = {}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", TAIL_CODE, os.fspath(path), str(count)),
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    async with open_log(path) as log:
        await child.stdout.readline()
        for _ in range(count):
            (stored,) = await log.append("tail", [new_event()], expected=ANY)
            answered[stored.position] = time.monotonic_ns()
            await asyncio.sleep(0.003)
        seen = [line.split() for line in (await child.stdout.read()).splitlines()]
    await child.wait()
    return sorted(max(0, int(at) - answered[int(which)]) / 1e6 for which, at in seen)
