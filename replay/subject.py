"""States as expressions see them."""

from collections.abc import Iterator, Mapping
from typing import Any

from typing_extensions import override

from manager.domain.state import Sandbox
from manager.schema.node_fold import NodeFold
from manager.schema.summary import inspection


class NodeSubject(Mapping[str, Any]):
    """All sandboxes that live at a position.

    ``sandboxes`` are their states by id, ``containers`` those of all of them in one list, each with
    the ``sandbox`` that it is of and its ``phase``. What did not change is not looked at again.
    """

    def __init__(self, fold: NodeFold) -> None:
        self._fold = fold
        self._seen: dict[str, tuple[Sandbox, dict[str, Any], list[dict[str, Any]]]] = {}

    @override
    def __getitem__(self, name: str) -> Any:
        match name:
            case "position":
                return self._fold.position
            case "sandboxes":
                return {each: self._look(each)[1] for each in self._fold.live}
            case "containers":
                return [found for each in self._fold.live for found in self._look(each)[2]]
        raise KeyError(name)

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(("position", "sandboxes", "containers"))

    @override
    def __len__(self) -> int:
        return 3

    def _look(self, sandbox_id: str) -> tuple[Sandbox, dict[str, Any], list[dict[str, Any]]]:
        state = self._fold.live[sandbox_id].state
        seen = self._seen.get(sandbox_id)
        if seen is None or seen[0] is not state:
            shown = inspection(state)
            place = {"sandbox": sandbox_id, "phase": state.phase}
            containers = [{**each, **place} for each in shown["containers"].values()]
            seen = self._seen[sandbox_id] = (state, shown, containers)
        return seen


class SandboxSubject(Mapping[str, Any]):
    """One sandbox at a position: the members of its state; ``position``; nothing if it is gone."""

    def __init__(self, fold: NodeFold, sandbox_id: str) -> None:
        self._fold = fold
        self._id = sandbox_id
        self._state: Sandbox | None = None
        self._shown: dict[str, Any] = {}

    @override
    def __getitem__(self, name: str) -> Any:
        return self._fold.position if name == "position" else self._look()[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(("position", *self._look()))

    @override
    def __len__(self) -> int:
        return 1 + len(self._look())

    def _look(self) -> dict[str, Any]:
        found = self._fold.live.get(self._id)
        state = None if found is None else found.state
        if state is not self._state:
            self._state = state
            self._shown = {} if state is None else inspection(state)
        return self._shown
