"""Event ids: UUIDs of version 7, which sort by the time they were made."""

import os
import struct
import time
from typing import Final

NS_PER_MS: Final = 1_000_000
SUB_MS_STEPS: Final = 4096
RANDOM_BITS: Final = 62
RANDOM_WORD_BITS: Final = 64
RANDOM_WORDS: Final = struct.Struct("<128Q")
"""What is asked of the kernel at once: a call for each id takes as long as all the rest of it."""

_random_words: list[int] = []
os.register_at_fork(after_in_child=_random_words.clear)


def make_event_id(at_ns: int, random_bits: int) -> str:
    """Build an id from a time and :data:`RANDOM_BITS` random bits.

    The 12 bits after the version hold the fraction of the millisecond, so ids of one process sort
    about as finely as its clock ticks.

    Source: RFC 9562, sections 5.7 and 6.2 (method 3).
    """
    unix_ms, rest_ns = divmod(at_ns, NS_PER_MS)
    fraction = rest_ns * SUB_MS_STEPS // NS_PER_MS
    value = (unix_ms & (1 << 48) - 1) << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | random_bits
    digits = value.to_bytes(16, "big").hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def new_event_id() -> str:
    """A new UUIDv7 as text, 36 characters; its random bits are the kernel's. Thread-safe."""
    return make_event_id(time.time_ns(), _random_word() >> RANDOM_WORD_BITS - RANDOM_BITS)


def _random_word() -> int:
    try:
        return _random_words.pop()
    except IndexError:
        first, *others = RANDOM_WORDS.unpack(os.urandom(RANDOM_WORDS.size))
        _random_words.extend(others)
        return int(first)
