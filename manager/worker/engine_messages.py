"""What an engine's complaint means. Pure.

The texts are those of crun 1.8 and 1.21, runc 1.1, runsc 2022 and bubblewrap 0.8 to 0.11, seen, not
guessed. A text that is not known here is passed on as it is.
"""

import errno
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from manager.worker.errors import LaunchFailed, one_line

_PATTERNS: Final = (
    # crun
    (re.compile(r"executable file `.*` not found"), errno.ENOENT),
    (re.compile(r"the path `.*` is not a regular file"), errno.EACCES),
    (re.compile(r"the path `.*` exists but it is not executable"), errno.EACCES),
    (re.compile(r"open executable: (Permission denied|Operation not permitted)"), errno.EACCES),
    # runc
    (re.compile(r"exec: .*: stat .*: no such file or directory"), errno.ENOENT),
    (re.compile(r"exec: .*: executable file not found in \$PATH"), errno.ENOENT),
    (re.compile(r"exec: .*: permission denied"), errno.EACCES),
    (re.compile(r"exec: .*: is a directory"), errno.EACCES),
    # runsc
    (re.compile(r"failed to load .*: (no such file or directory|not a directory)"), errno.ENOENT),
    (re.compile(r"error finding executable"), errno.ENOENT),
    (re.compile(r"failed to load .*: permission denied"), errno.EACCES),
    (re.compile(r"failed to load .*: exec format error"), errno.ENOEXEC),
    # bubblewrap
    (re.compile(r"bwrap: execvp .*: No such file or directory"), errno.ENOENT),
    (re.compile(r"bwrap: execvp .*: Permission denied"), errno.EACCES),
)

_NOISE: Final = re.compile(r"^(runc create failed: |bwrap: |(FATAL|ERROR): )+")


def explain(engine: str, doing: str, output: str, program: str) -> LaunchFailed:
    """Turn an engine's output into a failure: stage `exec` where the program is the cause.

    Args:
        engine: Its name.
        doing: What it was asked for (`create`).
        output: Its log or error output; plain text, or a JSON object with `msg` per line.
        program: What the container was to execute.
    """
    message = "; ".join(_messages(output))
    for pattern, number in _PATTERNS:
        if pattern.search(message):
            text = _NOISE.sub("", message)
            named = text if program in text else f"{program}: {text}"
            return LaunchFailed("exec", f"{engine}: {named}", number)
    text = _NOISE.sub("", message) or "failed without a message"
    return LaunchFailed("create", f"{engine} {doing}: {text}")


def _messages(output: str) -> Iterator[str]:
    """Every error that was logged, once."""
    seen = set()
    # runsc writes its JSON objects one after the other, without a line's end.
    for line in output.replace("}{", "}\n{").splitlines():
        text = one_line(_from_json(line))
        if text and text not in seen:
            seen.add(text)
            yield text


def _from_json(line: str) -> str:
    try:
        record = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return line
    if not isinstance(record, dict):
        return line
    level = record.get("level")
    return str(record.get("msg", "")) if level in {None, "error", "fatal", "panic"} else ""
