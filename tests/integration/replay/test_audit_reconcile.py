"""The log's last state against a machine made of files."""

import json
import socket
from pathlib import Path

import anyio
import pytest

from manager.domain.state import Container
from manager.schema.layout import LOG_FILE
from replay.evidence import reconcile as module
from replay.evidence.machine_view import MachineView
from replay.evidence.reconcile import Reconciliation, reconcile
from replay.trail import Trail
from tests.integration.replay.conftest import BOOT_ID, WORKER, Run


class Machine:
    """A state directory and a /proc in which all is as the log says."""

    def __init__(self, root: Path, tmp_path: Path, containers: dict[str, Container]) -> None:
        self.log = root / LOG_FILE
        self.root = tmp_path / "state"
        self.proc = tmp_path / "proc"
        self.cgroups = tmp_path / "cgroup" / "sandtrail"
        self.containers = containers
        for directory in ("sandboxes/web", "worker/engines/crun", "worker/launches"):
            (self.root / directory).mkdir(parents=True)
        self._put("sys/kernel/random/boot_id", BOOT_ID + "\n")
        self._put("self/mountinfo", f"30 1 0:1 / {tmp_path}/cgroup rw - cgroup2 none rw\n")
        self.process(WORKER.pid, WORKER.start_ticks)
        mounts = []
        for each in containers.values():
            assert each.intent is not None
            engine_id = each.intent.engine_id
            if each.status == "running":
                assert each.launched is not None
                self.process(each.launched.pid, each.launched.start_ticks)
                self.cgroup(engine_id, each.launched.pid)
                mounts.append(
                    f"40 1 0:2 / {self.root}/worker/stage/{engine_id}/root rw - tmpfs t rw"
                )
            (self.root / "worker/engines/crun" / engine_id).mkdir()
            (self.root / "worker/launches" / engine_id).touch()
        self._put(f"{WORKER.pid}/mountinfo", "\n".join(mounts))
        lock = self.root / f"{LOG_FILE}.lock"
        lock.touch()
        self._put("locks", f"1: FLOCK  ADVISORY  WRITE 77 08:01:{lock.stat().st_ino} 0 EOF\n")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.root / "sandboxes/web/control.sock"))

    def _put(self, name: str, text: str) -> None:
        path = self.proc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def process(self, pid: int, start_ticks: int, state: str = "S") -> None:
        zeros = " ".join(["0"] * 18)
        self._put(f"{pid}/stat", f"{pid} (a) b) ) {state} {zeros} {start_ticks} 0 0\n")

    def cgroup(self, engine_id: str, *pids: int, frozen: bool = False) -> None:
        directory = self.cgroups / engine_id / "inner"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        (directory.parent / "cgroup.events").write_text(f"populated 1\nfrozen {int(frozen)}\n")

    async def look(self) -> Reconciliation:
        async with Trail.open(self.log) as trail:
            return await reconcile(trail, MachineView(self.root, self.proc))

    async def found(self) -> list[tuple[str, str, str]]:
        return [(each.kind, each.layer, each.subject) for each in (await self.look()).found]

    def engine_id(self, cid: str) -> str:
        intent = self.containers[cid].intent
        assert intent is not None
        return intent.engine_id

    def pid(self, cid: str) -> int:
        launched = self.containers[cid].launched
        assert launched is not None
        return launched.pid


@pytest.fixture
async def machine(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0)
    async with Trail.open(root / LOG_FILE) as trail:
        state = await trail.sandbox("web")
    assert state is not None
    alive = {cid: found for cid, found in state.containers.items() if found.exists}
    return Machine(root, tmp_path, alive)


async def test_all_is_as_recorded(machine: Machine) -> None:
    told = await machine.look()
    assert (told.found, told.skipped, told.service_runs) == ((), (), True)
    assert told.containers == len(machine.containers) == 2


