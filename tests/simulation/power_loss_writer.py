"""The program that the power is cut on: a real log, opened, filled, sealed and closed four times.

It says what it is about to append and what was acknowledged, one line of JSON and one write(2)
each, so that both stand in the same trace as the log's own calls, in the order of things.

Run by tests.simulation.power_loss_recording: ``LOG KEY SEED SYNCHRONOUS``. Any other SYNCHRONOUS
than FULL weakens the log on purpose, here and nowhere in the product.
"""

import json
import os
import random
import sqlite3
import sys
from pathlib import Path
from typing import Final

import anyio

from eventstore import ANY, Document, EventLog, NewEvent, SealPolicy, load_signer, open_log
from eventstore.sqlite import checkpoint, opening
from eventstore.sqlite.connection import configure_writer

OPENINGS: Final = 4
ROUNDS: Final = 9
STREAMS: Final = ("a", "b", "c")
WAL_BYTES: Final = 96 * 1024
"""So that the WAL is moved and begun anew several times while the log is open."""
IDLE_S: Final = 0.005


def say(line: dict[str, object]) -> None:
    os.write(sys.stdout.fileno(), json.dumps(line).encode() + b"\n")


def make_events(chance: random.Random) -> list[NewEvent]:
    events = []
    for _ in range(chance.choice((1, 1, 2, 5))):
        size = chance.choice((1, 10, 100, 1000, 6000))
        body = chance.randbytes(chance.choice((1, 100, 5000)))
        documents = (Document(media_type="text/plain", body=body),) * (chance.random() < 0.3)
        data = {"text": "x" * chance.randrange(size)}
        events.append(NewEvent(type="counted", data=data, documents=documents))
    return events


async def append(log: EventLog, number: str, chance: random.Random) -> None:
    events = make_events(chance)
    say({"will": number, "ids": [event.event_id for event in events]})
    records = await log.append(chance.choice(STREAMS), events, expected=ANY)
    leaves = [record.leaf_hash.hex() for record in records]
    say({"did": number, "first": records[0].position, "leaves": leaves})


async def fill(log: EventLog, opened: int, chance: random.Random) -> None:
    for turn in range(ROUNDS):
        async with anyio.create_task_group() as together:
            for index in range(chance.randrange(1, 5)):
                own = random.Random(chance.random())
                together.start_soon(append, log, f"{opened}.{turn}.{index}", own)
        if chance.random() < 0.2:
            await anyio.sleep(4 * IDLE_S)


def weaken(synchronous: str) -> None:
    def weak(raw: sqlite3.Connection, path: str) -> None:
        configure_writer(raw, path)
        raw.execute(f"PRAGMA synchronous = {synchronous}")

    opening.configure_writer = weak


async def main(log_path: Path, key: Path, seed: int, synchronous: str) -> None:
    checkpoint.WAL_BYTES_MAX = WAL_BYTES  # type: ignore[misc]  # smaller, for the test
    checkpoint.IDLE_S = IDLE_S  # type: ignore[misc]  # shorter, for the test
    seal: SealPolicy | None = SealPolicy(signer=load_signer(key), events=5, seconds=3600)
    if synchronous != "FULL":
        weaken(synchronous)
        seal = None  # sealing sets synchronous as it should be
    chance = random.Random(seed)
    for opened in range(OPENINGS):
        async with open_log(log_path, seal=seal) as log:
            await fill(log, opened, chance)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
