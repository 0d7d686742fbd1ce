"""What bench_start found, as the tables of docs/performance.md."""

from collections.abc import Mapping, Sequence

COLUMNS = "| one at a time | median ms | to its engine | p95 |"


def print_tables(
    one: Mapping[str, tuple[float, float, float]],
    levels: Sequence[int],
    rates: Mapping[str, Sequence[float]],
) -> None:
    """Print both as Markdown.

    Args:
        one: Of each row: median and 95th percentile, ms, and the ratio to its engine.
        levels: How many at once,
        rates: and lives a second of each contender at each of these.
    """
    print(f"\n{COLUMNS}\n|{'---|' * (COLUMNS.count('|') - 1)}")
    for name, (median, p95, ratio) in one.items():
        print(f"| {name} | {median:.1f} | {ratio:.2f} | {p95:.1f} |")
    header = " | ".join(map(str, levels))
    print(f"\n| lives per second, at once | {header} |\n|{'---|' * (len(levels) + 1)}")
    for name, each in rates.items():
        print(f"| {name} | {' | '.join(f'{rate:.0f}' for rate in each)} |")
