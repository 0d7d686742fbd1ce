"""The key that seals a log: a file of its own, which may be anywhere, made on first use.

The file is PEM, PKCS #8, not encrypted, an Ed25519 key (RFC 8410), as ``openssl genpkey -algorithm
ed25519`` makes it. It must be the user's own and closed to everybody else, or it is not used.
Beside it, with the suffix ``.pub``, lies the verifier key (:mod:`eventstore.note`), for whoever
checks the log: copy it to where whoever can write to the log cannot change it.

Whoever has the key can rewrite the log and seal it anew. Keep it from the log's backups.
"""

import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from eventstore.errors import KeyUnusable, NoteMalformed
from eventstore.note import Signer, Verifier
from eventstore.whole_file import create_whole

T = TypeVar("T")

KEY_FILE_MODE: Final = 0o600
PUBLIC_FILE_MODE: Final = 0o644
KEY_FILE_BYTES_MAX: Final = 16 * 1024
PUBLIC_SUFFIX: Final = ".pub"
NAME_PREFIX: Final = "sandtrail/"
NAME_HASH_CHARS: Final = 32


def load_signer(path: str | os.PathLike[str], *, name: str | None = None) -> Signer:
    """Read the key, or make it, and the directory that it is in, on first use.

    Args:
        path: The key's file; ``<path>.pub`` is made beside it if it is missing.
        name: Name of the key, and origin of the log; if absent ``sandtrail/`` and 32 hexadecimal
            digits of the public key's SHA-256. Logs that share a key must have different names, or
            a checkpoint of one could be shown for the other.

    Raises:
        KeyUnusable: Not a key, not ours, open to others, or not to be read. Repair or replace it:
            with another key the log goes on, and its older checkpoints keep needing the old one.
        NoteMalformed: The name cannot be one.
    """
    # Heavy, and only who seals needs it: most commands only read a log.
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - heavy
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - heavy
        Ed25519PrivateKey,
    )
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - heavy

    file = Path(path)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        pem = _read(file) if file.exists() else _create(file)
    except OSError as error:
        raise KeyUnusable(str(file), f"cannot be read or made: {error.strerror}") from error
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyUnusable(
            str(file), f"is not a private key in PEM without password: {error}"
        ) from (error)
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable(str(file), "is a key of another kind: it must be Ed25519")
    public = hashlib.sha256(key.public_key().public_bytes_raw()).hexdigest()
    signer = Signer(name or NAME_PREFIX + public[:NAME_HASH_CHARS], key)
    _publish(file, signer.verifier)
    return signer


def load_verifier(path: str | os.PathLike[str]) -> Verifier:
    """Read a verifier key: one line of text.

    Raises:
        KeyUnusable: It cannot be read, or is no verifier key.
    """
    return read_key_file(path, Verifier.parse)


def read_key_file(path: str | os.PathLike[str], parse: Callable[[str], T]) -> T:
    """Read a file that holds a key of whatever kind; raises as :func:`load_verifier`."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            return parse(file.read(KEY_FILE_BYTES_MAX))
    except OSError as error:
        raise KeyUnusable(str(path), f"cannot be read: {error.strerror}") from error
    except (NoteMalformed, UnicodeDecodeError) as error:
        raise KeyUnusable(str(path), f"is not a verifier key: {error}") from error


def public_path(path: str | os.PathLike[str]) -> Path:
    """Where the verifier key lies that belongs to a key file."""
    return Path(os.fspath(path) + PUBLIC_SUFFIX)


def _read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise KeyUnusable(str(path), "is not a regular file")
        if status.st_mode & 0o077:
            raise KeyUnusable(
                str(path),
                f"is open to others (mode {stat.S_IMODE(status.st_mode):04o}); make sure that "
                "nobody took it, then chmod 600",
            )
        if status.st_uid != os.geteuid():
            raise KeyUnusable(
                str(path), f"belongs to user {status.st_uid}, not to {os.geteuid()} who runs this"
            )
        return os.read(fd, KEY_FILE_BYTES_MAX)
    finally:
        os.close(fd)


def _create(path: Path) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - heavy
        Ed25519PrivateKey,
    )
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - heavy
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    # A half-written key would keep the log from ever being opened again.
    create_whole(path, pem, KEY_FILE_MODE)
    return _read(path)


def _publish(path: Path, verifier: Verifier) -> None:
    """Put the verifier key beside the key; on a read-only key store whoever wants it asks."""
    public = public_path(path)
    with suppress(OSError):
        if not public.exists():
            create_whole(public, f"{verifier.text()}\n".encode(), PUBLIC_FILE_MODE)
