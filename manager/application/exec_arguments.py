"""The arguments of an exec: what the log keeps of them, and what the worker gets."""

from typing import Any

from msgspec import Struct

from manager.application.spec_body import last_of_each, mask_entry
from manager.domain.capability_numbers import names_of
from manager.domain.execution import CapabilityMasks, ExecRequest
from manager.domain.gotext import quote
from manager.domain.request import FdFact
from manager.schema import worker as w


class ExecArguments(Struct, frozen=True, kw_only=True):
    """What an exec says, beside its descriptors; numbers and names as in gVisor's ExecArgs."""

    cid: str
    filename: str = ""
    argv: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str = ""
    uid: int = 0
    gid: int = 0
    extra_gids: tuple[int, ...] = ()
    no_new_privileges: bool = False
    capabilities: CapabilityMasks | None = None
    terminal: bool = False
    guest_fds: tuple[int, ...] = ()
    request_id: str = ""

    def request(self, files: tuple[FdFact, ...], env_key: bytes) -> ExecRequest:
        """What the log keeps: of the environment the names, and keyed digests of the values."""
        paths = [entry.partition("=")[2] for entry in self.env if entry.startswith("PATH=")]
        return ExecRequest(
            cid=self.cid,
            filename=self.filename,
            argv=self.argv,
            env=tuple(mask_entry(entry, env_key) for entry in self.env),
            cwd=self.cwd,
            uid=self.uid,
            gid=self.gid,
            extra_gids=self.extra_gids,
            no_new_privileges=self.no_new_privileges,
            capabilities=self.capabilities,
            terminal=self.terminal,
            guest_fds=self.guest_fds,
            files=files,
            search_path=tuple(paths[-1].split(":")) if paths else (),
            request_id=self.request_id,
        )

    def env_error(self) -> str:
        """What is wrong with the environment, or an empty string."""
        for entry in self.env:
            if "=" not in entry:
                return f"invalid variable: {entry}"
            if "\0" in entry:
                name = quote(entry.partition("=")[0])
                return f"variable {name} holds a NUL, which no environment can carry"
        return ""

    def process(self) -> w.ExecProcess:
        """What the worker gets: of a variable that is given twice the last value counts."""
        return w.ExecProcess(
            args=self.argv,
            executable=self.filename,
            env=tuple(last_of_each(self.env)),
            cwd=self.cwd or "/",
            uid=self.uid,
            gid=self.gid,
            extra_gids=self.extra_gids,
            no_new_privileges=self.no_new_privileges,
            capabilities=_named(self.capabilities),
            terminal=self.terminal,
            guest_fds=self.guest_fds,
        )


def from_wire(argument: dict[str, Any], files: int) -> ExecArguments:
    """Read a decoded ExecArgs (see ``manager.urpc.gotypes``).

    Without ``GuestFDs`` it is a client of 2022: its ``files`` are 0, 1, 2 and so on.
    """
    masks = argument["Capabilities"]
    return ExecArguments(
        cid=argument["ContainerID"],
        filename=argument["filename"],
        argv=tuple(argument["argv"] or ()),
        env=tuple(argument["envv"] or ()),
        cwd=argument["wd"],
        uid=argument["KUID"],
        gid=argument["KGID"],
        extra_gids=tuple(argument["ExtraKGIDs"] or ()),
        no_new_privileges=argument["NoNewPrivileges"],
        capabilities=masks
        and CapabilityMasks(
            bounding=masks["BoundingCaps"],
            effective=masks["EffectiveCaps"],
            inheritable=masks["InheritableCaps"],
            permitted=masks["PermittedCaps"],
            ambient=masks["AmbientCaps"],
        ),
        terminal=argument["StdioIsPty"],
        guest_fds=tuple(argument["GuestFDs"] or range(files)),
        request_id=argument["RequestID"],
    )


def _named(masks: CapabilityMasks | None) -> dict[str, tuple[str, ...]] | None:
    if masks is None:
        return None
    sets = {
        "bounding": masks.bounding,
        "effective": masks.effective,
        "inheritable": masks.inheritable,
        "permitted": masks.permitted,
        "ambient": masks.ambient,
    }
    return {name: names_of(mask) for name, mask in sets.items()}
