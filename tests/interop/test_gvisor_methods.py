"""The table of gVisor's methods against gVisor's own source, as Debian has it."""

import re
from pathlib import Path

import pytest

from manager.adapters.compatibility import OF_GVISOR

GVISOR = Path("/usr/share/gocode/src/gvisor.dev/gvisor")
"""Where golang-gvisor-gvisor-dev puts it."""

SOURCES = tuple(f"runsc/boot/{name}.go" for name in ("controller", "debug", "events", "network"))
METHOD = re.compile(
    r"^func \((?:\w+ )?\*(\w+)\) ([A-Z]\w*)\(\w+(?: \*?[\w.]+(?:\{\})?)?, \w+ \*.*\) error \{$",
    re.MULTILINE,
)
"""What Go's reflection would find: exported, an argument and a pointer for the result."""


def test_every_method_of_2022_has_its_row_and_no_other_claims_to_be_of_then() -> None:
    if not GVISOR.is_dir():
        pytest.skip("apt-get install golang-gvisor-gvisor-dev")
    files = [GVISOR / each for each in SOURCES]
    files += (GVISOR / "pkg/sentry/control").glob("*.go")
    found = {".".join(pair) for file in files for pair in METHOD.findall(file.read_text())}
    assert found == {method for method, since in OF_GVISOR.items() if since != "HEAD"}
