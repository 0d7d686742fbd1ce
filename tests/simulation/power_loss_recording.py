"""What a log's writer does to its files, call by call: strace of a program that runs the real one.

strace stops a thread at the beginning and at the end of each call and writes a line before it lets
it go on. So lines are in the order of things even among threads: a sync that ended before an
acknowledgement began stands before it.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
TRACED: Final = (
    "openat,open,creat,write,writev,pwrite64,pwritev,pwritev2,truncate,ftruncate,fallocate,fsync,"
    "fdatasync,sync_file_range,msync,unlink,unlinkat,rename,renameat,renameat2,link,linkat,"
    "symlink,symlinkat,copy_file_range,sendfile,splice,mmap,io_uring_setup"
)
LOST_ANYWAY: Final = ("-shm", ".lock")
"""Files that mean nothing after a power cut: SQLite makes the WAL's index anew."""
STRING_BYTES_MAX: Final = 8 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that happened; ``began`` and ``ended`` are lines of the trace."""

    began: int
    ended: int


@dataclass(frozen=True, kw_only=True)
class Write(Step):
    name: str
    offset: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Truncate(Step):
    name: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Create(Step):
    name: str
    empties: bool


@dataclass(frozen=True, kw_only=True)
class Unlink(Step):
    name: str


@dataclass(frozen=True, kw_only=True)
class SyncFile(Step):
    name: str


@dataclass(frozen=True, kw_only=True)
class SyncDirectory(Step):
    pass


@dataclass(frozen=True, kw_only=True)
class Said(Step):
    line: dict[str, object]


class NotModelledError(AssertionError):
    """The writer did something to its files that the simulation cannot take apart."""


def record(directory: Path, log: Path, key: Path, seed: int, synchronous: str) -> list[Step]:
    """Run the writer under strace and say what it did in the log's directory."""
    trace = directory / f"trace-{seed}-{synchronous}"
    done = subprocess.run(
        [
            *("strace", "-f", "--seccomp-bpf", "-qqq", "-y", "-xx", "-s", str(STRING_BYTES_MAX)),
            *("-o", trace, "-e", f"trace={TRACED}", sys.executable, "-P", "-m"),
            *("tests.simulation.power_loss_writer", log, key, str(seed), synchronous),
        ],
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    steps = read_trace(trace, log.parent)
    said = [step.line for step in steps if isinstance(step, Said)]
    assert said == [json.loads(line) for line in done.stdout.splitlines()], "the trace has holes"
    return steps


def read_trace(trace: Path, directory: Path) -> list[Step]:
    """The steps of a trace that concern the files of a directory, in the order of their begin."""
    steps = []
    for began, ended, name, arguments, result in calls(trace):
        if result >= 0:
            step = interpret(name, arguments, result, str(directory), (began, ended))
            if step is not None:
                steps.append(step)
        elif str(directory) in unhex(arguments) and name not in ("openat", "unlink"):
            raise NotModelledError(f"a call that fails: {name}({unhex(arguments)[:300]})")
    return sorted(steps, key=lambda step: step.began)


def calls(trace: Path) -> Iterator[tuple[int, int, str, str, int]]:
    """All calls: first line, last line, name, arguments, result."""
    begun: dict[str, tuple[int, str]] = {}
    with trace.open(encoding="ascii") as lines:
        for number, line in enumerate(lines):
            thread, text = line.rstrip("\n").split(maxsplit=1)
            began = number
            if text.endswith("<unfinished ...>"):
                begun[thread] = number, text.removesuffix(" <unfinished ...>")
                continue
            if text.startswith("<... "):
                began, head = begun.pop(thread)
                text = head + text.partition(" resumed>")[2]
            found = re.fullmatch(r"(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+|\?)(.*)", text)
            if found is not None and found[3] != "?":
                yield began, number, found[1], found[2], int(found[3], 0)
    assert not begun, f"calls without an end: {begun}"


def unhex(text: str) -> str:
    return re.sub(
        r"(\\x[0-9a-f]{2})+",
        lambda found: bytes.fromhex(found[0].replace("\\x", "")).decode(errors="replace"),
        text,
    )


def interpret(
    call: str, arguments: str, result: int, directory: str, lines: tuple[int, int]
) -> Step | None:
    """What a successful call means for the directory; None if nothing."""
    began, ended = lines
    target, _, rest = arguments.partition(", ")
    if call == "write" and target.startswith("1<"):
        line = json.loads(bytes.fromhex(rest.split('"')[1].replace("\\x", "")))
        return Said(began=began, ended=ended, line=line)
    described = re.search(r"<([^>]*)>(\(deleted\))?", arguments if call == "mmap" else target)
    path = unhex(described[1]) if described else ""
    if call in ("openat", "unlink"):
        path = unhex(arguments.split('"')[1])
    elif described is not None and (described[2] or path.endswith(" (deleted)")):
        return None  # nobody can find that file any more
    if path == directory and call in ("fsync", "fdatasync"):
        return SyncDirectory(began=began, ended=ended)
    if path.endswith(LOST_ANYWAY):
        return None
    if not path.startswith(directory + "/"):
        if directory in unhex(arguments) and call != "openat":
            raise NotModelledError(f"{call}({unhex(arguments)[:300]})")
        return None
    name = path.removeprefix(directory + "/")
    return change(call, name, rest, result, Step(began=began, ended=ended))


def change(call: str, name: str, rest: str, result: int, step: Step) -> Step | None:
    """What a call does to a file of the directory."""
    began, ended = step.began, step.ended
    match call:
        case "pwrite64":
            _, encoded, numbers = rest.split('"')
            data = bytes.fromhex(encoded.replace("\\x", ""))
            size, offset = (int(number) for number in numbers.strip(", ").split(", "))
            if not len(data) == size == result:
                raise NotModelledError(f"a write to {name} of {result} of {size} bytes")
            return Write(began=began, ended=ended, name=name, offset=offset, data=data)
        case "ftruncate":
            return Truncate(began=began, ended=ended, name=name, size=int(rest))
        case "fsync" | "fdatasync":
            return SyncFile(began=began, ended=ended, name=name)
        case "unlink":
            return Unlink(began=began, ended=ended, name=name)
        case "openat" if "O_CREAT" in rest:
            return Create(began=began, ended=ended, name=name, empties="O_TRUNC" in rest)
        case "openat":
            return None
        case "mmap" if "PROT_WRITE" not in rest:
            return None
    raise NotModelledError(f"{call} of {name}: {rest[:200]}")