async def test_ghosts(machine: Machine) -> None:
    machine.process(machine.pid("web"), 1)  # its number was given to another
    machine.process(machine.pid("web.2"), 1, state="Z")
    (machine.root / "sandboxes/web/control.sock").unlink()
    told = await machine.look()
    assert [(each.kind, each.layer, each.subject) for each in told.found] == [
        ("ghost", "process", "web"), ("ghost", "process", "web/web.2"), ("ghost", "socket", "web"),
    ]  # fmt: skip
    assert told.found[0].text.endswith("is another process by now")
    assert told.found[1].text.endswith("is gone")


async def test_after_a_reboot(machine: Machine) -> None:
    machine._put("sys/kernel/random/boot_id", "another\n")
    told = await machine.look()
    assert {each.text for each in told.found} == {
        "recorded as running, but the machine was started anew since"
    }
    assert "Mounts: the worker does not run." in told.skipped


async def test_drift(machine: Machine) -> None:
    machine.cgroup(machine.engine_id("web"), machine.pid("web"), frozen=True)
    machine.cgroup(machine.engine_id("web.2"), 4711)
    machine._put(f"{WORKER.pid}/mountinfo", "")
    assert await machine.found() == [
        ("drift", "cgroup", "web"), ("drift", "cgroup", "web/web.2"),
        ("drift", "mount", "web"), ("drift", "mount", "web/web.2"),
    ]  # fmt: skip


async def test_orphans(machine: Machine) -> None:
    stranger, broken_off = "f" * 32, "e" * 32
    (machine.root / "sandboxes/left").mkdir()
    (machine.root / "worker/engines/crun" / stranger).mkdir()
    (machine.root / "worker/engines/runsc").mkdir()
    (machine.root / "worker/engines/runsc" / f"runsc-{broken_off}.sock").touch()
    (machine.root / "worker/launches" / f"{stranger}.new").touch()
    mount = f"40 1 0:2 / {machine.root}/worker/stage/{stranger} rw - tmpfs t rw"
    path = machine.proc / str(WORKER.pid) / "mountinfo"
    path.write_text(f"{path.read_text()}\n{mount}")
    assert await machine.found() == [
        ("orphan", "mount", stranger), ("orphan", "socket", "left"),
        ("orphan", "engine", stranger), ("orphan", "engine", broken_off),
        ("orphan", "record", stranger),
    ]  # fmt: skip


async def test_a_cgroup_of_ours_and_one_of_another_service(machine: Machine, root: Path) -> None:
    async with Trail.open(root / LOG_FILE) as trail:
        records = [record async for record in trail.log.read(types=["container.start_accepted"])]
    gone = json.loads(records[0].data)["intent"]["engine_id"]
    assert gone not in {machine.engine_id(cid) for cid in machine.containers}
    machine.cgroup(gone, 1, 2)
    machine.cgroup("e" * 32, 3)
    told = await machine.look()
    assert [(each.kind, each.layer, each.subject) for each in told.found] == [
        ("orphan", "cgroup", gone)
    ]
    assert told.found[0].text.endswith("has 2 processes")
    assert told.skipped == ("1 cgroups that this log has never named: those of other services.",)


async def test_what_settles_meanwhile_is_no_difference(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = machine.containers["web"].launched
    assert launched is not None
    machine.process(launched.pid, 1)

    async def settle(_: float) -> None:
        machine.process(launched.pid, launched.start_ticks)

    monkeypatch.setattr(anyio, "sleep", settle)
    assert await machine.found() == []


def test_the_command(audit: Run) -> None:
    done = audit("reconcile")  # on a machine that never had these containers
    assert (done.returncode, "recorded as running, but" in done.stdout) == (1, True), done
    told = json.loads(audit("reconcile", "--json").stdout)
    assert told["schema"] == "sandtrail.audit-reconcile/v1"
    assert {each["kind"] for each in told["found"]} == {"ghost"}
    assert audit("reconcile", "--root", "/nonexistent").returncode == 5
