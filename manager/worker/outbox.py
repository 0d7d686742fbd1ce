"""Outcomes that the manager has not made durable yet."""

from collections.abc import Callable
from typing import Final, Literal

import msgspec

from manager.kernel.fail_points import reached
from manager.schema import worker as w
from manager.worker.ends import End, Ends, subject_of

SAID_AGAIN: Final = w.Destroyed | w.Held | w.Frozen
"""What any worker says when it is asked once more: that a launch is not there, or is stopped; or
that it holds what it was given, which ends with it."""


class Outbox:
    """Numbers outcomes, keeps each until it is acknowledged, sends all again on reconnection.

    Args:
        send: Sends one to the manager, if there is a connection.
        ends: Where exits are safe from the end of this process; `None` if nobody will ask.
    """

    def __init__(self, send: Callable[[w.Outcome], None], ends: Ends | None = None) -> None:
        self._send = send
        self._ends = ends
        self._kept: dict[int, w.Outcome] = {}
        self._on_disk: set[int] = set()
        self._last_seq = 0

    def next_seq(self) -> int:
        """The number for the next outcome; each is used once."""
        self._last_seq += 1
        return self._last_seq

    def put(self, outcome: w.Outcome) -> None:
        """Keep and send; `outcome.seq` comes from `next_seq`."""
        if self._ends is not None and isinstance(outcome, End):
            if self._ends.put(outcome):
                self._on_disk.add(outcome.seq)
            reached("end.written")
        self._kept[outcome.seq] = outcome
        self._send(outcome)

    def say(self, outcome: w.Outcome) -> None:
        """Send once, and keep nothing: no manager's log waits for it."""
        self._send(outcome)

    def inherit(self) -> frozenset[str]:
        """Keep the exits that a former worker saw and could not get acknowledged.

        Returns:
            The launches and execs that ended so.
        """
        inherited = [] if self._ends is None else self._ends.read()
        for end in inherited:
            self.put(msgspec.structs.replace(end, seq=self.next_seq()))
        return frozenset(subject_of(end) for end in inherited)

    def acknowledge(self, seq: int) -> list[w.Outcome]:
        """Forget everything up to and including `seq`; returns it."""
        forgotten = [each for number, each in self._kept.items() if number <= seq]
        for outcome in forgotten:
            del self._kept[outcome.seq]
            self._on_disk.discard(outcome.seq)
            if self._ends is not None and isinstance(outcome, End):
                self._ends.remove(outcome)
        reached("outbox.acknowledged")
        return forgotten

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

    def executions(self) -> list[str]:
        """The execs of which the manager has not made everything durable yet."""
        return [
            outcome.exec_id
            for outcome in self._kept.values()
            if isinstance(outcome, w.Executed | w.ExecFailed | w.ProcessExited)
        ]

    def saves(self) -> list[str]:
        """The checkpoints whose outcome the manager has not made durable yet."""
        return [
            outcome.checkpoint_id
            for outcome in self._kept.values()
            if isinstance(outcome, w.Saved | w.SaveFailed)
        ]

    @property
    def has_news(self) -> bool:
        """Whether something waits that no later worker could tell.

        An end that is on disk is told by the next one, and what SAID_AGAIN has is said by any.
        """
        return any(
            seq not in self._on_disk and not isinstance(each, SAID_AGAIN)
            for seq, each in self._kept.items()
        )


def _subject(outcome: w.Outcome) -> str:
    match outcome:
        case w.Held(hold_id=subject) | w.Killed(kill_id=subject) | w.Frozen(pause_id=subject):
            return subject
        case w.Executed(exec_id=subject) | w.ExecFailed(exec_id=subject):
            return subject
        case w.ProcessExited(exec_id=subject):
            return subject
        case w.Saved(checkpoint_id=subject) | w.SaveFailed(checkpoint_id=subject):
            return subject
        case _:
            return outcome.launch_id
