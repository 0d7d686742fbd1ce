"""How long each step of a launch takes."""

import time


class Phases:
    """A stopwatch with named laps, in microseconds, in the order taken."""

    def __init__(self) -> None:
        self.laps_us: dict[str, int] = {}
        self._since = time.monotonic_ns()

    def lap(self, name: str) -> None:
        """Everything since the last lap was `name`."""
        now = time.monotonic_ns()
        self.laps_us[name] = self.laps_us.get(name, 0) + (now - self._since) // 1000
        self._since = now
