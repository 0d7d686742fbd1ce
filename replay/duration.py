"""Durations for people."""

from typing import Final

UNITS: Final = ((10**9, "s"), (10**6, "ms"), (10**3, "µs"))
MINUTE_S: Final = 60
HOUR_S: Final = 3600


def duration_text(duration_ns: int) -> str:
    """A duration with three digits: ``850 ns``, ``9.82 ms``, ``1.50 s``, ``2 h 5 min``."""
    seconds = duration_ns // 10**9
    if seconds >= HOUR_S:
        return f"{seconds // HOUR_S} h {seconds % HOUR_S // MINUTE_S} min"
    if seconds >= 10 * MINUTE_S:
        return f"{seconds // MINUTE_S} min {seconds % MINUTE_S} s"
    for factor, unit in UNITS:
        if duration_ns >= factor:
            return f"{_three(duration_ns / factor)} {unit}"
    return f"{duration_ns} ns"


def _three(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}".removesuffix(".0") if value >= 10 else f"{value:.2f}".removesuffix(".00")
