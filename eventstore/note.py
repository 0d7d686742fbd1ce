"""Signed checkpoints: the size and root of a log's tree as a text that its key has signed.

::

    sandtrail/0b7c…                       origin: which log
    1064                                  events covered
    fBw1…=                                root hash, base64

    — sandtrail/0b7c… Zm9v…               key name, base64(key id ‖ signature)

The signature is Ed25519 over the lines above the blank one, the last line feed included. The id is
the first four bytes of SHA-256(name ‖ LF ‖ 0x01 ‖ public key). A public key is handed around as
text, ``name+id in hexadecimal+base64(0x01 ‖ public key)``.

Source: C2SP signed-note and tlog-checkpoint, which any tool for transparency logs reads.
"""

import hashlib
from base64 import b64decode, b64encode
from binascii import Error as BinasciiError
from collections.abc import Container, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from typing_extensions import override

from eventstore.errors import (
    CheckpointStale,
    NoteMalformed,
    SignatureAbsent,
    SignatureUntrusted,
    SignatureWrong,
)
from eventstore.limits import POSITION_MAX
from eventstore.merkle import HASH_BYTES

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NOTE_BYTES_MAX: Final = 1024 * 1024
SIGNATURES_MAX: Final = 100
"""Signature lines of one note: the log's own, and those of witnesses."""
KEY_ID_BYTES: Final = 4
PUBLIC_KEY_BYTES: Final = 32
ED25519: Final = b"\x01"
"""The signature type. Source: C2SP signed-note, Signature types."""
SIGNATURE_MARK: Final = "\u2014 "
CHECKPOINT_LINES_MIN: Final = 3


class Checkpoint(Struct, frozen=True, kw_only=True):
    """The head of a log's tree.

    Attributes:
        origin: Identity of the log, one line.
        size: Events covered: positions 1 to ``size``.
        root: Root of their tree, 32 bytes.
        extensions: Further lines, which are signed, too; the tree does not say what they mean.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """What is signed."""
        lines = (self.origin, str(self.size), b64encode(self.root).decode(), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Read the text of a note.

        Raises:
            NoteMalformed: It is not that of a checkpoint.
        """
        lines = text.split("\n")
        if lines.pop() or len(lines) < CHECKPOINT_LINES_MIN or not all(lines):
            raise NoteMalformed(
                "a checkpoint is three or more lines, none of them empty: origin, size, root"
            )
        origin, size, root = lines[:CHECKPOINT_LINES_MIN]
        if not (size.isascii() and size.isdecimal()) or str(int(size[:20])) != size:
            raise NoteMalformed(f"the size {size[:32]!r} is not a plain decimal number")
        if int(size) > POSITION_MAX:
            raise NoteMalformed(f"no log can have {size} events")
        return cls(
            origin=origin,
            size=int(size),
            root=_decode(root, "the root hash", HASH_BYTES),
            extensions=tuple(lines[CHECKPOINT_LINES_MIN:]),
        )

    def require(self, size: int) -> None:
        """Demand that at least ``size`` events are covered.

        Raises:
            CheckpointStale: They are not.
        """
        if self.size < size:
            raise CheckpointStale(self.size, size)


class Signature(Struct, frozen=True, kw_only=True):
    """One signature line.

    Attributes:
        name: The key's name.
        key_id: 4 bytes.
        signature: The rest.
    """

    name: str
    key_id: bytes
    signature: bytes

    def line(self) -> str:
        """The line, with its line feed."""
        return f"{SIGNATURE_MARK}{self.name} {b64encode(self.key_id + self.signature).decode()}\n"

    def signer(self) -> str:
        """Name and id, for people."""
        return f"{self.name}+{self.key_id.hex()}"


