"""A policy as a file: the settings of a what-if, to be kept and reviewed like code.

::

    restore-spec-validation = "enforce"
    permit = ["hooks", "namespace-paths"]
    ignore-namespace-paths = false

TOML, or the same as one object of JSON.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from replay.settings import SettingError

POLICY_BYTES_MAX: Final = 1024 * 1024


def read_policy(path: Path) -> tuple[str, ...]:
    """The settings of a file as ``KEY=VALUE``, for :func:`replay.settings.parse_settings`.

    Raises:
        SettingError: It is neither TOML nor JSON, or a value is of no kind that a setting has.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        raw = file.read(POLICY_BYTES_MAX)
    return tuple(f"{key}={_text(key, value)}" for key, value in _parse(raw).items())


def _parse(raw: bytes) -> Mapping[str, Any]:
    try:
        if raw.lstrip().startswith(b"{"):  # as no TOML does
            return msgspec.json.decode(raw, type=dict[str, Any])
        return tomllib.loads(raw.decode())
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SettingError(f"neither TOML nor JSON: {error}") from None


def _text(key: str, value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case [*names] if all(isinstance(each, str) for each in names):
            return ",".join(names) or "none"
    raise SettingError(f"{key}: want text, true, false or a list of names, not {value!r}")
