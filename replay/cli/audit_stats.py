"""``sandtrail audit stats``: what a log adds up to."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from msgspec import Struct

from manager.terminal.folding import folded
from manager.terminal.manners import page, say
from manager.terminal.output import json_option, print_json
from manager.terminal.place import log_option, root_option
from manager.terminal.reading import log_path, read_log
from manager.terminal.table import full_time, printable
from replay.cli.filters import filter_options, filters_from
from replay.cli.window_line import window_line
from replay.duration import duration_text
from replay.stats import EFFECTS, Latency, Reason, Stats, stats_of
from replay.trail import Trail, Window

BAR_CHARS: Final = 40
FIELDS_OF_ALL: Final = ("outcome", "type", "actor", "sandbox")
FIELDS: Final = (*FIELDS_OF_ALL, "hour")
TOP: Final = 10
REASON_INDENT: Final = 11
"""Where a reason begins, behind how often it was."""


class _Asked(Struct, frozen=True, kw_only=True):
    """Which parts are wanted; all of them if none is named."""

    fields: tuple[str, ...]
    effects: tuple[str, ...]

    @property
    def all(self) -> bool:
        return not self.fields and not self.effects

    @property
    def wants_reasons(self) -> bool:
        return bool(self.effects) or self.all

    def blames(self, reason: Reason) -> bool:
        """Whether a reason is one why the wanted effects did not come to be."""
        tag = reason.text.partition(":")[0]
        return self.all or any(tag in each.fails for each in EFFECTS if each.name in self.effects)


@click.command("stats")
@root_option
@log_option
@filter_options
@click.option(
    "--by",
    "fields",
    type=click.Choice(FIELDS),
    multiple=True,
    help="Only the counts by this; repeatable.",
)
@click.option(
    "--latency",
    "effects",
    type=click.Choice([each.name for each in EFFECTS]),
    multiple=True,
    help="Only how long these took and why they failed; repeatable.",
)
@click.option("--top", type=click.IntRange(1, 1000), default=TOP, show_default=True,
              help="How many of each list to show.")  # fmt: skip
@json_option
def command(root: Path, log: Path | None, top: int, as_json: bool, **how: Any) -> None:
    """Count events, failures by reason, and show how long starts and restores took.

    Durations are between two events by the log's clock; each percentile is at most 5 % too high.
    With --by or --latency, only what they name is shown; JSON always has all of it.
    """
    path = log_path(root, log)
    asked = _Asked(fields=how["fields"], effects=how["effects"])
    filters = filters_from(how)

    async def call() -> tuple[Stats, Window, str]:
        async with Trail.open(path) as trail:
            window = await filters.window(trail)
            stats = await stats_of(trail, filters.selection, window)
            return stats, window, await window_line(trail, window)

    stats, window, looked_at = read_log(call)
    page()
    if as_json:
        print_json(
            "audit-stats",
            log=str(path),
            first=window.first,
            last=window.last,
            **msgspec.to_builtins(stats),
        )
        return
    for line in _lines(stats, asked, top):
        click.echo(folded(printable(line), REASON_INDENT))
    say(looked_at)
    say(f"{stats.events} of {window.count} events counted")


def _lines(stats: Stats, asked: _Asked, top: int) -> Iterator[str]:
    for field in asked.fields or (FIELDS_OF_ALL if not asked.effects else ()):
        if field == "hour":
            yield from _hours(stats.by_hour, top)
        else:
            yield from _counts(field, getattr(stats, f"by_{field}"), top)
    if asked.wants_reasons:
        yield from _reasons([each for each in stats.reasons if asked.blames(each)], top)
    for latency in stats.latencies:
        wanted = latency.what in asked.effects
        if wanted or (asked.all and (latency.count or latency.failed)):
            yield from _latency(latency)


def _reasons(reasons: Sequence[Reason], top: int) -> Iterator[str]:
    if reasons:
        yield "what did not come out as asked, by reason"
    for reason in reasons[:top]:
        yield f"{reason.count:>9,}  {reason.text}  (last: #{reason.last})"
    yield from _more(len(reasons) - top)


def _hours(counts: dict[str, int], top: int) -> Iterator[str]:
    """The newest hours, the oldest of them first, with a bar each."""
    yield "events by hour"
    yield from _more(len(counts) - top)
    shown = list(counts.items())[-top:]
    most = max((count for _, count in shown), default=1)
    for hour, count in shown:
        begins_ns = round(datetime.fromisoformat(hour).timestamp()) * 1_000_000_000
        yield f"{count:>9,}  {full_time(begins_ns)[:16]}  {'█' * max(1, BAR_CHARS * count // most)}"


def _counts(title: str, counts: dict[str, int], top: int) -> Iterator[str]:
    if not counts:
        return
    yield f"events by {title}"
    for name, count in list(counts.items())[:top]:
        yield f"{count:>9,}  {name}"
    yield from _more(len(counts) - top)


def _more(left: int) -> Iterator[str]:
    if left > 0:
        yield f"{'':>9}  … and {left} more: --top"


def _latency(found: Latency) -> Iterator[str]:
    total = found.count + found.failed
    share = f"{found.failed / max(total, 1):.1%}"
    yield f"{found.what}  n={total:,}  failed={found.failed:,} ({share})" + "".join(
        f"  {name} {duration_text(value)}"
        for name, value in (
            ("p50", found.p50_ns), ("p90", found.p90_ns), ("p99", found.p99_ns),
            ("max", found.max_ns),
        )
        if value is not None
    ) + (f" (#{found.max_position})" if found.max_position else "")  # fmt: skip
    most = max((bar.count for bar in found.bars), default=0)
    for bar in found.bars:
        blocks = "█" * max(round(BAR_CHARS * bar.count / most), 1 if bar.count else 0)
        yield f"  ≤ {duration_text(bar.to_ns):>7} {blocks} {bar.count:,}"
    if whole := sum(found.phases_us.values()):
        parts = (f"{name} {us / whole:.0%}" for name, us in found.phases_us.items())
        yield f"  phases: {' · '.join(parts)}"
    if found.stepped:
        yield f"  {found.stepped} left out: the clock was set back meanwhile"
