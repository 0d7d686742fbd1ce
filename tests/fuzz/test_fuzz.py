"""Whatever comes in from outside: read, or refused in the reader's own words; nothing else.

No target may let another exception out, go on for ever, or keep a descriptor.
"""

import asyncio
import contextlib
import hashlib
import io
import os
import struct
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eventstore import ANY, EventStoreError, NewEvent, open_log, verify_log
from manager.application.default_spec import default_spec
from manager.domain import commands as c
from manager.domain.checkpoint import FLATE, NONE
from manager.domain.decide import decide
from manager.domain.evolve import fold
from manager.domain.payload import LaunchPlan, LayerPlan
from manager.domain.request import EngineFacts
from manager.domain.spec import parse_spec, parse_spec_object
from manager.domain.state import ABSENT
from manager.schema import image
from manager.schema import worker as w
from manager.schema.codec import EventFormatError
from manager.schema.events import decode_event
from manager.schema.node_events import NODE_EVENT_TYPES, decode_node_event
from manager.urpc.errors import DecodeError, FrameError, MalformedMessage
from manager.urpc.fdpass import PeerCredentials, Received
from manager.urpc.fds import FdBundle, OwnedFd
from manager.urpc.frames import FrameDecoder, encode_frame
from manager.urpc.gotypes import START_ARGS
from manager.urpc.load import Load, LoadLimits
from manager.urpc.protocol import MessageReader, encode_request, parse_request
from manager.worker.flate import NotDeflated, deflated, inflated
from tests.fuzz.fuzzing import INPUTS, Hang, fuzz, mutated
from tests.patience import PATIENCE_S
from tests.unit.domain.builders import DIRECTORY, STDIO, a_request

REPOSITORY = Path(__file__).parents[2]
PEER = PeerCredentials(uid=0, gid=0, pid=1)
SPEC = default_spec(args=["/bin/sh", "-c", "exit 3"])
START = {
    "CID": "c1",
    "Conf": {"EnableRaw": True, "OverrideProcs": "x"},
    "Spec": SPEC,
    "NumGoferFilestoreFDs": 1,
    "IsDevIoFilePresent": False,
    "GoferMountConfs": [{"lower": 1, "upper": 2, "size": "10M"}],
    "RequestID": "r",
}
SLOW_SHARE = 10
"""A target that needs the kernel for each input gets so many times fewer."""
WRITTEN_SHARE = 4
"""And one in so many of these is opened to be written."""
GOLDEN_LOG = (REPOSITORY / "tests/golden/logs/log_v2.db").read_bytes()


@pytest.fixture(autouse=True)
def descriptors_back_to_baseline() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_urpc_messages() -> None:
    samples = [
        encode_request("containerManager.StartSubcontainer", START),
        encode_request("containerManager.Wait", "c1") * 3,
        encode_request("sandboxManager.List", None),
        b'{"method":"a\\u00e9\\ud800","arg":[1e1,-0,{"a":[[]]},true,"\xff"]}',
    ]
    null = os.open(os.devnull, os.O_RDONLY)
    load = Load(LoadLimits(buffered_bytes_max=1 << 16, files_max=16))

    def target(data: bytes) -> None:
        lease = load.admit()
        assert not isinstance(lease, str)
        reader = MessageReader(bytes_max=1 << 14, discard_max=1 << 15, lease=lease)
        step = 1 + len(data) % 61
        at = 0
        try:
            while at < len(data):
                if reader.awaiting_first:
                    files = FdBundle([OwnedFd(os.dup(null))]) if at % 2 else FdBundle()
                    message = reader.receive_first(Received(data=data[at : at + 1], files=files))
                    at += 1
                else:
                    message = reader.receive_data(data[at : at + step])
                    at += step
                while message is not None:
                    lease.release()
                    _decode(message)
                    message = reader.next_buffered()
        except MalformedMessage:
            pass
        finally:
            reader.close()
            lease.close()

    assert fuzz(target, samples) >= INPUTS
    os.close(null)
    assert (load.connections, load.buffered_bytes, load.files) == (0, 0, 0)


