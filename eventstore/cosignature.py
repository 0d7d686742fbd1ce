"""Witnesses: others than the owner of the log who have seen a checkpoint, and say when.

A witness signs only what extends the last checkpoint that it signed, so a history that was written
anew gets no second signature, whoever has the log's own key. Its line in the note is

::

    — witness.example/w1 Zm9v…            key name, base64(key id ‖ time ‖ signature)

``time`` is in seconds since 1970, 8 bytes, most significant first; signed are a line
``cosignature/v1``, a line ``time SECONDS`` and then the note's text. A key of the log's own kind,
which tells no time, may be a witness's, too.

Source: C2SP tlog-cosignature (key type 4) and signed-note (type 1).
"""

import os
from typing import Final

from msgspec import Struct
from typing_extensions import override

from eventstore.errors import SignatureWrong
from eventstore.keys import read_key_file
from eventstore.note import ED25519, Note, is_signed_by, key_id_of, parse_key

COSIGNATURE: Final = b"\x04"
TIME_BYTES: Final = 8


class Witness(Struct, frozen=True, kw_only=True):
    """A key of somebody else's.

    Attributes:
        name: Its name.
        kind: What it signs: ED25519 the text of a note, COSIGNATURE that and a time.
        public_key: Ed25519, 32 bytes.
    """

    name: str
    kind: bytes
    public_key: bytes

    @classmethod
    def parse(cls, text: str) -> "Witness":
        """Read a verifier key, ``NAME+ID+BASE64``.

        Raises:
            NoteMalformed: It is none, or of a kind that is not known here.
        """
        name, kind, public_key = parse_key(text, {ED25519, COSIGNATURE})
        return cls(name=name, kind=kind, public_key=public_key)

    @override
    def __str__(self) -> str:
        """Name and id, for people."""
        return f"{self.name}+{key_id_of(self.name, self.kind, self.public_key).hex()}"

    def signed_at(self, note: Note) -> int | None:
        """When it has signed a note, in seconds since 1970; None if it has not, 0 if it says not.

        Raises:
            SignatureWrong: A line claims so and is wrong.
        """
        key_id = key_id_of(self.name, self.kind, self.public_key)
        for claim in note.signatures:
            if (claim.name, claim.key_id) != (self.name, key_id):
                continue
            seconds, signature, message = 0, claim.signature, note.text
            if self.kind == COSIGNATURE:
                seconds = int.from_bytes(signature[:TIME_BYTES])
                signature = signature[TIME_BYTES:]
                message = f"cosignature/v1\ntime {seconds}\n{note.text}"
            if not is_signed_by(self.public_key, signature, message.encode()):
                raise SignatureWrong(str(self))
            return seconds
        return None


def load_witness(path: str | os.PathLike[str]) -> Witness:
    """Read a witness's key: one line of text.

    Raises:
        KeyUnusable: It cannot be read, or is no verifier key.
    """
    return read_key_file(path, Witness.parse)
