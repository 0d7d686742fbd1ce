"""How runsc is talked to: by what it says of itself, and where its kernel listens."""

import socket
import uuid
from pathlib import Path

import pytest

from manager.urpc.unix_address import UnixListener
from manager.worker.runsc import dialect_of
from manager.worker.runsc_socket import KernelSilent, connect_kernel


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("runsc version release-20210806.0\nspec: 1.0.2\n", False),
        ("runsc version 0.0~20221219.0\nspec: 1.0.2\n", True),
        ("runsc version 0.0~20240729.0\nspec: 1.2.0\n", True),
        ("runsc version VERSION_MISSING\nspec: 1.2.0\n", True),
    ],
)
def test_what_is_written_stays_where_it_was_donated_for(words: str, told: bool) -> None:
    dialect = dialect_of(words)
    assert ("--overlay2=none" in dialect.global_options) == told
    assert "--file-access=shared" in dialect.global_options


def test_a_kernel_listens_in_its_engines_directory(tmp_path: Path) -> None:
    with UnixListener.bind(tmp_path / "runsc-some.sock") as listener:
        connect_kernel("some", tmp_path).close()
        listener.sock.accept()[0].close()
        with pytest.raises(KernelSilent, match="Connection refused"):
            connect_kernel("other", tmp_path)


def test_an_older_kernel_listens_on_a_name_without_a_file(tmp_path: Path) -> None:
    name = uuid.uuid4().hex
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0runsc-sandbox.{name}\0")
        listener.listen()
        connect_kernel(name, tmp_path).close()
        listener.accept()[0].close()