def _decode(message: Any) -> None:
    if message.refusal is not None:
        return
    request = parse_request(message, PEER)
    with request.files:
        with contextlib.suppress(DecodeError):
            request.decode(START_ARGS)
        with contextlib.suppress(DecodeError):
            _ = request.arg


def test_worker_protocol() -> None:
    launch = w.Launch(
        launch_id="L-1",
        engine_id="0" * 32,
        engine="crun",
        spec=msgspec.json.encode(SPEC),
        plan=LaunchPlan(stdio=(0, 1, 2), root=LayerPlan(lower="lisafs", lower_fd=3)),
    )
    identity = w.PidIdentity(pid=1, start_ticks=2, pidfd_inode=3, boot_id="b")
    messages: list[Any] = [
        launch,
        w.Hello(protocol=2, manager_pid=7),
        w.Kill(launch_id="L-1", kill_id="K", signo=9, pid=0, mode=0),
        w.Welcome(
            protocol=2,
            worker=identity,
            kernel="6",
            engines=(w.EngineReport(name="crun", works=True),),
            capabilities={"a": "b"},
            launches=(w.LaunchFact(launch_id="L-1", phase="running", identity=identity),),
        ),
        w.Exited(seq=1, launch_id="L-1", status=0, source="waitid", exited_at_ns=1),
    ]
    samples = [encode_frame(w.encode(each)) for each in messages]
    samples.append(b"".join(samples))

    def target(data: bytes) -> None:
        decoder = FrameDecoder()
        try:
            for at in range(0, len(data), 97):
                for frame in decoder.receive_data(data[at : at + 97]):
                    frame.fds.close()
                    for decode in (w.decode_to_worker, w.decode_from_worker):
                        with contextlib.suppress(msgspec.MsgspecError):
                            decode(frame.body)
        except FrameError:
            pass
        finally:
            decoder.close()

    assert fuzz(target, samples) >= INPUTS


def _golden_events() -> list[tuple[str, str, bytes]]:
    text = (REPOSITORY / "tests/golden/events_v1.jsonl").read_text()
    lines = [msgspec.json.decode(line) for line in text.splitlines()]
    return [(each["stream"], each["type"], msgspec.json.encode(each["data"])) for each in lines]


def test_events() -> None:
    events = _golden_events()
    samples = [f"{stream}\n{tag}\n".encode() + data for stream, tag, data in events]

    def target(data: bytes) -> None:
        stream, _, rest = data.partition(b"\n")
        name, _, body = rest.partition(b"\n")
        tag = name.decode(errors="replace")
        try:
            if stream == b"node" or tag in NODE_EVENT_TYPES:
                decode_node_event(tag, body)
            else:
                fold([decode_event(tag, body)])
        except EventFormatError:
            pass

    assert fuzz(target, samples) >= INPUTS


def test_specs() -> None:
    samples = [msgspec.json.encode(SPEC), msgspec.json.encode({**SPEC, "hooks": {"a": [1]}})]
    more = {"namespaces": [{"type": "network", "path": "/p"}], "sysctl": {"a": "b"}}
    samples.append(msgspec.json.encode({**SPEC, "linux": {**SPEC["linux"], **more}}))
    engine = EngineFacts(name="crun", version="1", lacks=("erofs", "seccomp"))

    def target(data: bytes) -> None:
        try:
            spec = parse_spec(data)
            assert parse_spec_object(msgspec.json.decode(data)) == spec
        except ValueError:
            return
        command = c.CreateSandbox(
            sandbox_id="sb",
            request=a_request("sb", (*STDIO, DIRECTORY, DIRECTORY)),
            spec=spec,
            engine=engine,
            launch_id="L",
            engine_id="e",
            hold_id="H",
        )
        [event] = decide(ABSENT, command)
        fold([event])

    assert fuzz(target, samples) >= INPUTS


