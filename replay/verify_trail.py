"""Checks a proof that events are in a log, with nothing but Python's standard library.

::

    python verify_trail.py PROOF --key LOG.pub [--checkpoint KEPT.note] [-v] [--json]

PROOF is what ``sandtrail audit prove`` prints or a bundle of ``sandtrail audit export -o bundle``;
the key is a verifier key that you did not get together with it. Exit codes: 0 proven, 3 proven
wrong, 4 inconclusive (no key, another key, another checkpoint), 5 not readable. This file is whole
by itself: copy it, read it. The rules are those of ``docs/log-format.md`` and ``docs/auditing.md``.
"""

import argparse
import base64
import hashlib
import json
import sys
import zipfile
from bisect import bisect_left
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

PROOF_BYTES_MAX = 512 * 1024 * 1024
COLUMNS: dict[str, tuple[type, ...]] = {
    "position": (int,), "stream": (str,), "version": (int,), "type": (str,), "event_id": (str,),
    "recorded_at_ns": (int,), "correlation_id": (str, type(None)), "causation": (int, type(None)),
    "actor": (str, type(None)), "data": (str,),
}  # fmt: skip
Point: TypeAlias = tuple[int, int]
Key: TypeAlias = tuple[str, str, bytes]  # name, id in hexadecimal, public key


class ProofError(Exception):
    """Why it is not proven: exit code, a word for programs, a line for people."""


class Note(NamedTuple):
    """A checkpoint and its signatures: name and id of the key, and the signature."""

    origin: str
    size: int
    root: bytes
    signed: bytes
    signatures: list[tuple[str, str, bytes]]


def sha256(data: bytes) -> bytes:  # noqa: D103 - as it says
    return hashlib.sha256(data).digest()


def digests(texts: list[str]) -> list[bytes]:
    """Hashes, of 32 bytes each, from hexadecimal; raises ValueError if they are not."""
    if any(len(each) != 64 for each in texts):
        raise ValueError("a hash has 64 hexadecimal digits")
    return [bytes.fromhex(each) for each in texts]


def leaf(event: dict[str, Any]) -> bytes:
    """The leaf hash of an event (docs/log-format.md, Leaf hash)."""
    encoded = b"sandtrail-event-v1\n"
    for value in (*(event[name] for name in COLUMNS), *event["documents"]):
        content = str(value).encode()
        present = b"\x01" + len(content).to_bytes(4, "big") + content
        encoded += b"\x00" if value is None else present
    return sha256(b"\x00" + encoded)


class Tree:
    """Computes a root from selected leaves and the roots of everything beside them."""

    def __init__(self, leaves: dict[int, bytes], hashes: list[bytes], say: bool) -> None:
        self.leaves, self.hashes, self.say = leaves, iter(hashes), say
        self.indices = sorted(leaves)

    def root(self, begin: int, end: int) -> bytes:
        """The root over leaves ``begin`` to ``end - 1``; takes the proof's hashes left to right."""
        if bisect_left(self.indices, begin) == bisect_left(self.indices, end):
            found, how = next(self.hashes, b""), "given"
        elif end - begin == 1:
            found, how = self.leaves[begin], "event"
        else:
            middle = begin + (1 << ((end - begin - 1).bit_length() - 1))
            found = sha256(b"\x01" + self.root(begin, middle) + self.root(middle, end))
            how = "SHA-256(1 ‖ left ‖ right)"
        if self.say:
            print(f"  #{begin + 1} to #{end}: {found.hex()} {how}", file=sys.stderr)
        return found


def extends(old: int, old_root: bytes, size: int, root: bytes, hashes: list[bytes]) -> bool:
    """Whether a consistency proof holds. Source: RFC 9162, section 2.1.4.2."""
    if old in {0, size}:
        return not hashes and (old == 0 or old_root == root)
    path = [old_root, *hashes] if old & (old - 1) == 0 else list(hashes)
    if not path:
        return False
    node, last = old - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    before = now = path[0]
    for each in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            before, now = sha256(b"\x01" + each + before), sha256(b"\x01" + each + now)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            now = sha256(b"\x01" + now + each)
        node, last = node >> 1, last >> 1
    return last == 0 and before == old_root and now == root


# Ed25519: RFC 8032, section 5.1.
PRIME, CURVE_D = 2**255 - 19, -121665 * pow(121666, -1, 2**255 - 19)
ORDER = 2**252 + 27742317777372353535851937790883648493


