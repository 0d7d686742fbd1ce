"""The document about images is true: its own reader reads one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from manager.domain.checkpoint import COMPRESSIONS, NONE
from manager.schema.image import ImageContainer, ImageMetadata, encode_metadata
from manager.urpc.fds import OwnedFd
from manager.worker.images import write_image

DOCUMENT = Path(__file__).parents[2] / "docs" / "checkpoint-format.md"


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_its_reader_reads_an_image(tmp_path: Path, compression: str) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    reader = tmp_path / "reader.py"
    reader.write_text(code)
    saved = {}
    for name in "ab":
        saved[name * 32] = tmp_path / name
        saved[name * 32].mkdir()
        (saved[name * 32] / "checkpoint.img").write_bytes(name.encode() * 5000)
    containers = tuple(
        ImageContainer(name=key[0], cid="c", engine_id=key, spec=msgspec.Raw(b"{}"))
        for key in saved
    )
    metadata = encode_metadata(
        ImageMetadata(container_count=2, containers=containers, compression=compression)
    )
    path = tmp_path / "image"
    with OwnedFd(os.open(path, os.O_WRONLY | os.O_CREAT)) as image:
        for _ in write_image(image, metadata, saved):
            pass

    def read() -> list[str]:
        command = [sys.executable, reader, path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.splitlines() or [done.stderr.splitlines()[-1]]

    assert read() == ["a checkpoint.img 5000 whole", "b checkpoint.img 5000 whole"]
    whole = path.read_bytes()
    if compression == NONE:
        path.write_bytes(whole.replace(b"bbbb" * 1000, b"cccc" * 1000))
        assert read() == ["a checkpoint.img 5000 whole", "b checkpoint.img 5000 damaged"]
    path.write_bytes(whole.replace(b'"cid":"c"', b'"cid":"d"'))
    assert read() == ["AssertionError: the metadata is damaged"]
