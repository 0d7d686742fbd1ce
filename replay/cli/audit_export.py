"""``sandtrail audit export``: the log in the formats of other tools."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import click

from eventstore import (
    CheckpointStale,
    LimitExceeded,
    NoteRejected,
    RecordedEvent,
    SignatureAbsent,
    prove_events,
)
from manager.schema.node_snapshot import node_snapshots, open_fold
from manager.terminal.ending import EXIT_INCONCLUSIVE, EXIT_NO, EXIT_UNREADABLE, EXIT_USAGE, fail
from manager.terminal.manners import say
from manager.terminal.place import WRITTEN_FILE, log_option, root_option
from manager.terminal.reading import log_path, read_log
from replay.cli.filters import Filters, filter_options, filters_from
from replay.cli.output_file import new_file
from replay.describe import event_line
from replay.export.bundle import write_bundle
from replay.export.cloud_events import cloud_event_lines
from replay.export.open_telemetry import otlp_lines
from replay.export.origin import origin_of
from replay.export.parquet import ParquetMissing, parquet_file
from replay.export.perfetto import perfetto_parts
from replay.export.table import csv_lines
from replay.lanes import LaneTracker
from replay.selection import Matcher, Selection
from replay.trail import Trail, Window

JSON_LINES: Final = "jsonl"
PARQUET: Final = "parquet"
BUNDLE: Final = "bundle"
FORMATS: Final = (JSON_LINES, "csv", PARQUET, "cloudevents", "otlp", "perfetto", BUNDLE)


@click.command("export")
@root_option
@log_option
@click.option("-o", "--output", type=click.Choice(FORMATS), show_default="jsonl",
              help="The format.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="As -o jsonl.")
@click.option("--out", type=WRITTEN_FILE, metavar="FILE",
              help="A new file, instead of stdout; parquet and a bundle need one.")  # fmt: skip
@filter_options
def command(
    root: Path, log: Path | None, output: str | None, as_json: bool, out: Path | None, **how: Any
) -> None:
    """Write events in a format of other tools.

    \b
    jsonl        one event a line, as `sandtrail log --json` has it
    csv          for spreadsheets
    parquet      the same members as columns; needs the extra sandtrail[parquet]
    cloudevents  CloudEvents 1.0, JSON, one event a line
    otlp         OpenTelemetry logs as OTLP/JSON, many events a line
    perfetto     a trace for ui.perfetto.dev, a track a container
    bundle       events, their proof and a verifier, up to the newest seal
    """
    if as_json and output not in {None, JSON_LINES}:
        raise click.UsageError(f"--json is -o {JSON_LINES}: not with -o {output}")
    output = output or JSON_LINES
    path = log_path(root, log)
    filters = filters_from(how)
    if output in {BUNDLE, PARQUET} and out is None:
        raise click.UsageError(f"-o {output} makes a file: name it with --out")
    if output == BUNDLE and out is not None:
        _bundle(path, filters, out)
        return

    async def call() -> int:
        counter = _Counter()
        async with Trail.open(path) as trail:
            with _destination(output, out) as write:
                async for part in _parts(trail, filters, output, counter):
                    write(part)
        return counter.count

    try:
        count = read_log(call)
    except ParquetMissing as missing:
        fail(str(missing), EXIT_USAGE)
    say(f"{count} events exported")


def _destination(output: str, out: Path | None) -> AbstractContextManager[Callable[[str], object]]:
    return parquet_file(out) if output == PARQUET and out is not None else new_file(out)


class _Counter:
    """Counts what passes."""

    def __init__(self) -> None:
        self.count = 0

    async def over(self, records: AsyncIterator[RecordedEvent]) -> AsyncIterator[RecordedEvent]:
        async for record in records:
            self.count += 1
            yield record


async def _parts(
    trail: Trail, filters: Filters, output: str, counter: _Counter
) -> AsyncIterator[str]:
    window = await filters.window(trail)
    if output == "perfetto":
        async for part in _perfetto(trail, filters, window, counter):
            yield part
        return
    records = counter.over(trail.events(filters.selection, window))
    match output:
        case "csv":
            parts = csv_lines(records)
        case "cloudevents":
            parts = cloud_event_lines(trail, records, origin_of(trail.path))
        case "otlp":
            parts = otlp_lines(records, origin_of(trail.path))
        case _:
            parts = _json_lines(records)
    async for part in parts:
        yield part


async def _json_lines(records: AsyncIterator[RecordedEvent]) -> AsyncIterator[str]:
    async for record in records:
        yield event_line(record) + "\n"


async def _perfetto(
    trail: Trail, filters: Filters, window: Window, counter: _Counter
) -> AsyncIterator[str]:
    before = window.first - 1
    fold = await open_fold(trail.log, node_snapshots(trail.path.parent), until=before)
    began = await trail.as_of(max(before, 1))
    tracker = LaneTracker(trail.log, fold, began.time_ns, filters.selection.sandbox)
    matcher = Matcher(filters.selection)

    def fits(record: RecordedEvent) -> bool:
        found = matcher.fits_any(record)
        counter.count += found
        return found

    records = trail.events(Selection(), window)
    async for part in perfetto_parts(tracker, records, fits):
        yield part


def _bundle(path: Path, filters: Filters, out: Path) -> None:
    if out.exists():
        fail(f"{out} exists: a bundle is a new file", EXIT_UNREADABLE)

    async def call() -> int:
        async with Trail.open(path) as trail:
            window, sealed = await filters.window(trail), trail.sealed()
            if not sealed:
                fail(f"{path} was never sealed: the service does it, with a key", EXIT_INCONCLUSIVE)
            if filters.until is None:
                window = Window(first=window.first, last=min(window.last, sealed))
            records = [record async for record in trail.events(filters.selection, window)]
        if not records:
            fail("no sealed event is asked for: there is nothing to be shown", EXIT_NO)
        try:
            proof = prove_events(path, [each.position for each in records], documents=True)
        except CheckpointStale as error:
            fail(f"{error}; without --until the bundle ends at the newest seal", EXIT_INCONCLUSIVE)
        except (NoteRejected, SignatureAbsent) as error:
            fail(str(error), EXIT_INCONCLUSIVE)
        except LimitExceeded as error:
            fail(f"{error}; make bundles of parts of it", EXIT_USAGE)
        write_bundle(out, proof, (event_line(record) + "\n" for record in records))
        return len(records)

    count = read_log(call)
    say(f"{count} events exported with their proof: {out}")