class Note(Struct, frozen=True, kw_only=True):
    """A text with its signatures, none of them verified yet.

    Attributes:
        text: What is signed, its last line feed included.
        signatures: In order; may be empty.
    """

    text: str
    signatures: tuple[Signature, ...]

    def encode(self) -> str:
        """The note as it is stored and sent."""
        return f"{self.text}\n" + "".join(each.line() for each in self.signatures)

    @classmethod
    def parse(cls, raw: bytes | str) -> "Note":
        """Split a note into its parts. What its text says must be ignored until it is verified.

        Raises:
            NoteMalformed: It is not a note.
            SignatureAbsent: It is a text that nobody has signed.
        """
        if len(raw) > NOTE_BYTES_MAX:
            raise NoteMalformed(f"a note has at most {NOTE_BYTES_MAX} bytes, this one {len(raw)}")
        try:
            whole = raw if isinstance(raw, str) else raw.decode()
        except UnicodeDecodeError as error:
            raise NoteMalformed(f"a note is UTF-8, this is not: {error}") from error
        if any(char < " " and char != "\n" for char in whole):
            raise NoteMalformed("a note has no control characters but line feeds")
        text, blank, tail = whole.rpartition("\n\n")
        if not blank or not tail:
            raise SignatureAbsent
        if not tail.endswith("\n"):
            raise NoteMalformed("the last signature line of the note has no end")
        lines = tail[:-1].split("\n")
        if len(lines) > SIGNATURES_MAX:
            raise NoteMalformed(f"a note has at most {SIGNATURES_MAX} signatures")
        return cls(text=text + "\n", signatures=tuple(_parse_signature(line) for line in lines))


class Verifier(Struct, frozen=True, kw_only=True, dict=True):
    """A key that is trusted to sign.

    Attributes:
        name: Its name: not empty, without spaces and plus signs.
        public_key: Ed25519, 32 bytes as of RFC 8032.
    """

    name: str
    public_key: bytes

    @cached_property
    def key_id(self) -> bytes:
        """4 bytes that tell keys of one name apart; not a fingerprint to compare keys by."""
        return key_id_of(self.name, ED25519, self.public_key)

    @override
    def __str__(self) -> str:
        """Name and id, for people."""
        return f"{self.name}+{self.key_id.hex()}"

    def text(self) -> str:
        """The verifier key in one line, to be given to whoever checks notes."""
        return f"{self}+{b64encode(ED25519 + self.public_key).decode()}"

    @classmethod
    def parse(cls, text: str) -> "Verifier":
        """Read what :meth:`text` gives.

        Raises:
            NoteMalformed: It is not a verifier key, or not one of Ed25519.
        """
        name, _, public_key = parse_key(text, {ED25519})
        return cls(name=name, public_key=public_key)

    def has_signed(self, note: Note) -> bool:
        """Whether the key has signed the note; False if no line claims so.

        Raises:
            SignatureWrong: A line claims so and is wrong.
        """
        claims = [
            each for each in note.signatures if (each.name, each.key_id) == (self.name, self.key_id)
        ]
        for claim in claims:
            if not is_signed_by(self.public_key, claim.signature, note.text.encode()):
                raise SignatureWrong(str(self))
        return bool(claims)


class Signer:
    """A key that signs.

    Args:
        name: As of :class:`Verifier`.
        private_key: The key.

    Raises:
        NoteMalformed: The name cannot be one.
    """

    def __init__(self, name: str, private_key: "Ed25519PrivateKey") -> None:
        _check_name(name)
        self._key = private_key
        self.verifier = Verifier(name=name, public_key=private_key.public_key().public_bytes_raw())

    @property
    def name(self) -> str:
        """The key's name, and the origin of the log that has it to itself."""
        return self.verifier.name

    def sign(self, checkpoint: Checkpoint) -> str:
        """The checkpoint as a signed note."""
        return self.cosign(Note(text=checkpoint.text(), signatures=())).encode()

    def cosign(self, note: Note) -> Note:
        """The note with a signature more; a former one of this key is replaced."""
        own = Signature(
            name=self.name,
            key_id=self.verifier.key_id,
            signature=self._key.sign(note.text.encode()),
        )
        others = tuple(
            each for each in note.signatures if (each.name, each.key_id) != (own.name, own.key_id)
        )
        return Note(text=note.text, signatures=(*others, own))


