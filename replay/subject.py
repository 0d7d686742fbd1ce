"""States as expressions see them.

Most of a state is the same after an event as before it, and the parts of a state are immutable. So
what was converted once is kept as long as it is the same object.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import to_builtins
from typing_extensions import override

from manager.domain.state import Container, Sandbox
from manager.schema.node_fold import NodeFold
from replay.expression import Grouped


class _Containers:
    """The containers of one sandbox, as JSON has them."""

    def __init__(self) -> None:
        self._state: Sandbox | None = None
        self._seen: dict[str, tuple[Container, dict[str, Any]]] = {}
        self._group: list[dict[str, Any]] = []

    def of(self, sandbox_id: str, state: Sandbox) -> list[dict[str, Any]]:
        """In order; the same list as long as nothing of the state changes."""
        if state is self._state:
            return self._group
        phase_changed = self._state is None or self._state.phase != state.phase
        seen = {} if phase_changed else self._seen
        self._seen = {}
        for cid, found in state.containers.items():
            known = seen.get(cid)
            if known is None or known[0] is not found:
                shown = {**to_builtins(found), "sandbox": sandbox_id, "phase": state.phase}
                known = (found, shown)
            self._seen[cid] = known
        self._state = state
        self._group = [shown for _, shown in self._seen.values()]
        return self._group

    def by_cid(self, sandbox_id: str, state: Sandbox) -> dict[str, dict[str, Any]]:
        """The same by cid."""
        self.of(sandbox_id, state)
        return {cid: shown for cid, (_, shown) in self._seen.items()}


class NodeSubject(Mapping[str, Any]):
    """All sandboxes that live at a position.

    ``sandboxes`` are their states by id, ``containers`` those of all of them in one list, each with
    the ``sandbox`` that it is of and its ``phase``.
    """

    def __init__(self, fold: NodeFold) -> None:
        self._fold = fold
        self._containers: dict[str, _Containers] = {}

    @override
    def __getitem__(self, name: str) -> Any:
        match name:
            case "position":
                return self._fold.position
            case "sandboxes":
                return {each: to_builtins(at.state) for each, at in self._fold.live.items()}
            case "containers":
                return Grouped([self._look(each) for each in self._fold.live])
        raise KeyError(name)

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(("position", "sandboxes", "containers"))

    @override
    def __len__(self) -> int:
        return 3

    def _look(self, sandbox_id: str) -> list[dict[str, Any]]:
        found = self._containers.get(sandbox_id)
        if found is None:
            for gone in self._containers.keys() - self._fold.live.keys():
                del self._containers[gone]
            found = self._containers[sandbox_id] = _Containers()
        return found.of(sandbox_id, self._fold.live[sandbox_id].state)


class SandboxSubject(Mapping[str, Any]):
    """One sandbox at a position: the members of its state; ``position``; nothing if it is gone."""

    def __init__(self, fold: NodeFold, sandbox_id: str) -> None:
        self._fold = fold
        self._id = sandbox_id
        self._containers = _Containers()

    @override
    def __getitem__(self, name: str) -> Any:
        if name == "position":
            return self._fold.position
        state = self._state()
        if state is None or name not in state.__struct_fields__:
            raise KeyError(name)
        if name == "containers":
            return self._containers.by_cid(self._id, state)
        return to_builtins(getattr(state, name))

    @override
    def __iter__(self) -> Iterator[str]:
        state = self._state()
        return iter(("position", *(state.__struct_fields__ if state is not None else ())))

    @override
    def __len__(self) -> int:
        return len(list(iter(self)))

    def _state(self) -> Sandbox | None:
        found = self._fold.live.get(self._id)
        return None if found is None else found.state
