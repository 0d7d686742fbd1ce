"""``sandtrail urpc``: a raw call, its files, and what the service says to it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.service.conftest import Donor, Service, sh
from tests.integration.service.test_cli import cli
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime


async def test_a_container_can_be_run_by_raw_calls(
    service: Service, rootfs: Path, tmp_path: Path
) -> None:
    """All three kinds of files: one that is open, one by its mode, and a tree."""
    spec = json.dumps({"ID": "web", "CID": "web", "Conf": {}, "Spec": sh("read x; echo got $x")})
    ours, theirs = os.pipe()
    os.write(theirs, b"word\n")
    os.close(theirs)
    out = tmp_path / "out"
    made = subprocess.run(
        [
            *(sys.executable, "-m", "manager.cli", "urpc", "sandboxManager.Create", "-"),
            *("--file", f"fd:{ours}", "--file", f"w:{out}", "--file", f"w:{out}"),
            *("--file", str(rootfs)),
        ],
        env={**os.environ, "SANDTRAIL_ROOT": str(service.root)},
        input=spec, pass_fds=[ours], text=True, capture_output=True, timeout=PATIENCE_S,
        check=False,
    )  # fmt: skip
    os.close(ours)
    assert made.returncode == 0, made.stderr
    assert cli(service, "urpc", "-s", "web", "containerManager.StartRoot", '"web"').stdout == (
        "{}\n"
    )
    assert cli(service, "urpc", "-s", "web", "containerManager.Wait", '"web"').stdout == "0\n"
    assert out.read_text() == "got word\n"
    socket = service.root / "sandboxes" / "web" / "control.sock"
    there = cli(service, "urpc", "--socket", str(socket), "containerManager.Wait", '"web"')
    assert there.stdout == "0\n"


async def test_what_goes_wrong_is_told(service: Service, donor: Donor) -> None:
    made = await service.client.create_sandbox("web", sh("sleep 600"), donor.donation())
    await made.start_root()
    for args, code, says in (
        (("sandboxManager.Nothing",), 1, "unknown method"),
        (("sandboxManager.Delete", '{"ID":"nobody"}'), 1, 'sandbox "nobody" not found'),
        (("sandboxManager.List", "{"), 2, "is no JSON"),
        (("containerManager.Wait", '"web"'), 2, "name it with --sandbox"),
        (("-s", "a", "--socket", "b", "x"), 2, "both say which socket"),
        (("-s", "nobody", "containerManager.Wait", '"web"'), 1, "nobody"),
        (("--file", "r:/no/such", "sandboxManager.List"), 5, "/no/such: No such file"),
        (("--file", "fd:x", "sandboxManager.List"), 2, "want fd:NUMBER"),
        (("--file", "fd:999", "sandboxManager.List"), 1, "is not open"),
        (("-s", "web", "--timeout", "50ms", "containerManager.Wait", '"web"'), 124, ""),
    ):
        done = cli(service, "urpc", *args)
        assert (done.returncode, done.stdout) == (code, ""), done
        assert says in " ".join(done.stderr.split())