def _image(contents: bytes, stored: int | None) -> bytes:
    container = image.ImageContainer(
        name="web",
        cid="c1",
        engine_id="0" * 32,
        spec=msgspec.Raw(b'{"process":{}}'),
        root=True,
        files=(
            image.ImageFile(
                name="checkpoint.img",
                offset=0,
                length=len(contents),
                sha256=hashlib.sha256(contents).hexdigest(),
                stored=stored,
            ),
        ),
    )
    compression = NONE if stored is None else FLATE
    return image.encode_metadata(
        image.ImageMetadata(
            sandtrail="1", container_count=1, containers=(container,), compression=compression
        )
    )


def test_images() -> None:
    """Half the inputs have a digest that fits, so that what it protects is read, too."""
    plain, smaller = _image(b"x" * 100, None), _image(b"x" * 5000, 60)
    samples = [image.encode_header(plain) + plain, image.encode_header(smaller, FLATE) + smaller]

    def target(data: bytes) -> None:
        header, body = data[: image.HEADER_BYTES], data[image.HEADER_BYTES :]
        if len(data) % 2:
            header = image.encode_header(body, FLATE if b"flate" in body else NONE)
        file = header.ljust(image.ALIGNMENT_BYTES, b"\0") + body
        file = file.ljust(image.data_offset(len(body)), b"\0") + b"x" * 100

        def read(offset: int, length: int) -> bytes:
            assert length <= image.METADATA_BYTES_MAX
            return file[offset : offset + length]

        try:
            found = image.read_image(len(file), read)
        except image.ImageRejected:
            return
        for container in found.metadata.containers or ():
            for each in container.files:
                assert found.begin + each.offset + each.room <= len(file)
                assert each.length <= len(file) * image.DEFLATE_RATIO_MAX
                assert "/" not in each.name

    assert fuzz(target, samples) >= INPUTS


def test_deflated_files() -> None:
    samples = [
        b"".join(deflated([part * times])) for part in (b"", b"ab", b"01\xff") for times in (1, 99)
    ]

    def target(data: bytes) -> None:
        step = 1 + len(data) % 61
        pieces = (data[at : at + step] for at in range(0, len(data), step))
        with contextlib.suppress(NotDeflated):
            assert sum(map(len, inflated(pieces, 10_000))) <= 10_000

    assert fuzz(target, samples) >= INPUTS


def _archives(outside: Path) -> list[bytes]:
    """Good ones of each format, and others that try to reach a directory."""
    honest = (
        ("d", tarfile.DIRTYPE, ""),
        ("d/file", tarfile.REGTYPE, ""),
        ("d/" + "n" * 60, tarfile.REGTYPE, ""),
        ("link", tarfile.SYMTYPE, "d/file"),
        ("hard", tarfile.LNKTYPE, "d/file"),
        ("gone", tarfile.CHRTYPE, ""),
    )
    through_a_link = (
        ("out", tarfile.SYMTYPE, str(outside)),
        ("out/more", tarfile.REGTYPE, ""),
        ("out/kept", tarfile.REGTYPE, ""),
    )
    by_their_names = (
        ("d/..", tarfile.DIRTYPE, ""),
        ("../more", tarfile.REGTYPE, ""),
        ("hard", tarfile.LNKTYPE, "../kept"),
        ("hard", tarfile.REGTYPE, ""),
    )
    archives = []
    for style in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        archives.append(_archive(honest, style))
        archives.append(_archive(through_a_link, style))
        archives += [_archive(by_their_names[at : at + 2], style) for at in (0, 1, 2)]
    return archives


def _archive(members: Sequence[tuple[str, bytes, str]], style: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=style, bufsize=512) as archive:
        for name, kind, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mtime = kind, target, 1.5
            body = b"some text" if kind == tarfile.REGTYPE else b""
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return file.getvalue().rstrip(b"\0") + b"\0" * 1024


