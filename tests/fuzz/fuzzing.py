"""Inputs that are nearly right: Hypothesis draws short programs that change good samples.

Most changes of a good input are found out at once by whatever checks come first; a few get deep.
How many inputs a target gets is said by SANDTRAIL_FUZZ_INPUTS; `make fuzz` asks for many.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.patience import PATIENCE_S

INPUTS = int(os.environ.get("SANDTRAIL_FUZZ_INPUTS", "400"))
FIRST_SEED = int(os.environ.get("SEED", "1"))
ROUND_INPUTS = 2000
"""Inputs under one seed: Hypothesis remembers all that it has tried in a round."""

INTERESTING = (
    b"\0",
    b"\xff",
    b"\x80",
    b"-1",
    b"{",
    b"}",
    b"[",
    b'"',
    b"\\u0000",
    b"null",
    b"1e999",
)

programs = st.binary(min_size=1, max_size=60)


class Hang(BaseException):
    """An input that a target does not come to an end with.

    No Exception: no target can take it for a refusal, and Hypothesis does not wait for the same
    hang a hundred times to find a shorter one.
    """


def fuzz(
    target: Callable[[bytes], None],
    samples: Sequence[bytes],
    inputs: int = INPUTS,
    seconds: float = PATIENCE_S,
) -> int:
    """Give ``target`` that many inputs; returns how many it was given, from all rounds.

    A target raises AssertionError for what must not be, or lets any unforeseen exception out:
    Hypothesis then shows the shortest input that it finds, and the seed of the round.

    Raises:
        Hang: An input took longer than ``seconds``; it is in the text.
    """
    given_so_far = 0

    def one(program: bytes) -> None:
        nonlocal given_so_far
        given_so_far += 1
        data = mutated(samples, program)
        with _ended_within(seconds, data):
            target(data)

    round_number = 0
    while given_so_far < inputs:
        size = min(ROUND_INPUTS, inputs - given_so_far)
        how = settings(
            max_examples=size,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        seed(FIRST_SEED + round_number)(how(given(programs)(one)))()
        round_number += 1
    return given_so_far


@contextlib.contextmanager
def _ended_within(seconds: float, data: bytes) -> Iterator[None]:
    """Raise in the midst of what takes longer; whoever else has set the timer has it back then."""

    def give_up(*_: object) -> None:
        raise Hang(f"not done with this input in {seconds:g} s: {data!r}")

    handler = signal.signal(signal.SIGALRM, give_up)
    former = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *former)
        signal.signal(signal.SIGALRM, handler)


def mutated(samples: Sequence[bytes], program: bytes) -> bytes:
    """A sample, changed as a program of five-byte steps says; its first byte picks the sample."""
    data = bytearray(samples[program[0] % len(samples)])
    for at in range(1, len(program) - 4, 5):
        what, value = program[at : at + 2]
        place = int.from_bytes(program[at + 2 : at + 5], "big") % (len(data) + 1)
        match what % 8:
            case 0:
                data[place : place + 1] = bytes([value])
            case 1:
                data.insert(place, value)
            case 2:
                del data[place : place + 1 + value]
            case 3:
                del data[place:]
            case 4:
                data[place:place] = data[place : place + 1 + value]
            case 5:
                data[place:place] = INTERESTING[value % len(INTERESTING)]
            case 6 if place < len(data):
                data[place] ^= 1 << value % 8
            case _:
                other = samples[value % len(samples)]
                data[place:] = other[place : place + 256]
    return bytes(data)