def key_id_of(name: str, kind: bytes, public_key: bytes) -> bytes:
    """The id of a key of some type. Source: C2SP signed-note, Signatures."""
    return hashlib.sha256(name.encode() + b"\n" + kind + public_key).digest()[:KEY_ID_BYTES]


def parse_key(text: str, kinds: Container[bytes]) -> tuple[str, bytes, bytes]:
    """Name, type and key of a verifier key of some type with keys of Ed25519.

    Raises:
        NoteMalformed: It is none.
    """
    name, _, rest = text.strip().partition("+")
    key_id, _, encoded = rest.partition("+")
    if not encoded:
        raise NoteMalformed("a verifier key has the form NAME+ID+BASE64")
    _check_name(name)
    decoded = _decode(encoded, "the verifier key", len(ED25519) + PUBLIC_KEY_BYTES)
    kind, public_key = decoded[: len(ED25519)], decoded[len(ED25519) :]
    if kind not in kinds:
        raise NoteMalformed(f"verifier keys of type {kind[0]} are not known here, only Ed25519")
    found = key_id_of(name, kind, public_key).hex()
    if found != key_id:
        raise NoteMalformed(f"the verifier key says its id is {key_id!r}, but it is {found}")
    return name, kind, public_key


def is_signed_by(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether a signature of Ed25519 is right."""
    # Heavy, and most commands check no signature.
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - heavy
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - heavy
        Ed25519PublicKey,
    )

    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def open_checkpoint(raw: bytes | str, trusted: Sequence[Verifier]) -> Checkpoint:
    """Read a checkpoint that at least one trusted key has signed.

    Signatures of other keys are ignored, but a wrong one of a trusted key rejects the note.

    Raises:
        NoteMalformed: It is not a checkpoint.
        SignatureAbsent: Nobody has signed it.
        SignatureUntrusted: None of the trusted keys has.
        SignatureWrong: It does not fit the key whose it claims to be.
    """
    note = Note.parse(raw)
    if not [key for key in trusted if key.has_signed(note)]:
        raise SignatureUntrusted(
            tuple(each.signer() for each in note.signatures), tuple(map(str, trusted))
        )
    return Checkpoint.parse(note.text)


def read_checkpoint(raw: bytes | str) -> Checkpoint:
    """Read a checkpoint without looking at who signed it: one that you kept yourself.

    Raises:
        NoteMalformed: It is not a checkpoint.
        SignatureAbsent: Nobody has signed it.
    """
    return Checkpoint.parse(Note.parse(raw).text)


def _parse_signature(line: str) -> Signature:
    if not line.startswith(SIGNATURE_MARK):
        raise NoteMalformed(f"{line[:64]!r} is not a signature line: those begin with a dash")
    name, _, encoded = line.removeprefix(SIGNATURE_MARK).partition(" ")
    _check_name(name)
    decoded = _decode(encoded, f"the signature of {name}")
    if len(decoded) <= KEY_ID_BYTES:
        raise NoteMalformed(f"the signature of {name} is too short")
    return Signature(name=name, key_id=decoded[:KEY_ID_BYTES], signature=decoded[KEY_ID_BYTES:])


def _check_name(name: str) -> None:
    if not name or "+" in name or any(char.isspace() for char in name):
        raise NoteMalformed(f"{name!r} cannot name a key: spaces and plus signs are not allowed")


def _decode(text: str, what: str, size_bytes: int | None = None) -> bytes:
    """Decode base64, of which there is one form for each value."""
    try:
        decoded = b64decode(text, validate=True)
    except (BinasciiError, ValueError) as error:
        raise NoteMalformed(f"{what} is not base64: {text[:64]!r}") from error
    if b64encode(decoded).decode() != text:
        raise NoteMalformed(f"{what} is not plain base64: {text[:64]!r}")
    if size_bytes is not None and len(decoded) != size_bytes:
        raise NoteMalformed(f"{what} has {len(decoded)} bytes, it must have {size_bytes}")
    return decoded