def _with_sums(data: bytes) -> bytes:
    """An archive whose headers have sums that fit, so that what these protect is read, too."""
    whole = bytearray(data)
    for at in range(0, len(whole) - 511, 512):
        if whole[at + 257 : at + 262] == b"ustar":
            whole[at + 148 : at + 156] = b" " * 8
            whole[at + 148 : at + 155] = b"%06o\0" % sum(whole[at : at + 512])
    return bytes(whole)


def _everything_in(directory: Path, but_in: Path) -> dict[Path, tuple[int, int, int, bytes]]:
    """All that could be changed: of each path inode, mode, time and contents."""
    found = {}
    for path in (directory, *directory.rglob("*")):
        if path != but_in and but_in not in path.parents:
            status = path.lstat()
            body = path.read_bytes() if path.is_file() else b""
            found[path] = (status.st_ino, status.st_mode, status.st_mtime_ns, body)
    return found


@pytest.mark.parametrize("how", ["whole", "names"])
def test_archives(tmp_path: Path, how: str) -> None:
    """What is unpacked is shut in; and names alone lead nowhere else, either."""
    if os.geteuid() != 0:
        pytest.skip("the unpacking script shuts itself in, which takes root")
    outside, root = tmp_path / "outside", tmp_path / "outside" / "root"
    root.mkdir(parents=True)
    (outside / "kept").write_text("untouched")
    before = _everything_in(tmp_path, root)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.untar_child", str(root), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
        bufsize=0,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        writer, reader = child.stdin, child.stdout

        def target(data: bytes) -> None:
            archive = _with_sums(data) if len(data) % 4 else data
            writer.write(struct.pack(">I", len(archive)) + archive)
            assert reader.read(1) == b"."

        for each in _archives(outside):
            target(each)
        inputs = INPUTS // SLOW_SHARE
        assert fuzz(target, _archives(outside), inputs) >= inputs
        fds = os.listdir(f"/proc/{child.pid}/fd")
        writer.close()
    assert len(fds) <= 4, "standard streams, and the directory that this list is read from"
    assert child.returncode == 0
    assert _everything_in(tmp_path, root) == before


def test_mutations_reach_all_of_a_log() -> None:
    last = len(GOLDEN_LOG) - 1
    program = bytes([0, 0, 1, *last.to_bytes(3, "big")])
    assert mutated([GOLDEN_LOG], program) == GOLDEN_LOG[:-1] + b"\1"


def test_what_hangs_is_shown() -> None:
    with pytest.raises(Hang, match=repr(b"a sample")):
        fuzz(lambda _: time.sleep(PATIENCE_S), [b"a sample"], inputs=1, seconds=0.01)


def test_logs(tmp_path: Path) -> None:
    """Read and verified; some are opened to be written, too."""
    path = tmp_path / "events.db"

    async def read() -> None:
        async with open_log(path, read_only=True) as log:
            async for record in log.read():
                decode = decode_node_event if record.stream == "node" else decode_event
                with contextlib.suppress(EventFormatError):
                    decode(record.type, record.data)

    async def write() -> None:
        async with open_log(path) as log:
            await log.append("more", [NewEvent(type="counted", data={"n": 1})], expected=ANY)

    with asyncio.Runner() as runner:
        actions = (
            lambda: runner.run(read()),
            lambda: verify_log(path),
            lambda: runner.run(write()),
        )

        def target(data: bytes) -> None:
            path.write_bytes(data)
            is_written = zlib.crc32(data) % WRITTEN_SHARE == 0
            for action in actions if is_written else actions[:-1]:
                with contextlib.suppress(EventStoreError):
                    action()
            for left in tmp_path.iterdir():
                left.unlink()

        path.write_bytes(GOLDEN_LOG)
        for action in actions:
            action()  # of a log that nobody has changed none is refused
        inputs = INPUTS // SLOW_SHARE
        assert fuzz(target, [GOLDEN_LOG], inputs) >= inputs
