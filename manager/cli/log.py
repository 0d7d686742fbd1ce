"""``sandtrail log``."""

from contextlib import aclosing
from pathlib import Path
from typing import Any

import click
import msgspec

from eventstore import RecordedEvent
from manager.adapters.client import LOG_FILE, read_events
from manager.cli.session import fail, json_option, root_option, run_async
from manager.schema.node_fold import STREAM_PREFIX

DETAIL_KEYS = ("error", "exit", "failure", "launched", "reason", "intent", "signo")


@click.command("log")
@root_option
@json_option
@click.option("-f", "--follow", is_flag=True, help="Go on with new events as they come.")
@click.option("--after", default=0, metavar="POSITION", help="Only events after this position.")
@click.option("-s", "--sandbox", default="", help="Only events of this sandbox.")
def command(root: Path, as_json: bool, follow: bool, after: int, sandbox: str) -> None:
    """Print the log, oldest event first; with --json one object a line.

    Reads the file itself: no service needs to run.
    """
    path = root / LOG_FILE
    if not path.exists():
        fail(f"there is no log at {path}: name the service's state directory with --root", 1)
    stream = STREAM_PREFIX + sandbox if sandbox else None

    async def call() -> None:
        if as_json:
            async with aclosing(read_events(path, after, stream, follow)) as records:
                async for record in records:
                    click.echo(json_line(record))
        else:
            await _print_lines(path, after, stream, follow)

    run_async(call)


async def _print_lines(path: Path, after: int, stream: str | None, follow: bool) -> None:
    from manager.cli.table import local_time, print_table, printable  # noqa: PLC0415 - rich

    columns = ("#", "TIME", "STREAM", "EVENT", "ACTOR", "DETAIL")
    if not follow:
        rows = [
            row_of(record, local_time(record.recorded_at_ns))
            async for record in read_events(path, after, stream, follow=False)
        ]
        print_table(columns, rows)
        return
    async with aclosing(read_events(path, after, stream, follow=True)) as records:
        async for record in records:
            cells = row_of(record, local_time(record.recorded_at_ns))
            click.echo("  ".join(map(printable, cells)))


def row_of(record: RecordedEvent, clock: str) -> tuple[str, ...]:
    """One event as the cells of a table."""
    data: dict[str, Any] = msgspec.json.decode(record.data)
    actor = record.actor
    return (
        str(record.position),
        clock,
        record.stream.removeprefix(STREAM_PREFIX),
        record.type,
        f"uid:{actor.uid}" if actor is not None else "-",
        detail(data),
    )


def detail(data: dict[str, Any]) -> str:
    """What a person wants to know first of an event's payload."""
    parts = [str(data["container"])] if data.get("container") else []
    match data:
        case {"error": str(error)} if error:
            parts.append(error)
        case {"failure": {"error": error}}:
            parts.append(error)
        case {"exit": {"type": "exited", "code": code}, "source": source}:
            parts.append(f"exit {code} (told by {source})")
        case {"exit": {"type": "signaled", "signal": signo}, "source": source}:
            parts.append(f"signal {signo} (told by {source})")
        case {"launched": {"pid": pid, "engine": engine}}:
            parts.append(f"pid {pid} by {engine}")
        case {"intent": {"executable": program, "engine": engine, "request": request}}:
            parts.append(f"{program} by {engine}, {len(request.get('files', ()))} files")
        case {"signo": signo}:
            parts.append(f"signal {signo}")
        case {"reason": reason}:
            parts.append(str(reason))
        case _:
            pass
    return ": ".join(parts)


def json_line(record: RecordedEvent) -> str:
    """One event as a line of JSON."""
    actor = record.actor
    return msgspec.json.encode(
        {
            "schema": "sandtrail.event/v1",
            "position": record.position,
            "stream": record.stream,
            "version": record.version,
            "type": record.type,
            "event_id": record.event_id,
            "recorded_at_ns": record.recorded_at_ns,
            "correlation_id": record.correlation_id,
            "causation": record.causation,
            "actor": None
            if actor is None
            else {"uid": actor.uid, "gid": actor.gid, "pid": actor.pid},
            "data": msgspec.Raw(bytes(record.data)),
            "leaf_hash": record.leaf_hash.hex(),
        }
    ).decode()
