"""Verifying a log takes the same memory however long the log is."""

import tracemalloc
from pathlib import Path

from eventstore import (
    ANY,
    Document,
    NewEvent,
    SealPolicy,
    Signer,
    Verdict,
    load_signer,
    open_log,
    verify_log,
)

SHORT = 3_000
LONG = 8 * SHORT
GROWTH_BYTES_MAX = 128 * 1024
"""Far less than the rows between the two, of which each is an object of some hundred bytes."""


async def write(path: Path, signer: Signer, how_many: int) -> None:
    async with open_log(path, seal=SealPolicy(signer=signer, events=500)) as log:
        for begin in range(0, how_many, 500):
            documents = (Document(media_type="text/plain", body=b"%d" % begin * 1000),)
            events = [
                NewEvent(type="t", data={"n": number}, documents=documents)
                for number in range(begin, begin + 500)
            ]
            await log.append(f"s{begin % 7}", events, expected=ANY)


def peak_bytes(path: Path, signer: Signer) -> int:
    tracemalloc.start()
    try:
        found = verify_log(path, trusted=[signer.verifier])
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        assert found.verdict is Verdict.INTACT


async def test_the_memory_of_a_verification_does_not_grow_with_the_log(tmp_path: Path) -> None:
    signer = load_signer(tmp_path / "log.key")
    peaks = []
    for how_many in (SHORT, SHORT, LONG):  # the first one also pays for imports and caches
        path = tmp_path / f"{len(peaks)}.db"
        await write(path, signer, how_many)
        peaks.append(peak_bytes(path, signer))
    print(peaks)
    assert peaks[2] - peaks[1] < GROWTH_BYTES_MAX