def add(one: Point, two: Point) -> Point:
    """The sum of two points."""
    (a, b), (c, d), product = one, two, CURVE_D * one[0] * one[1] * two[0] * two[1]
    x = (a * d + b * c) * pow(1 + product, -1, PRIME)
    return x % PRIME, (b * d + a * c) * pow(1 - product, -1, PRIME) % PRIME


def multiply(scalar: int, point: Point) -> Point:
    """A multiple of a point."""
    result = (0, 1)
    while scalar:
        result = add(result, point) if scalar & 1 else result
        point, scalar = add(point, point), scalar >> 1
    return result


def decode_point(encoded: bytes) -> Point:
    """The point that 32 bytes stand for; raises ValueError if they stand for none."""
    sign, y = divmod(int.from_bytes(encoded, "little"), 2**255)
    square = (y * y - 1) * pow(CURVE_D * y * y + 1, -1, PRIME) % PRIME
    x = pow(square, (PRIME + 3) // 8, PRIME)
    x = x if x * x % PRIME == square else x * pow(2, (PRIME - 1) // 4, PRIME) % PRIME
    if len(encoded) != 32 or y >= PRIME or x * x % PRIME != square or (not x and sign):
        raise ValueError("not a point of the curve")
    return (x if x & 1 == sign else PRIME - x), y


def is_signed(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether an Ed25519 signature is that of the key over the message."""
    try:
        key, nonce = decode_point(public), decode_point(signature[:32])
    except ValueError:
        return False
    scalar = int.from_bytes(signature[32:], "little")
    hashed = hashlib.sha512(signature[:32] + public + message).digest()
    base = decode_point((4 * pow(5, -1, PRIME) % PRIME).to_bytes(32, "little"))
    right = add(nonce, multiply(int.from_bytes(hashed, "little") % ORDER, key))
    return len(signature) == 64 and scalar < ORDER and multiply(scalar, base) == right


def read_key(text: str) -> Key:
    """Read a verifier key, ``name+id+base64``."""
    name, key_id, encoded = (*text.strip().split("+", 2), "", "")[:3]
    blob = base64.b64decode(encoded)
    if len(blob) != 33 or blob[0] != 1 or sha256(f"{name}\n".encode() + blob)[:4].hex() != key_id:
        raise ProofError(5, "key-unreadable", "the key is no verifier key (NAME+ID+BASE64)")
    return name, key_id, blob[1:]


def read_note(text: str) -> Note:
    """Split a checkpoint; nothing of it is verified."""
    body, blank, tail = text.rpartition("\n\n")
    lines = body.split("\n")
    if not blank or len(lines) < 3 or not lines[1].isdecimal():
        raise ValueError("not a signed checkpoint")
    signatures = []
    for _, name, encoded in (line.split(" ") for line in tail.splitlines()):
        blob = base64.b64decode(encoded, validate=True)
        signatures.append((name, blob[:4].hex(), blob[4:]))
    root = base64.b64decode(lines[2], validate=True)
    return Note(lines[0], int(lines[1]), root, f"{body}\n".encode(), signatures)


def check_signature(note: Note, keys: list[Key], what: str) -> str:
    """The name of the key that has signed; raises if none of them has, or there is none."""
    if not keys:
        raise ProofError(4, "no-key", f"no key was given: {what} proves only that it fits itself")
    found = ""
    for name, key_id, public in keys:
        for signature in (each[2] for each in note.signatures if each[:2] == (name, key_id)):
            if not is_signed(public, note.signed, signature):
                raise ProofError(3, "bad-signature", f"{what}: the signature of {name} is forged")
            found = f"{name}+{key_id}"
    others = [f"{name}+{key_id}" for name, key_id, _ in note.signatures]
    if not found:
        raise ProofError(4, "other-key", f"{what} is not signed by the given key, but by {others}")
    return found


def check_proof(
    proof: dict[str, Any], keys: list[Key], kept: str | None, *, say: bool = False
) -> dict[str, Any]:
    """What a proof shows; raises ProofError if it does not, ValueError or so if it is none."""
    events = proof["events"]
    typed = all(type(event[name]) in COLUMNS[name] for event in events for name in COLUMNS)
    if not typed or not all(type(each) is str for event in events for each in event["documents"]):
        raise ValueError("members of its events are of the wrong types")
    leaves = {event["position"] - 1: leaf(event) for event in events}
    note = read_note(proof["checkpoint"])
    hashes = digests(proof["hashes"])
    if not events or len(leaves) != len(events) or not 0 <= min(leaves) <= max(leaves) < note.size:
        raise ProofError(3, "bad-proof", "its events are not all under its checkpoint, once each")
    tree = Tree(leaves, hashes, say)
    if tree.root(0, note.size) != note.root or next(tree.hashes, None) is not None:
        raise ProofError(3, "bad-proof", "its events do not give the root of its checkpoint")
    named = {digest for event in events for digest in event["documents"]}
    for digest, document in proof.get("documents", {}).items():
        found = "sha256:" + sha256(base64.b64decode(document["base64"])).hex()
        if digest != found or digest not in named:
            raise ProofError(3, "bad-document", f"document {digest} is another, or not theirs")
    signer = check_signature(note, keys, f"checkpoint #{note.size}")
    first, last = min(leaves) + 1, max(leaves) + 1
    return {
        "verdict": "proven", "first": first, "last": last, "events": len(events),
        "all_between": last - first + 1 == len(events), "size": note.size,
        "origin": note.origin, "signed_by": signer,
        "extends": None if kept is None else check_kept(proof, note, read_note(kept), keys),
    }  # fmt: skip


def check_kept(proof: dict[str, Any], note: Note, kept: Note, keys: list[Key]) -> int:
    """The size of a checkpoint kept elsewhere, which the proof's is shown to extend."""
    check_signature(kept, keys, f"the kept checkpoint #{kept.size}")
    given = proof.get("consistency") or {"size": note.size, "hashes": []}
    if kept.size != given["size"]:
        text = f"the proof is not from checkpoint #{kept.size} on: `audit prove --since` makes one"
        raise ProofError(4, "other-checkpoint", text)
    if not extends(kept.size, kept.root, note.size, note.root, digests(given["hashes"])):
        raise ProofError(3, "rewritten", f"history was rewritten since checkpoint #{kept.size}")
    return kept.size


def read_proof(path: Path) -> dict[str, Any]:
    """The proof in a file, or in a bundle."""
    inside = zipfile.is_zipfile(path)
    with zipfile.ZipFile(path).open("proof.json") if inside else path.open("rb") as file:
        proof = json.loads(file.read(PROOF_BYTES_MAX))
    if not isinstance(proof, dict) or proof.get("schema") != "sandtrail.proof/v1":
        raise ValueError("it is not of the schema sandtrail.proof/v1")
    return proof


def statement(found: dict[str, Any]) -> str:
    """What is proven, for people."""
    which = f"#{found['first']} to #{found['last']} are, and nothing is missing between them,"
    if found["first"] == found["last"]:
        which = f"#{found['first']} is"
    elif not found["all_between"]:
        which = f"{found['events']} of the events #{found['first']} to #{found['last']} are"
    since = f" and extends the kept checkpoint #{found['extends']}" if found["extends"] else ""
    told = f"PROVEN: {which} in the log {found['origin']} as told; checkpoint #{found['size']} is"
    told += f" signed by {found['signed_by']}{since}"
    return f"{told}\nDoes not prove: that what was recorded is true."


def run(path: Path, given: argparse.Namespace) -> int:
    """Check a proof and tell; returns the exit code."""
    try:
        keys = [read_key(each.read_text("utf-8")) for each in given.key]
        kept = given.checkpoint and given.checkpoint.read_text("utf-8")
        found = check_proof(read_proof(path), keys, kept, say=given.verbose)
        code, told = 0, statement(found)
    except Exception as error:  # whatever a file has in it that is no proof
        unreadable = (5, "unreadable", f"cannot be read as a proof: {error!r}")
        code, reason, text = error.args if isinstance(error, ProofError) else unreadable
        verdict = {3: "broken", 4: "inconclusive"}.get(code, "unreadable")
        found = {"verdict": verdict, "reason": reason, "text": text}
        told = f"{verdict.upper()} ({reason}): {text}"
    if given.json:
        print(json.dumps({"schema": "sandtrail.check-proof/v1", **found}, indent=2))
    else:
        shown = "".join(each if each.isprintable() or each == "\n" else "?" for each in told)
        print(shown, file=sys.stderr if code else sys.stdout)
    return code


def main() -> int:
    """Check the proof that the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(description="Check a proof of events of a log.")
    parser.add_argument("--key", type=Path, action="append", default=[], help="verifier key")
    parser.add_argument("--checkpoint", type=Path, help="a signed checkpoint kept elsewhere")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the arithmetic")
    parser.add_argument("--json", action="store_true", help="print JSON")
    home = Path(__file__).parent  # a bundle, if this is `python BUNDLE --key KEY`
    if not zipfile.is_zipfile(home):
        parser.add_argument("proof", type=Path, help="of `sandtrail audit prove`, or a bundle")
    given = parser.parse_args()
    return run(getattr(given, "proof", home), given)


if __name__ == "__main__":
    sys.exit(main())
