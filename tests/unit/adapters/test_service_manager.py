"""What a service manager hears: datagrams, as sd_notify(3) says."""

import os
import socket
from pathlib import Path

import pytest

from manager.adapters.service_manager import READY, SOCKET_VARIABLE, ServiceManager


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_it_is_told(tmp_path: Path, kind: str) -> None:
    named = str(tmp_path / "notify") if kind == "path" else f"@sandtrail-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(named if kind == "path" else "\0" + named[1:])
        environment = {SOCKET_VARIABLE: named, "OTHER": "1"}
        assert ServiceManager(environment).tell(READY, "STATUS=here")
        assert heard.recv(100) == b"READY=1\nSTATUS=here"
        assert environment == {"OTHER": "1"}, "no child may speak for us"


@pytest.mark.parametrize("environment", [{}, {SOCKET_VARIABLE: "/nowhere/at/all"}])
def test_nobody_to_tell_is_no_trouble(environment: dict[str, str]) -> None:
    assert not ServiceManager(environment).tell(READY)
