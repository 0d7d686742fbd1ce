"""``sandtrail log``."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import click
import msgspec

from eventstore import ReadOptions, RecordedEvent
from manager.adapters.client import LOG_FILE, read_events
from manager.cli.session import fail, json_option, root_option, run_async
from manager.schema.node_fold import STREAM_PREFIX

DETAIL_KEYS = ("error", "exit", "failure", "launched", "reason", "intent", "signo")
NS_PER_S: Final = 1_000_000_000
EPOCH: Final = datetime.fromtimestamp(0, UTC)


def moment_ns(text: str) -> int:
    """A time as people write it, as nanoseconds since 1970.

    ISO 8601, in the local zone unless it names one, or seconds since 1970.
    """
    try:
        if text.isascii() and text.isdigit():
            return int(text) * NS_PER_S
        moment = datetime.fromisoformat(text).astimezone()
    except ValueError:
        what = f"{text!r} is no time, such as 2026-01-31T12:00, or seconds since 1970"
        raise click.BadParameter(what) from None
    since = moment - EPOCH
    return (since.days * 86_400 + since.seconds) * NS_PER_S + since.microseconds * 1000


@click.command("log")
@root_option
@json_option
@click.option("-f", "--follow", is_flag=True, help="Go on with new events as they come.")
@click.option("--after", type=int, metavar="POSITION", help="Only events after this position.")
@click.option("--until", type=int, metavar="POSITION", help="Only events up to this position.")
@click.option("-s", "--sandbox", default="", help="Only events of this sandbox.")
@click.option("-t", "--type", "types", multiple=True, metavar="TAG", help="Only these; repeatable.")
@click.option(
    "--since",
    "since_ns",
    type=moment_ns,
    metavar="TIME",
    help="Only events recorded then or later.",
)
@click.option(
    "--before",
    "before_ns",
    type=moment_ns,
    metavar="TIME",
    help="Only events recorded before that.",
)
@click.option("-r", "--backwards", is_flag=True, default=None, help="Newest event first.")
@click.option("-n", "--limit", type=click.IntRange(min=0), help="At most that many events.")
def command(root: Path, as_json: bool, follow: bool, sandbox: str, **how: Any) -> None:
    """Print the log, oldest event first; with --json one object a line.

    Reads the file itself: no service needs to run. Times are those of the clock at the time, which
    may have been set back: --since and --before look at every event.
    """
    path = root / LOG_FILE
    if not path.exists():
        fail(f"there is no log at {path}: name the service's state directory with --root", 1)
    stream = STREAM_PREFIX + sandbox if sandbox else None
    given = {name: value for name, value in how.items() if value not in (None, ())}
    if follow and given.keys() - {"after"}:
        raise click.UsageError("--follow goes on for ever: of the rest it takes --after, --sandbox")
    options = cast("ReadOptions", given)

    async def call() -> None:
        events = read_events(path, stream, follow=follow, **options)
        async with aclosing(events) as records:
            await (_print_json(records) if as_json else _print_lines(records, follow))

    run_async(call)


async def _print_json(records: AsyncIterator[RecordedEvent]) -> None:
    async for record in records:
        click.echo(json_line(record))


async def _print_lines(records: AsyncIterator[RecordedEvent], follow: bool) -> None:
    from manager.cli.table import local_time, print_table, printable  # noqa: PLC0415 - rich

    if not follow:
        columns = ("#", "TIME", "STREAM", "EVENT", "ACTOR", "DETAIL")
        rows = [row_of(record, local_time(record.recorded_at_ns)) async for record in records]
        print_table(columns, rows)
        return
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
