"""The two bodies of a spec: what the worker gets, and what the log keeps."""

import hashlib
import hmac
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from eventstore import Document
from manager.domain.request import ConfValue

SPEC_MEDIA_TYPE: Final = "application/vnd.oci.runtime.config.v1+json"
MASK_HEX_CHARS: Final = 32

SpecObject = dict[str, Any]
"""A spec as decoded JSON, member names as in the OCI runtime spec."""

_encode = msgspec.json.Encoder().encode


def encode_spec(spec: SpecObject) -> bytes:
    """Write a spec as compact JSON."""
    return _encode(spec)


def masked_document(spec: SpecObject, key: bytes) -> Document:
    """Make the body that the log keeps: every env value is replaced by a keyed digest.

    Equal values of one node have equal digests, so that they can be compared without being known.
    """
    masked = dict(spec)
    if "process" in spec:
        masked["process"] = _masked_env(spec["process"], key)
    hooks = spec.get("hooks")
    if isinstance(hooks, dict):
        masked["hooks"] = {
            kind: [_masked_env(hook, key) for hook in found] if isinstance(found, list) else found
            for kind, found in hooks.items()
        }
    return Document(media_type=SPEC_MEDIA_TYPE, body=_encode(masked))


def _masked_env(of: object, key: bytes) -> object:
    if not isinstance(of, dict) or not of.get("env"):
        return of
    return {**of, "env": [mask_entry(entry, key) for entry in of["env"]]}


def mask_entry(entry: str, key: bytes) -> str:
    """Replace the value of an environment entry by its keyed digest."""
    name, separator, value = entry.partition("=")
    if not separator:
        return entry
    digest = hmac.new(key, value.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
    return f"{name}=hmac-sha256:{digest[:MASK_HEX_CHARS]}"


def effective_spec(spec: SpecObject, conf: dict[str, ConfValue] | None) -> SpecObject:
    """Apply what gVisor applies before a process is made.

    Without ``EnableRaw`` no capability set keeps CAP_NET_RAW. Of an environment variable that is
    given twice the last value counts, in the place of the first.
    """
    process = spec.get("process")
    if not isinstance(process, dict):
        return spec
    changed = dict(process)
    capabilities = process.get("capabilities")
    if isinstance(capabilities, dict) and not (conf or {}).get("EnableRaw"):
        changed["capabilities"] = {
            name: [each for each in members or () if each != "CAP_NET_RAW"]
            for name, members in capabilities.items()
        }
    if process.get("env"):
        changed["env"] = last_of_each(process["env"])
    return {**spec, "process": changed}


def last_of_each(env: Iterable[str]) -> list[str]:
    """Of a variable that is given twice the last value, in the place of the first."""
    return list({entry.partition("=")[0]: entry for entry in env}.values())
