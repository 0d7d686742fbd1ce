"""What reading a request costs: finding its end and parsing it, beside Python's own JSON parser.

Usage: ``python -m benchmarks.bench_urpc [--record]``. Each row is a request of 5
MiB; times are the best of ROUNDS, the ratio is to ``json.loads`` on the same bytes in the same run.
"""

import argparse
import json
import time
from collections.abc import Callable

from benchmarks.recorded import print_beside, record
from manager.urpc.gojson import ValueScanner, parse

ROUNDS = 5
SIZE_BYTES = 5 * 1024 * 1024
CHUNK_BYTES = 64 * 1024


def requests() -> dict[str, bytes]:
    entry = b'{"destination":"/data","type":"bind","source":"/x","options":["ro","nosuid"]},'
    mounts = entry * (SIZE_BYTES // len(entry))
    return {
        "a spec of many mounts": b'{"mounts":[' + mounts[:-1] + b"]}",
        "one long string": b'{"a":"' + b"x" * SIZE_BYTES + b'"}',
        "escapes": b'{"a":"' + b"\\n" * (SIZE_BYTES // 2) + b'"}',
    }


def scan(raw: bytes) -> None:
    scanner = ValueScanner()
    for at in range(0, len(raw), CHUNK_BYTES):
        scanner.feed(raw[at : at + CHUNK_BYTES])


def best_ms(function: Callable[[bytes], object], raw: bytes) -> float:
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        function(raw)
        times.append(time.perf_counter() - began)
    return min(times) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="keep the ratios of this run")
    asked = parser.parse_args()
    ratios = {}
    print(f"{'5 MiB of':<24}{'scan ms':>9}{'parse ms':>9}{'json.loads ms':>15}{'ratio':>7}")
    for name, raw in requests().items():
        scanned, parsed = best_ms(scan, raw), best_ms(parse, raw)
        base = best_ms(json.loads, raw)
        total = ratios[f"{name}, to json.loads"] = (scanned + parsed) / base
        print(f"{name:<24}{scanned:>9.1f}{parsed:>9.1f}{base:>15.1f}{total:>7.2f}")
    print_beside("urpc", ratios)
    if asked.record:
        record("urpc", ratios)


if __name__ == "__main__":
    main()
