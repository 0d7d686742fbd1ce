"""The verifier of a proof that needs nothing but Python, against the libraries that we use."""

import json
import random
from base64 import b64decode
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore import (
    ANY,
    Document,
    NewEvent,
    SealPolicy,
    load_signer,
    newest_note,
    open_log,
    prove_events,
    read_checkpoint,
)
from eventstore.merkle import consistency_ranges, prove, tree_root
from replay.evidence.proof_document import proof_text
from replay.verify_trail import Key, ProofError, check_proof, extends, is_signed, read_key

FLIPS = 400

# RFC 8032, section 7.1: secret key, public key, message, signature.
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9"
        "b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f1"
        "1d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
]


@pytest.mark.parametrize(("public", "message", "signature"), VECTORS)
def test_the_vectors_of_the_rfc(public: str, message: str, signature: str) -> None:
    parts = [bytes.fromhex(each) for each in (public, message, signature)]
    assert is_signed(parts[0], parts[1], parts[2])
    assert not is_signed(parts[0], parts[1] + b"x", parts[2])


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=64), st.data())
def test_signatures_as_cryptography_sees_them(
    seed: bytes, message: bytes, data: st.DataObject
) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = key.public_key().public_bytes_raw(), bytearray(key.sign(message))
    assert is_signed(public, message, bytes(signature))
    bit = data.draw(st.integers(0, 511))
    signature[bit // 8] ^= 1 << bit % 8
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(bytes(signature), message)
    except InvalidSignature:
        assert not is_signed(public, message, bytes(signature))
    else:
        pytest.fail("a flipped bit was not noticed by the library itself")


@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_consistency_as_merkle_proves_it(old: int, more: int, wrong: bool) -> None:
    size = old + more - 1
    leaves = [bytes([number]) * 32 for number in range(size)]
    hashes = list(prove(consistency_ranges(old, size), lambda begin, end: leaves[begin:end]))
    old_root = tree_root(leaves[:old] if not wrong else [b"x" * 32, *leaves[1:old]])
    assert extends(old, old_root, size, tree_root(leaves), hashes) != wrong


@pytest.fixture(scope="module")
def proved(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Key, str]:
    """A proof, the key, and a checkpoint that was kept."""
    directory = tmp_path_factory.mktemp("proved")
    return anyio.run(make, directory)


async def make(directory: Path) -> tuple[str, Key, str]:
    signer = load_signer(directory / "log.key")
    policy = SealPolicy(signer=signer, events=10**6, seconds=3600)
    path, kept = directory / "events.db", ""
    for _ in range(2):
        async with open_log(path, seal=policy) as log:
            for number in range(5):
                document = Document(media_type="text/plain", body=b"%d" % number)
                event = NewEvent(type="counted", data={"n": number}, documents=(document,))
                await log.append("s", [event], expected=ANY)
        kept = kept or newest_note(path) or ""
    proof = prove_events(path, [2, 3, 8], since=read_checkpoint(kept), documents=True)
    return proof_text(proof), read_key(signer.verifier.text()), kept


def claims(proof: dict[str, Any]) -> tuple[list[Any], set[tuple[str, bytes]]]:
    """What whoever reads a proof believes of it: events, and bodies of documents."""
    documents = proof.get("documents", {}).items()
    return proof["events"], {(name, b64decode(each["base64"])) for name, each in documents}


def test_no_flipped_bit_makes_another_proof_of_it(
    proved: tuple[str, Key, str],
) -> None:
    text, key, kept = proved
    told, whole = json.loads(text), text.encode()
    chance, noticed = random.Random(1), 0
    for _ in range(FLIPS):
        changed = bytearray(whole)
        changed[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        try:
            proof = json.loads(changed)
            found = check_proof(proof, [key], kept)
        except (ProofError, ValueError, LookupError, TypeError, AttributeError):
            noticed += 1
            continue
        events, documents = claims(proof)
        assert events == claims(told)[0]
        assert documents <= claims(told)[1]  # a flip in their member's name may lose all of them
        assert (found["first"], found["last"], found["extends"]) == (2, 8, 5)
    assert noticed > FLIPS / 2
