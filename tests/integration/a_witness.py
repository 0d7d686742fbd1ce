"""A witness of our own make: ``a_witness.py key|line|whole``, with the note on stdin.

Written after C2SP tlog-cosignature, with nothing of the package in it.
"""

import base64
import hashlib
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NAME = "witness.example/w1"
SEEN_S = 1771070400  # 2026-02-14T12:00:00Z


def main() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = b"\x04" + key.public_key().public_bytes_raw()
    key_id = hashlib.sha256(NAME.encode() + b"\n" + public).digest()[:4]
    if sys.argv[1] == "key":
        print(f"{NAME}+{key_id.hex()}+{base64.b64encode(public).decode()}")
        return
    note = sys.stdin.read()
    text = note[: note.rindex("\n\n") + 1]
    signature = key.sign(f"cosignature/v1\ntime {SEEN_S}\n{text}".encode())
    line = base64.b64encode(key_id + SEEN_S.to_bytes(8, "big") + signature).decode()
    if sys.argv[1] == "whole":
        sys.stdout.write(note)
    print(f"\N{EM DASH} {NAME} {line}")


if __name__ == "__main__":
    main()
