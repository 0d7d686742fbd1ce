"""Outcomes that the manager has not made durable yet."""

from collections.abc import Callable
from typing import Literal

from manager.schema import worker as w


class Outbox:
    """Numbers outcomes, keeps each until it is acknowledged, sends all again on reconnection.

    Args:
        send: Sends one to the manager, if there is a connection.
    """

    def __init__(self, send: Callable[[w.Outcome], None]) -> None:
        self._send = send
        self._kept: dict[int, w.Outcome] = {}
        self._last_seq = 0

    def next_seq(self) -> int:
        """The number for the next outcome; each is used once."""
        self._last_seq += 1
        return self._last_seq

    def put(self, outcome: w.Outcome) -> None:
        """Keep and send; `outcome.seq` comes from `next_seq`."""
        self._kept[outcome.seq] = outcome
        self._send(outcome)

    def acknowledge(self, seq: int) -> None:
        """Forget everything up to and including `seq`."""
        self._kept = {number: each for number, each in self._kept.items() if number > seq}

    def send_again(self, about: str | None = None, kind: type[w.Outcome] | None = None) -> bool:
        """Send what is kept, oldest first: all of it, or what concerns one id, of one kind.

        Returns:
            Whether there was anything.
        """
        chosen = [
            each
            for each in self._kept.values()
            if about in (None, _subject(each)) and (kind is None or isinstance(each, kind))
        ]
        for outcome in chosen:
            self._send(outcome)
        return bool(chosen)

    def launches(self) -> list[w.LaunchFact]:
        """The launches that are over, but whose end the manager has not made durable yet."""
        phases: dict[str, Literal["exited", "failed"]] = {}
        for outcome in self._kept.values():
            if isinstance(outcome, w.Exited | w.StartFailed | w.Destroyed):
                failed = isinstance(outcome, w.StartFailed)
                phases[outcome.launch_id] = "failed" if failed else "exited"
        return [w.LaunchFact(launch_id=key, phase=phase) for key, phase in phases.items()]

    def __len__(self) -> int:
        return len(self._kept)


def _subject(outcome: w.Outcome) -> str:
    match outcome:
        case w.Held(hold_id=subject) | w.Killed(kill_id=subject):
            return subject
        case _:
            return outcome.launch_id
