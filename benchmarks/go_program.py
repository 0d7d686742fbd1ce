"""Building the Go programs that use gVisor's own client."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

SOURCES: Final = Path("/usr/share/gocode")
"""Where Debian puts Go libraries: golang-gvisor-gvisor-dev and what it needs."""

BUILD_SECONDS: Final = 240


def build_go(source: Path, program: Path, cache: Path) -> Path | None:
    """Build one against the libraries of this machine; nothing is downloaded.

    Args:
        source: Directory of the program.
        program: What is to be made.
        cache: Where Go keeps what it has built.

    Returns:
        `program`; `None` where Go or gVisor's library is not installed.
    """
    if shutil.which("go") is None or not (SOURCES / "src/gvisor.dev/gvisor").is_dir():
        return None
    subprocess.run(
        ["go", "build", "-o", program, "."],
        cwd=source,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(program.parent),
            "GO111MODULE": "off",
            "GOPATH": str(SOURCES),
            "GOCACHE": str(cache),
            "GOFLAGS": "-buildvcs=false",
            "CGO_ENABLED": "0",
        },
        check=True,
        timeout=BUILD_SECONDS,
    )
    return program
