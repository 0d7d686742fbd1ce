"""Durations in buckets: any number of them in bounded memory, each percentile within 5 %."""

import math
from collections import Counter
from typing import Final

from msgspec import Struct

BUCKETS_PER_DOUBLING: Final = 16
"""A bucket ends 4.4 % above where it begins."""


class Bar(Struct, frozen=True, kw_only=True):
    """How many durations are not above ``to_ns``, and above the bar before."""

    to_ns: int
    count: int


class Histogram:
    """Counts durations, in nanoseconds.

    Attributes:
        count: How many there are.
        min_ns: The shortest, exactly.
        max_ns: The longest, exactly.
    """

    def __init__(self) -> None:
        self.count = 0
        self.min_ns = 0
        self.max_ns = 0
        self._buckets: Counter[int] = Counter()

    def add(self, duration_ns: int) -> None:
        """Count one, 0 or more."""
        self.min_ns = duration_ns if not self.count else min(self.min_ns, duration_ns)
        self.max_ns = max(self.max_ns, duration_ns)
        self.count += 1
        self._buckets[_bucket(duration_ns)] += 1

    def percentile_ns(self, percent: float) -> int:
        """What so many per cent of them do not exceed: the end of a bucket, never over the longest.

        Raises:
            ValueError: There are none.
        """
        if not self.count:
            raise ValueError("no durations were counted")
        wanted = max(1, math.ceil(self.count * percent / 100))
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return min(_end_ns(bucket), self.max_ns)
        return self.max_ns

    def bars(self) -> list[Bar]:
        """The counts in steps of 1, 2, 5, 10, …, from the first that is not empty to the last."""
        counts: Counter[int] = Counter()
        for bucket, count in self._buckets.items():
            counts[_step_of(_end_ns(bucket))] += count
        if not counts:
            return []
        return [
            Bar(to_ns=_step_ns(step), count=counts[step])
            for step in range(min(counts), max(counts) + 1)
        ]


def _bucket(duration_ns: int) -> int:
    return math.ceil(math.log2(max(1, duration_ns)) * BUCKETS_PER_DOUBLING)


def _end_ns(bucket: int) -> int:
    return math.floor(2 ** (bucket / BUCKETS_PER_DOUBLING))


def _step_of(duration_ns: int) -> int:
    step = 3 * (len(str(duration_ns)) - 1)
    return step + next(more for more in range(4) if duration_ns <= _step_ns(step + more))


def _step_ns(step: int) -> int:
    decades, third = divmod(step, 3)
    return int((1, 2, 5)[third] * 10**decades)
