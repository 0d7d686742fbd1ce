"""A verifier of logs by somebody who has read docs/log-format.md and nothing else.

Nothing but the standard library: ``python -I -S log_format_stranger.py LOG VERIFIER_KEY [NOTE]``.
The steps are those of the page's section "Verifying a log". Prints ``ok SIZE ROOT`` for the newest
checkpoint, or the number of the step that failed and why.
"""

import base64
import hashlib
import sqlite3
import sys
from itertools import count

EVENT_COLUMNS = (
    "position, stream, version, type, event_id, recorded_at_ns, correlation_id, causation, actor, "
    "data"
)


class BadError(Exception):
    """A step failed: its number, what was wrong."""


def check(step: int, right: bool, problem: str) -> None:
    if not right:
        raise BadError(step, problem)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def canonical(values: list[object]) -> bytes:
    encoded = b"sandtrail-event-v1\n"
    for value in values:
        if value is None:
            encoded += b"\x00"
        else:
            content = str(value).encode()
            encoded += b"\x01" + len(content).to_bytes(4, "big") + content
    return encoded


def leaf(values: list[object]) -> bytes:
    return sha256(b"\x00" + canonical(values))


def root(leaves: list[bytes]) -> bytes:
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return sha256(b"\x01" + root(leaves[:half]) + root(leaves[half:]))


# RFC 8032, section 5.1: points in extended coordinates.
PRIME = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
CURVE_D = -121665 * pow(121666, -1, PRIME) % PRIME
Point = tuple[int, int, int, int]


def add(one: Point, two: Point) -> Point:
    a = (one[1] - one[0]) * (two[1] - two[0]) % PRIME
    b = (one[1] + one[0]) * (two[1] + two[0]) % PRIME
    c = 2 * one[3] * two[3] * CURVE_D % PRIME
    d = 2 * one[2] * two[2] % PRIME
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % PRIME, g * h % PRIME, f * g % PRIME, e * h % PRIME


def multiply(scalar: int, point: Point) -> Point:
    result: Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def decode_point(encoded: bytes) -> Point:
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    square = (y * y - 1) * pow(CURVE_D * y * y + 1, -1, PRIME) % PRIME
    x = pow(square, (PRIME + 3) // 8, PRIME)
    if (x * x - square) % PRIME:
        x = x * pow(2, (PRIME - 1) // 4, PRIME) % PRIME
    if (x * x - square) % PRIME or y >= PRIME:
        raise ValueError("not a point of the curve")
    if x & 1 != sign:
        x = PRIME - x
    return x, y, 1, x * y % PRIME


BASE = decode_point((4 * pow(5, -1, PRIME) % PRIME).to_bytes(32, "little"))


def is_signed(public: bytes, message: bytes, signature: bytes) -> bool:
    """Ed25519."""
    try:
        key, nonce = decode_point(public), decode_point(signature[:32])
    except ValueError:
        return False
    scalar = int.from_bytes(signature[32:], "little")
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little")
    left, right = multiply(scalar, BASE), add(nonce, multiply(challenge % ORDER, key))
    same = (left[0] * right[2] - right[0] * left[2]) % PRIME == 0
    return scalar < ORDER and same and (left[1] * right[2] - right[1] * left[2]) % PRIME == 0


def open_note(note: str, verifier_key: str) -> tuple[int, bytes]:
    """Size and root of a note that is signed by the key."""
    name, key_id, encoded = verifier_key.strip().split("+", 2)
    key = base64.b64decode(encoded)
    check(5, key[0] == 1 and len(key) == 33, "not an Ed25519 key")
    check(5, sha256(f"{name}\n".encode() + key)[:4].hex() == key_id, "the key's id is wrong")
    text, _, signatures = note.rpartition("\n\n")
    signed = text + "\n"
    for line in signatures.splitlines():
        dash, signer, blob = line.split(" ")
        decoded = base64.b64decode(blob)
        if dash == "\u2014" and signer == name and decoded[:4].hex() == key_id:
            check(5, is_signed(key[1:], signed.encode(), decoded[4:]), "the signature is wrong")
            _, size, encoded_root, *_extensions = signed.splitlines()
            return int(size), base64.b64decode(encoded_root)
    raise BadError(5, "not signed by the key")


def check_rows(log: sqlite3.Connection) -> list[bytes]:
    """Steps 1 to 3; all leaf hashes."""
    check(1, log.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "the file is damaged")
    documents: dict[str, bytes] = dict(log.execute("SELECT digest, body FROM documents"))
    for digest, body in documents.items():
        check(3, digest == "sha256:" + sha256(body).hex(), f"{digest} has another body")
    versions: dict[object, count[int]] = {}
    leaves = []
    rows = log.execute(f"SELECT leaf_hash, {EVENT_COLUMNS} FROM events ORDER BY position")
    for expected, (stored, *values) in enumerate(rows, start=1):
        check(2, values[0] == expected, f"position {expected} is missing")
        version = next(versions.setdefault(values[1], count(1)))
        check(2, values[2] == version, f"position {expected} has the wrong version")
        named = log.execute(
            "SELECT digest FROM event_documents WHERE position = ? ORDER BY ordinal", (expected,)
        )
        digests = [digest for (digest,) in named]
        check(3, leaf(values + digests) == stored, f"position {expected} does not give its leaf")
        check(3, documents.keys() >= set(digests), f"position {expected} lacks a document")
        leaves.append(stored)
    return leaves


def verify(path: str, verifier_key: str, kept: str | None = None) -> tuple[int, bytes]:
    """Size and root of the newest checkpoint, all six steps passed.

    Raises:
        BadError: The step that did not.
    """
    log = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    leaves = check_rows(log)
    newest = (0, root([]))
    for size, stored, note in log.execute("SELECT size, root, note FROM checkpoints ORDER BY size"):
        check(4, size <= len(leaves), f"checkpoint {size} is beyond the end")
        check(4, root(leaves[:size]) == stored, f"checkpoint {size} has another root")
        check(5, open_note(note, verifier_key) == (size, stored), f"the note of {size} is another")
        newest = size, stored
    if kept is not None:
        size, told = open_note(kept, verifier_key)
        check(6, size <= len(leaves), f"the log ends before {size}")
        check(6, root(leaves[:size]) == told, "history was rewritten")
    log.close()
    return newest


if __name__ == "__main__":
    try:
        found = verify(*sys.argv[1:])
    except BadError as error:
        print(f"step {error.args[0]}: {error.args[1]}")
        sys.exit(1)
    print("ok", found[0], found[1].hex())
