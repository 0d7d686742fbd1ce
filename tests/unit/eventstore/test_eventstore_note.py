"""Signed notes: the examples of the specification, and every way for a note to be no good."""

import os
import stat
import subprocess
from base64 import b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from eventstore import keys
from eventstore.errors import (
    CheckpointStale,
    KeyUnusable,
    NoteMalformed,
    NoteRejected,
    SignatureAbsent,
    SignatureUntrusted,
    SignatureWrong,
)
from eventstore.keys import load_signer, load_verifier, public_path
from eventstore.note import Checkpoint, Note, Signer, Verifier, open_checkpoint

# Published with the note format, by its first implementation.
KNOWN_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
KNOWN_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngot"
    "pRZb6KE6RyyBwJnAM=\n"
)

SIGNER = Signer("example.com/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER = Signer("example.com/witness", Ed25519PrivateKey.from_private_bytes(bytes(32)))
CHECKPOINT = Checkpoint(origin="example.com/log", size=7, root=bytes(range(32)))
NOTE = SIGNER.sign(CHECKPOINT)


def test_the_known_note() -> None:
    verifier = Verifier.parse(KNOWN_VKEY)
    note = Note.parse(KNOWN_NOTE)
    assert verifier.text() == KNOWN_VKEY
    assert verifier.has_signed(note)
    assert note.encode() == KNOWN_NOTE
    with pytest.raises(SignatureWrong):
        verifier.has_signed(Note.parse(KNOWN_NOTE.replace("answer", "Answer")))


def test_a_checkpoint_comes_back() -> None:
    assert open_checkpoint(NOTE, [SIGNER.verifier]) == CHECKPOINT
    assert open_checkpoint(NOTE.encode(), [OTHER.verifier, SIGNER.verifier]) == CHECKPOINT
    assert NOTE.splitlines()[:3] == [
        "example.com/log",
        "7",
        b64encode(bytes(range(32))).decode(),
    ]
    more = Checkpoint(origin="o", size=0, root=bytes(32), extensions=("a", "b c"))
    assert Checkpoint.parse(more.text()) == more


def test_two_signatures_each_stand_alone() -> None:
    both = NOTE + OTHER.sign(CHECKPOINT).rpartition("\n\n")[2]
    assert open_checkpoint(both, [SIGNER.verifier]) == CHECKPOINT
    assert open_checkpoint(both, [OTHER.verifier]) == CHECKPOINT
    forged = both.replace("\n7\n", "\n8\n")
    with pytest.raises(SignatureWrong):
        open_checkpoint(forged, [OTHER.verifier])


def test_what_is_wrong_is_told_apart() -> None:
    trusted = [SIGNER.verifier]
    with pytest.raises(SignatureAbsent):
        open_checkpoint(CHECKPOINT.text(), trusted)
    with pytest.raises(SignatureAbsent):
        open_checkpoint(CHECKPOINT.text() + "\n", trusted)
    with pytest.raises(SignatureUntrusted, match=r"example.com/log\+[0-9a-f]{8}, but trusted"):
        open_checkpoint(NOTE, [OTHER.verifier])
    with pytest.raises(SignatureUntrusted, match="no keys at all"):
        open_checkpoint(NOTE, [])
    with pytest.raises(SignatureWrong):
        open_checkpoint(NOTE.replace("\n7\n", "\n8\n"), trusted)
    with pytest.raises(CheckpointStale, match="covers 7 events, at least 8"):
        open_checkpoint(NOTE, trusted).require(8)
    open_checkpoint(NOTE, trusted).require(7)


def test_another_key_of_the_same_name_is_another_key() -> None:
    namesake = Signer("example.com/log", Ed25519PrivateKey.generate())
    with pytest.raises(SignatureUntrusted):
        open_checkpoint(NOTE, [namesake.verifier])


def test_every_flipped_bit_of_a_note_is_noticed() -> None:
    raw = NOTE.encode()
    for index in range(len(raw)):
        for bit in range(8):
            flipped = bytearray(raw)
            flipped[index] ^= 1 << bit
            with pytest.raises(NoteRejected):
                open_checkpoint(bytes(flipped), [SIGNER.verifier])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("o\n1\n", "three or more lines"),
        ("o\n1\nAAAA", "three or more lines"),
        (f"\n1\n{'A' * 43}=\n", "three or more lines"),
        (f"o\n01\n{'A' * 43}=\n", "plain decimal"),
        (f"o\n-1\n{'A' * 43}=\n", "plain decimal"),
        (f"o\n٣\n{'A' * 43}=\n", "plain decimal"),
        (f"o\n{'9' * 5000}\n{'A' * 43}=\n", "plain decimal"),
        (f"o\n{2**63}\n{'A' * 43}=\n", "no log can have"),
        ("o\n1\n*\n", "is not base64"),
        ("o\n1\nAAAA\n", "has 3 bytes, it must have 32"),
        (f"o\n1\n{'A' * 42}B=\n", "is not plain base64"),
    ],
)
def test_no_checkpoint(text: str, problem: str) -> None:
    with pytest.raises(NoteMalformed, match=problem):
        Checkpoint.parse(text)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"\xff\n\n", "is UTF-8"),
        ("a\tb\n\n— k AAAAAAAA\n", "control characters"),
        ("a\n\n— k AAAAAAAA", "has no end"),
        ("a\n\n- k AAAAAAAA\n", "not a signature line"),
        ("a\n\n— k\n", "too short"),
        ("a\n\n— k AAAAAA==\n", "too short"),
        ("a\n\n— a+b AAAAAAAA\n", "cannot name a key"),
        ("a\n\n— k not base64\n", "is not base64"),
        ("a\n\n" + "— k AAAAAAAA\n" * 101, "at most 100 signatures"),
        ("a" * (1024 * 1024 + 1), "at most 1048576 bytes"),
    ],
)
def test_no_note(raw: bytes | str, problem: str) -> None:
    with pytest.raises(NoteMalformed, match=problem):
        Note.parse(raw)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has the form"),
        ("name+00000000", "has the form"),
        (KNOWN_VKEY.replace("c74f20a3", "c74f20a4"), "says its id is 'c74f20a4'"),
        (KNOWN_VKEY.replace("PeterNeumann", "Peter Neumann"), "cannot name a key"),
        (KNOWN_VKEY.replace("ARpc", "Ahpc"), "of type 2 are not known"),
        (KNOWN_VKEY + "AAAA", "has 36 bytes"),
    ],
)
def test_no_verifier_key(text: str, problem: str) -> None:
    with pytest.raises(NoteMalformed, match=problem):
        Verifier.parse(text)


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "far" / "away.key"
    made = load_signer(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sorted(each.name for each in path.parent.iterdir()) == ["away.key", "away.key.pub"]
    assert load_signer(path).verifier == made.verifier
    assert load_verifier(public_path(path)) == made.verifier
    assert made.name.startswith("sandtrail/")
    assert load_signer(path, name="example.com/x").name == "example.com/x"
    assert load_signer(tmp_path / "another.key").verifier != made.verifier


def test_a_key_that_openssl_made(tmp_path: Path) -> None:
    path = tmp_path / "log.key"
    command = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl program here")
    path.chmod(0o600)
    signer = load_signer(path)
    assert open_checkpoint(signer.sign(CHECKPOINT), [signer.verifier]) == CHECKPOINT


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_that_others_can_reach_is_not_used(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "log.key"
    load_signer(path)
    path.chmod(mode)
    with pytest.raises(KeyUnusable, match=f"open to others .mode {mode:04o}"):
        load_signer(path)


def test_a_key_of_somebody_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.key"
    load_signer(path)
    monkeypatch.setattr(keys.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(KeyUnusable, match="belongs to user"):
        load_signer(path)


def test_what_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "log.key"
    ecdsa = generate_private_key(SECP256R1())
    for content, problem in [
        (b"", "is not a private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "is not a private key"),
        (
            ecdsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "of another kind",
        ),
    ]:
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(KeyUnusable, match=problem):
            load_signer(path)
    with pytest.raises(KeyUnusable, match="is not a regular file"):
        load_signer(tmp_path)
    with pytest.raises(KeyUnusable, match="cannot be read or made"):
        load_signer(path / "below-a-file")
    with pytest.raises(KeyUnusable, match="is not a verifier key"):
        load_verifier(path)
    with pytest.raises(KeyUnusable, match="cannot be read"):
        load_verifier(tmp_path / "missing")
    with pytest.raises(NoteMalformed, match="cannot name a key"):
        load_signer(tmp_path / "new.key", name="two words")
