"""The config.json that an OCI engine gets: the client's spec, with what is ours put in. Pure.

Source: opencontainers/runtime-spec v1.2.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct, to_builtins

from manager.domain.spec import Rlimit
from manager.worker.mount_options import flags_of
from manager.worker.root_plan import EngineMount, RootPlan, TreeMount

NAMESPACES: Final = {"pid": "pid", "net": "network", "ipc": "ipc", "uts": "uts"}
"""Name under /proc/PID/ns -> name in the spec, of those that a container joins or gets new."""

KEPT_NAMESPACES: Final = frozenset({"cgroup", "user", "time"})
"""Made new if the spec asks for them; never joined by a path of the client's choice."""

DROPPED_MEMBERS: Final = frozenset(
    {"hooks", "annotations", "domainname", "solaris", "windows", "vm", "zos"}
)
"""Hooks are programs of the host, run as the engine; annotations switch engine features on; the
domain name is set by the worker."""


class Changes(Struct, frozen=True, kw_only=True):
    """What is ours in a config.

    Attributes:
        root: Path of the finished root on the stage.
        parts: Directory with the staged trees.
        namespaces: Name under /proc/PID/ns -> path, of those to join.
        cgroups_path: Below each hierarchy's root.
        rlimits: The process's, complete.
        terminal: Whether the engine is to make a terminal and hand it out.
        readonly: Whether the engine is to make the root read-only; its mount may be so anyway.
        keep_resources: Whether the engine applies `linux.resources` itself.
        run_hooks: Whether the engine gets the spec's hooks.
    """

    root: Path
    parts: Path
    namespaces: Mapping[str, str]
    cgroups_path: str
    readonly: bool
    rlimits: tuple[Rlimit, ...]
    terminal: bool = False
    keep_resources: bool = False
    run_hooks: bool = False


def build_config(body: Mapping[str, object], plan: RootPlan, changes: Changes) -> dict[str, object]:
    """Make the config; the given body is left as it is."""
    dropped = DROPPED_MEMBERS - {"hooks"} if changes.run_hooks else DROPPED_MEMBERS
    config = {key: value for key, value in body.items() if key not in dropped}
    config["process"] = {
        **_object(body, "process"),
        "terminal": changes.terminal,
        "rlimits": [to_builtins(limit) for limit in changes.rlimits],
    }
    config["root"] = {"path": str(changes.root), "readonly": changes.readonly}
    config["mounts"] = [_mount(entry, changes.parts) for entry in plan.engine_entries]
    config["linux"] = _linux(_object(body, "linux"), changes)
    if "uts" in changes.namespaces:
        # The root container's name is everybody's; a subcontainer does not rename the sandbox.
        config.pop("hostname", None)
    return config


def _linux(linux: Mapping[str, object], changes: Changes) -> dict[str, object]:
    ours = dict(linux)
    ours["cgroupsPath"] = changes.cgroups_path
    ours["namespaces"] = _namespaces(linux, changes.namespaces)
    if not changes.keep_resources:
        ours.pop("resources", None)
    return ours


def _namespaces(linux: Mapping[str, object], joined: Mapping[str, str]) -> list[dict[str, str]]:
    result = [{"type": "mount"}]
    for name, spec_name in NAMESPACES.items():
        path = joined.get(name)
        result.append({"type": spec_name, "path": path} if path else {"type": spec_name})
    given = linux.get("namespaces")
    for namespace in given if isinstance(given, list) else ():
        kind = namespace.get("type") if isinstance(namespace, dict) else None
        if kind in KEPT_NAMESPACES:
            result.append({"type": kind})
    return result


def _mount(entry: EngineMount | TreeMount, parts: Path) -> dict[str, object]:
    if isinstance(entry, EngineMount):
        mount = entry.mount
        return {
            "destination": mount.destination,
            "type": mount.type,
            "source": mount.source or mount.type,
            "options": list(mount.options or ()),
        }
    return {
        "destination": entry.destination,
        "type": "bind",
        "source": str(parts / entry.place),
        "options": ["rbind", *flags_of(entry.options)],
    }


def _object(body: Mapping[str, object], member: str) -> dict[str, object]:
    value = body.get(member)
    return dict(value) if isinstance(value, dict) else {}
