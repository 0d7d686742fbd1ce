"""What a careless or hostile client sends: a clear error or a closed connection, and no trace."""

import array
import json
import os
import socket
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from manager import Donation, Layer
from manager.application.errors import CallRefused
from tests.integration.service.conftest import Donor, Service, sh
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime

CLOSED = b""


def talk(path: str, data: bytes, fds: tuple[int, ...] = (), *, half_close: bool = True) -> bytes:
    """Send raw bytes with descriptors on the first one; returns all that comes back."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(path)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            sock.sendmsg([data[:1]], ancillary)
            sock.sendall(data[1:])
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            return receive_all(sock)
        except (BrokenPipeError, ConnectionResetError):
            return CLOSED


def receive_all(sock: socket.socket) -> bytes:
    chunks = []
    while chunk := sock.recv(65536):
        chunks.append(chunk)
    return b"".join(chunks)


def call(method: str, arg: Any) -> bytes:
    return json.dumps({"method": method, "arg": arg}).encode()


START = "containerManager.StartSubcontainer"
FAILURE = '{{"success":false,"err":{},"result":null}}'


def failure(text: str) -> bytes:
    return FAILURE.format(json.dumps(text)).encode()


BAD_MESSAGES: list[tuple[str, bytes, bytes]] = [
    ("unknown method", call("containerManager.Nope", {}), failure("unknown method")),
    ("method in another case", call("containermanager.wait", "x"), failure("unknown method")),
    ("no object", b"[1]", CLOSED),
    ("garbage", b"\x00\xff garbage", CLOSED),
    ("truncated", b'{"method":"containerManager.Wait","arg":"c', CLOSED),
    ("method is a number", b'{"method":3,"arg":null}', CLOSED),
    ("nesting bomb", b'{"method":"x","arg":' + b"[" * 20_000 + b"]" * 20_000 + b"}", CLOSED),
    (
        "no argument",
        b'{"method":"containerManager.StartSubcontainer"}',
        failure("unexpected end of JSON input"),
    ),
    ("null", call(START, None), failure("start arguments missing spec")),
    ("no config", call(START, {"Spec": {}, "CID": "x"}), failure("start arguments missing config")),
    (
        "a string for an object",
        call(START, "x"),
        failure("json: cannot unmarshal string into Go value of type boot.StartArgs"),
    ),
    (
        "a number for a string",
        call(START, {"CID": 3}),
        failure("json: cannot unmarshal number into Go struct field StartArgs.CID of type string"),
    ),
    ("unknown container", call("containerManager.Wait", "no"), failure('container "no" not found')),
    (
        "too many terminals",
        call("containerManager.CreateSubcontainer", {"CID": "x"}),
        failure("start arguments must have at most 1 files for TTY"),
    ),
]


@pytest.mark.parametrize(
    ("message", "reply"),
    [each[1:] for each in BAD_MESSAGES],
    ids=[each[0] for each in BAD_MESSAGES],
)
async def test_a_bad_message_is_answered_or_closed_and_leaves_no_descriptor(
    sandbox_service: "tuple[Service, str]", message: bytes, reply: bytes
) -> None:
    service, path = sandbox_service
    before = await service.fd_counts()
    assert await anyio.to_thread.run_sync(talk, path, message, (0, 1, 2)) == reply
    assert await service.fd_counts() == before
    assert await service.client.sandbox("sb").runtime_state() == 1


@pytest.fixture
async def sandbox_service(service: Service, donor: Donor) -> "tuple[Service, str]":
    await service.client.create_sandbox("sb", sh("true"), donor.donation())
    return service, str(service.root / "sandboxes" / "sb" / "control.sock")


@pytest.mark.parametrize("cid", ["", "../x", ".", "a/b", "a\n", "é", "-x", "x" * 129])
async def test_an_id_that_is_no_id_is_refused_on_record(
    service: Service, donor: Donor, cid: str
) -> None:
    sandbox = await service.client.create_sandbox("sb", sh("true"), donor.donation())
    with pytest.raises(CallRefused) as refused:
        await sandbox.create_subcontainer(cid)
    assert refused.value.text.startswith("invalid container ID")
    last = (await service.records("sandbox-sb"))[-1]
    assert last.type == "container.create_rejected"
    assert json.loads(last.data)["error"] == refused.value.text


async def test_a_client_that_vanishes_in_the_middle_of_a_message(
    sandbox_service: tuple[Service, str],
) -> None:
    service, path = sandbox_service
    before = await service.fd_counts()
    for cut in (1, 10, 60):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            fds = array.array("i", [0, 1, 2])
            sock.sendmsg(
                [call(START, {"CID": "x" * 40})[:cut]],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)],
            )
    assert await service.fd_counts() == before


async def test_descriptors_on_a_later_byte_are_not_taken(
    sandbox_service: tuple[Service, str],
) -> None:
    service, path = sandbox_service
    before = await service.fd_counts()
    message = call("containerManager.ContainerRuntimeState", "sb")

    def send() -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            sock.sendall(message[:1])
            fds = array.array("i", [0, 1, 2])
            sock.sendmsg([message[1:]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            sock.shutdown(socket.SHUT_WR)
            return receive_all(sock)

    assert await anyio.to_thread.run_sync(send) == b'{"success":true,"err":"","result":1}'
    assert await service.fd_counts() == before


@pytest.mark.parametrize("size_mib", [5, 15, 17])
async def test_a_huge_spec_is_read_to_its_end_and_answered(
    sandbox_service: tuple[Service, str], size_mib: int
) -> None:
    service, path = sandbox_service
    before = await service.fd_counts()
    spec = sh("true")
    spec["annotations"] = {"padding": "x" * (size_mib * 1024 * 1024)}
    message = call(START, {"Spec": spec, "Conf": {}, "CID": "c1"})
    reply = json.loads(await anyio.to_thread.run_sync(talk, path, message))
    assert reply["success"] is False
    expected = {5: "sandbox is not in started state", 15: "must have at most", 17: "longer than"}
    assert expected[size_mib] in reply["err"]
    assert await service.fd_counts() == before


WRONG_KINDS: list[tuple[str, Callable[[], int], str]] = [
    (
        "a directory",
        lambda: os.open("/", os.O_RDONLY),
        "importing fds: stdin must be a pipe, a connected socket, a terminal, /dev/null or a "
        "regular file, but is a directory",
    ),
    (
        "a namespace",
        lambda: os.open("/proc/self/ns/net", os.O_RDONLY),
        "importing fds: stdin must be a pipe, a connected socket, a terminal, /dev/null or a "
        "regular file, but is a namespace",
    ),
    (
        "a pidfd",
        lambda: os.pidfd_open(os.getpid()),
        "importing fds: stdin must be a pipe, a connected socket, a terminal, /dev/null or a "
        "regular file, but is an anonymous",
    ),
    (
        "a write-only file",
        lambda: os.open(os.devnull, os.O_WRONLY),
        "importing fds: stdin must be open for reading, but its access mode is w",
    ),
    (
        "a device",
        lambda: os.open("/dev/zero", os.O_RDONLY),
        "importing fds: stdin must be a pipe, a connected socket, a terminal, /dev/null or a "
        "regular file, but is a character device",
    ),
    (
        "a socket that nobody is connected to",
        lambda: socket.socket(socket.AF_UNIX).detach(),
        "importing fds: stdin must be a pipe, a connected socket, a terminal, /dev/null or a "
        "regular file, but is an unconnected socket",
    ),
    (
        "a file of the kernel's",
        lambda: os.open("/proc/self/maps", os.O_RDONLY),
        "importing fds: stdin must be a pipe, a connected socket, a terminal, /dev/null or a "
        "regular file, but is a file of a pseudo filesystem",
    ),
    (
        "an O_PATH descriptor",
        lambda: os.open(os.devnull, os.O_PATH),
        "importing fds: stdin must be a pipe, a connected socket, a terminal, /dev/null or a "
        "regular file, but is an O_PATH descriptor",
    ),
]


@pytest.mark.parametrize(
    ("make", "text"), [each[1:] for each in WRONG_KINDS], ids=[each[0] for each in WRONG_KINDS]
)
async def test_the_wrong_kind_of_stdin_is_refused(
    service: Service, donor: Donor, make: Callable[[], int], text: str
) -> None:
    before = await service.fd_counts()
    fd = make()
    donation = donor.donation()
    bad = type(donation)(rootfs=donation.rootfs, stdio=(fd, donor.null_out, donor.null_out))
    with pytest.raises(CallRefused) as refused:
        await service.client.create_sandbox("sb", sh("true"), bad)
    os.close(fd)
    assert refused.value.text.startswith(text)
    records = await service.records("sandbox-sb")
    assert [record.type for record in records] == ["sandbox.create_rejected"]
    assert refused.value.text in json.loads(records[0].data)["error"]
    assert await service.fd_counts() == before


WRONG_TREES: list[tuple[str, int, str]] = [
    ("/proc", os.O_RDONLY, "a file of a pseudo filesystem"),
    ("/proc/self/fd", os.O_PATH, "a file of a pseudo filesystem"),
    ("/sys", os.O_PATH, "a file of a pseudo filesystem"),
    ("/proc/self/exe", os.O_PATH | os.O_NOFOLLOW, "a symbolic link"),
    ("/proc/self/ns/mnt", os.O_RDONLY, "a namespace"),
    ("/dev/zero", os.O_PATH, "a character device"),
]
ROLES: list[tuple[str, Callable[[int, Layer], dict[str, Any]]]] = [
    ("the rootfs", lambda fd, _: {"rootfs": Layer(source=fd)}),
    ('"/data"', lambda fd, root: {"rootfs": root, "mounts": [Layer(source=fd)]}),
    (
        "filestore of the rootfs",
        lambda fd, root: {"rootfs": replace(root, upper="filestore", filestore=fd)},
    ),
    ("/dev", lambda fd, root: {"rootfs": root, "dev": fd}),
    (
        "rootfs upper tar",
        lambda fd, root: {"rootfs": replace(root, upper="memory"), "upper_tar": fd},
    ),
]


@pytest.mark.parametrize("service", ["crun"], indirect=True)
async def test_the_wrong_kind_of_tree_is_refused(service: Service, donor: Donor) -> None:
    before = await service.fd_counts()
    root = Layer(source=donor.rootfs)
    stdio = (donor.null_in, donor.null_out, donor.null_out)
    bind = {"destination": "/data", "type": "bind", "source": "/x", "options": []}
    for path, flags, kind in WRONG_TREES:
        fd = os.open(path, flags)
        for role, parts in ROLES:
            spec = sh("true")
            spec["mounts"] += [bind] if role == '"/data"' else []
            donation = Donation(stdio=stdio, **parts(fd, root))
            with pytest.raises(CallRefused) as refused:
                await service.client.create_sandbox("sb", spec, donation)
            assert f"{role} must be a" in refused.value.text
            assert refused.value.text.endswith(f"but is {kind}"), (path, role)
        os.close(fd)
    assert await service.client.sandboxes() == []
    assert await service.fd_counts() == before


async def test_the_number_of_a_closed_file_donates_nothing(service: Service, donor: Donor) -> None:
    # It is the lowest that is free: the next file to be opened would be donated, a connection.
    closed = os.open(os.devnull, os.O_RDONLY)
    donation = replace(donor.donation(), stdio=(closed, donor.null_out, donor.null_out))
    os.close(closed)
    with pytest.raises(CallRefused, match="a file to be donated is not open: Bad file descriptor"):
        await service.client.create_sandbox("sb", sh("cat"), donation)
    assert await service.client.sandboxes() == []


async def test_more_files_than_a_message_carries_are_refused_at_once(
    service: Service, donor: Donor
) -> None:
    mounts = [Layer(source=donor.rootfs)] * 10_000
    with pytest.raises(CallRefused, match="too many files"):
        await service.client.create_sandbox(
            "sb", sh("true"), replace(donor.donation(), mounts=mounts)
        )
