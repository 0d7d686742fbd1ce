"""Child processes of the event store's tests: ``python -c`` programs and how they are told things.

A child says one line for everything that happened, so that its parent waits for facts, not time.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]

WRITER: Final = """
import asyncio, sys
from eventstore import ANY, NewEvent, open_log

async def append(log, stream, number):
    (record,) = await log.append(
        stream, [NewEvent(type="counted", data={"n": number})], expected=ANY
    )
    print(record.position, record.event_id, flush=True)

async def endless(log, stream):
    number = 0
    while True:
        number += 1
        await append(log, stream, number)

async def told(log):
    # One event for every line on stdin.
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await append(log, "told", int(line))

async def main():
    path, mode = sys.argv[1:3]
    async with open_log(path) as log:
        print("open", flush=True)
        if mode == "told":
            await told(log)
        else:
            await asyncio.gather(*(endless(log, f"stream-{k}") for k in range(int(mode))))

asyncio.run(main())
"""


@contextmanager
def child(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a program with lines on stdin and stdout; it is killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
