"""``sandtrail audit stats``: what a log adds up to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from manager.terminal.manners import say
from manager.terminal.output import json_option, print_json
from manager.terminal.place import log_option, root_option
from manager.terminal.reading import log_path, read_log
from manager.terminal.table import printable
from replay.cli.filters import filter_options, filters_from
from replay.cli.window_line import window_line
from replay.duration import duration_text
from replay.stats import Latency, Stats, stats_of
from replay.trail import Trail, Window

BAR_CHARS: Final = 40
TOP: Final = 10


@click.command("stats")
@root_option
@log_option
@filter_options
@click.option("--top", type=click.IntRange(1, 1000), default=TOP, show_default=True,
              help="How many of each list to show.")  # fmt: skip
@json_option
def command(root: Path, log: Path | None, top: int, as_json: bool, **how: Any) -> None:
    """Count events, failures by reason, and show how long starts and restores took.

    Durations are between two events by the log's clock; each percentile is at most 5 % too high.
    """
    path = log_path(root, log)
    filters = filters_from(how)

    async def call() -> tuple[Stats, Window, str]:
        async with Trail.open(path) as trail:
            window = await filters.window(trail)
            stats = await stats_of(trail, filters.selection, window)
            return stats, window, await window_line(trail, window)

    stats, window, looked_at = read_log(call)
    if as_json:
        print_json(
            "audit-stats",
            log=str(path),
            first=window.first,
            last=window.last,
            **msgspec.to_builtins(stats),
        )
        return
    for line in _lines(stats, top):
        click.echo(printable(line))
    say(looked_at)
    say(f"{stats.events} of {window.count} events counted")


def _lines(stats: Stats, top: int) -> Iterator[str]:
    for title, counts in (
        ("outcome", stats.by_outcome),
        ("type", stats.by_type),
        ("actor", stats.by_actor),
        ("sandbox", stats.by_sandbox),
    ):
        yield from _counts(title, counts, top)
    if stats.reasons:
        yield "what did not come out as asked, by reason"
        for reason in stats.reasons[:top]:
            yield f"{reason.count:>9,}  {reason.text}  (last: #{reason.last})"
        yield from _more(len(stats.reasons) - top)
    for latency in stats.latencies:
        if latency.count or latency.failed:
            yield from _latency(latency)


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
    share = f"{found.failed / total:.1%}"
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
