"""The worked example of docs/log-format.md, checked by a second implementation of that page."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from eventstore import (
    Actor,
    RecordedEvent,
    Signer,
    Verifier,
    canonical_bytes,
    leaf_hash,
    open_checkpoint,
)
from eventstore.merkle import tree_root
from eventstore.sqlite.schema import APPLICATION_ID, SCHEMA_VERSION
from manager.schema.state_seal import StateSeal

PAGE = (Path(__file__).parents[3] / "docs" / "log-format.md").read_text(encoding="utf-8")

EXAMPLES = [
    (json.loads(columns), bytes.fromhex(canonical), bytes.fromhex(leaf))
    for columns, canonical, leaf in zip(
        re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL),
        re.findall(r"```hex\n(.*?)```", PAGE, re.DOTALL),
        re.findall(r"```leaf\n(.*?)```", PAGE, re.DOTALL),
        strict=True,
    )
]

FIELDS = (
    "position stream version type event_id recorded_at_ns correlation_id causation actor data"
).split()


def by_the_page(columns: dict[str, Any]) -> bytes:
    """What a stranger would write who has read the page and nothing else."""
    encoded = b"sandtrail-event-v1\n"
    for value in [*(columns[name] for name in FIELDS), *columns["documents"]]:
        if value is None:
            encoded += b"\x00"
        else:
            content = str(value).encode()
            encoded += b"\x01" + len(content).to_bytes(4, "big") + content
    return encoded


def as_record(columns: dict[str, Any]) -> RecordedEvent:
    actor = columns["actor"]
    members = columns | {
        "actor": None if actor is None else msgspec.json.decode(actor, type=Actor),
        "data": columns["data"].encode(),
        "documents": tuple(columns["documents"]),
        "leaf_hash": b"",
    }
    return RecordedEvent(**members)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 3
    assert {columns["actor"] is None for columns, _, _ in EXAMPLES} == {True, False}


@pytest.mark.parametrize(("columns", "canonical", "leaf"), EXAMPLES)
def test_example(columns: dict[str, Any], canonical: bytes, leaf: bytes) -> None:
    assert by_the_page(columns) == canonical
    assert hashlib.sha256(b"\x00" + canonical).digest() == leaf

    assert canonical_bytes(as_record(columns)) == canonical
    assert leaf_hash(as_record(columns)) == leaf


def test_the_document_of_the_example() -> None:
    digest = hashlib.sha256(b"hello\n").hexdigest()

    assert EXAMPLES[0][0]["documents"] == [f"sha256:{digest}"]


def block(name: str) -> str:
    found = re.search(rf"```{name}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_tree_of_the_example() -> None:
    first, root = (bytes.fromhex(line) for line in block("tree").split())
    leaves = {columns["position"]: leaf for columns, _, leaf in EXAMPLES}

    assert hashlib.sha256(b"\x01" + leaves[1] + leaves[2]).digest() == first
    assert hashlib.sha256(b"\x01" + first + leaves[3]).digest() == root

    assert tree_root([leaves[1], leaves[2], leaves[3]]) == root


def test_the_note_of_the_example() -> None:
    root = bytes.fromhex(block("tree").split()[1])
    name, key_id, encoded = block("vkey").strip().split("+", 2)
    public = base64.b64decode(encoded)
    text, _, signature_line = block("note").rpartition("\n\n")
    signed = (text + "\n").encode()
    dash, signer, blob = signature_line.rstrip("\n").split(" ")
    key_bytes, signature = base64.b64decode(blob)[:4], base64.b64decode(blob)[4:]

    assert (dash, signer) == ("\u2014", name)
    assert signed == f"{name}\n3\n{base64.b64encode(root).decode()}\n".encode()
    assert hashlib.sha256(name.encode() + b"\n" + public).digest()[:4] == key_bytes
    assert key_bytes.hex() == key_id
    Ed25519PublicKey.from_public_bytes(public[1:]).verify(signature, signed)
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    assert private.public_key().public_bytes_raw() == public[1:]

    told = open_checkpoint(block("note"), [Verifier.parse(block("vkey"))])
    assert (told.origin, told.size, told.root) == (name, 3, root)
    assert Signer(name, private).sign(told) == block("note")


def test_the_note_with_a_state_of_the_example() -> None:
    told = open_checkpoint(block("note-with-state"), [Verifier.parse(block("vkey"))])
    plain = open_checkpoint(block("note"), [Verifier.parse(block("vkey"))])
    assert (told.size, told.root) == (plain.size, plain.root)
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    assert Signer(told.origin, private).sign(told) == block("note-with-state")
    (line,) = told.extensions
    state = StateSeal.parse(line)
    assert state is not None
    assert (state.position, state.line()) == (3, line)


def test_the_marks_of_the_file() -> None:
    assert f"`0x{APPLICATION_ID:08x}`" in PAGE
    assert f"schema version, now {SCHEMA_VERSION}." in PAGE
