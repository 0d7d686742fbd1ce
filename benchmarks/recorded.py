"""The figures of the last run that was kept, so that a run can print its own beside them."""

import json
from pathlib import Path

FILE = Path(__file__).with_name("recorded.json")


def recorded(bench: str) -> dict[str, float]:
    """Figures of a bench by row; empty if none were kept."""
    if not FILE.exists():
        return {}
    figures: dict[str, dict[str, float]] = json.loads(FILE.read_text())
    return figures.get(bench, {})


def print_beside(bench: str, figures: dict[str, float]) -> None:
    """Print the figures of a run beside the last ones that were kept: a step back shows."""
    last = recorded(bench)
    print(f"\n{'':<80}{'now':>9}{'last':>9}")
    for name, now in figures.items():
        before = f"{last[name]:.2f}" if name in last else "-"
        print(f"{name:<80}{now:>9.2f}{before:>9}")


def record(bench: str, figures: dict[str, float]) -> None:
    """Keep the figures of a bench in place of its last ones."""
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    kept[bench] = {name: round(value, 3) for name, value in figures.items()}
    FILE.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
