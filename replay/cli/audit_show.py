"""``sandtrail audit show``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from eventstore import EventProof, RecordedEvent
from manager.terminal.ending import EXIT_UNREADABLE, fail
from manager.terminal.manners import page
from manager.terminal.output import json_option, print_json
from manager.terminal.place import WHEN, log_option, root_option
from manager.terminal.reading import log_path, read_log
from manager.terminal.table import full_time, printable
from manager.terminal.tree import tree_lines
from replay.cli.proving import make_proof
from replay.describe import detail, event_object, where
from replay.evidence.proof_document import proof_object
from replay.outcome import outcome_of
from replay.selection import Selection, payload, sandbox_of
from replay.trail import Trail, Window

EFFECTS_SHOWN_MAX: Final = 50


@click.command("show")
@root_option
@log_option
@json_option
@click.option(
    "--proof",
    "proven",
    is_flag=True,
    help="With the proof that it is in the log, as of `audit prove`.",
)
@click.argument("event", metavar="EVENT", type=WHEN)
def command(root: Path, log: Path | None, as_json: bool, proven: bool, event: str) -> None:
    """Show one event whole, what it was caused by, and what it led to.

    EVENT is a position or any other point; see `sandtrail help when`.

    Exit codes: 0 shown, 4 with --proof: not sealed so far, 5 not found, unreadable.
    """
    path = log_path(root, log)

    async def call() -> tuple[RecordedEvent | None, list[RecordedEvent], list[RecordedEvent], int]:
        async with Trail.open(path) as trail:
            record = await trail.record(await trail.position(event))
            if record is None:
                return None, [], [], 0
            return (
                record,
                await _causes(trail, record),
                await _effects(trail, record),
                trail.sealed(),
            )

    record, causes, effects, sealed = read_log(call)
    if record is None:
        fail("there is no event before the first one, #1", EXIT_UNREADABLE)
    proof = make_proof(path, range(record.position, record.position + 1)) if proven else None
    page()
    if as_json:
        print_json(
            "show",
            event=event_object(record),
            causes=[event_object(each) for each in causes],
            effects=[event_object(each) for each in effects],
            sealed=record.position <= sealed,
            proof=None if proof is None else proof_object(proof),
        )
        return
    for line in _lines(record, sealed):
        click.echo(line)
    for title, found in (("caused by", causes), ("led to", effects)):
        click.echo(f"{title}:" if found else f"{title}: nothing that is on record")
        for each in found:
            about = printable(f"{where(each)}  {detail(payload(each))}")
            click.echo(f"  #{each.position} {printable(each.type)}  {about}")
    if proof is not None:
        click.echo("\n".join(_proof_lines(proof)))


def _lines(record: RecordedEvent, sealed: int) -> list[str]:
    actor = record.actor
    who = "nobody outside" if actor is None else f"uid:{actor.uid} gid:{actor.gid} pid {actor.pid}"
    envelope = [
        f"#{record.position} {printable(record.type)}  {outcome_of(record.type, payload(record))}",
        f"at:       {full_time(record.recorded_at_ns)}  ({record.recorded_at_ns} ns)",
        f"stream:   {printable(record.stream)}, version {record.version}",
        f"id:       evt:{printable(record.event_id)}",
        f"request:  {printable(record.correlation_id or '-')}",
        f"by:       {who}",
        f"leaf:     {record.leaf_hash.hex()}  ({_seal(record.position, sealed)})",
    ]
    documents = [f"document: {digest}" for digest in record.documents]
    return [*envelope, *documents, "payload:", *tree_lines(payload(record), "  ")]


def _proof_lines(proof: EventProof) -> Iterator[str]:
    """The way from the leaf to a signed root; whoever wants to walk it takes the JSON."""
    (event,) = proof.events
    yield f"proof: from leaf {event.position - 1}, {event.leaf_hash().hex()}"
    for number, each in enumerate(proof.hashes, 1):
        yield f"  {number:>2}  {each.hex()}"
    yield f"  to the root over {proof.size} leaves in this checkpoint, which is signed:"
    for line in proof.note.splitlines():
        yield f"  | {printable(line)}".rstrip()
    yield f"  sandtrail audit prove '#{event.position}' > proof.json  makes a file of it;"
    yield "  python verify_trail.py proof.json --key LOG.pub  checks that anywhere"


def _seal(position: int, sealed: int) -> str:
    if position > sealed:
        return "not sealed yet"
    return f"sealed; sandtrail audit prove '#{position}'"


async def _causes(trail: Trail, record: RecordedEvent) -> list[RecordedEvent]:
    """What it was caused by, the nearest first."""
    found: list[RecordedEvent] = []
    at, cause = record.position, record.causation
    while cause is not None and cause < at:
        earlier = await trail.record(cause)
        if earlier is None:
            break
        found.append(earlier)
        at, cause = earlier.position, earlier.causation
    return found


async def _effects(trail: Trail, record: RecordedEvent) -> list[RecordedEvent]:
    """What names it as its cause, at whatever remove, the first EFFECTS_SHOWN_MAX."""
    window = Window(first=record.position + 1, last=await trail.head())
    selection = Selection(sandbox=sandbox_of(record), causes=(record.position,))
    found: list[RecordedEvent] = []
    async for each in trail.events(selection, window):
        found.append(each)
        if len(found) == EFFECTS_SHOWN_MAX:
            break
    return found
