"""What a what-if changes: settings under which recorded decisions are taken again."""

from collections.abc import Iterable
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from manager.domain import commands as c
from manager.domain.checkpoint import POLICY_NAMES
from manager.domain.request import PERMITS, Permit, StartRequest
from manager.domain.state import Container, Sandbox
from replay.facts import FactMissing, Facts

POLICY: Final = "restore-spec-validation"
NAMESPACE_PATHS: Final = "ignore-namespace-paths"
PERMIT: Final = "permit"
ENGINE: Final = "engine"
KEYS: Final = {
    POLICY: "ignore, warning or enforce",
    NAMESPACE_PATHS: "true or false",
    PERMIT: "none, or " + ", ".join(PERMITS) + ", joined by commas",
    ENGINE: "crun, runc, runsc or bwrap",
}
ENGINES: Final = ("crun", "runc", "runsc", "bwrap")


class SettingError(ValueError):
    """There is no such setting, or it has no such value; the message says what there is."""


class Settings(Struct, frozen=True, kw_only=True):
    """Each is ``None`` to leave it as it was recorded.

    ``policy`` is how a restore treats specs that differ, as gVisor numbers it; ``engine`` is the
    one that everything runs on, as the worker of the time reported it.
    """

    policy: int | None = None
    ignore_namespace_paths: bool | None = None
    permits: tuple[Permit, ...] | None = None
    engine: str | None = None

    @property
    def changes_anything(self) -> bool:
        """Whether any is set."""
        return self != Settings()


def parse_settings(given: Iterable[str]) -> Settings:
    """Read ``KEY=VALUE`` texts.

    Raises:
        SettingError: One is none.
    """
    found: dict[str, Any] = {}
    for text in given:
        key, separator, value = text.partition("=")
        if key not in KEYS or not separator:
            known = "; ".join(f"{name}={values}" for name, values in KEYS.items())
            raise SettingError(f"{text!r} is no setting: want {known}")
        found.update(_value(key, value))
    return Settings(**found)


def _value(key: str, value: str) -> dict[str, Any]:
    policies = {name: number for number, name in POLICY_NAMES.items()}
    match key:
        case "restore-spec-validation" if value in policies:
            return {"policy": policies[value]}
        case "ignore-namespace-paths" if value in {"true", "false"}:
            return {"ignore_namespace_paths": value == "true"}
        case "permit" if value == "none":
            return {"permits": ()}
        case "permit" if set(value.split(",")) <= set(PERMITS):
            return {"permits": tuple(each for each in PERMITS if each in value.split(","))}
        case "engine" if value in ENGINES:
            return {"engine": value}
    raise SettingError(f"{key}={value}: want {KEYS[key]}")


def apply_settings(
    settings: Settings, state: Sandbox, command: c.Command, facts: Facts
) -> tuple[Sandbox, c.Command]:
    """The state and the command as they would have been.

    Raises:
        FactMissing: The log does not tell what a decision under these settings needs.
    """
    if settings.policy is not None:
        state = _with_policy(state, settings.policy)
    return state, _changed(settings, command, facts)


def _with_policy(state: Sandbox, policy: int) -> Sandbox:
    root = state.containers.get(state.id)
    if root is not None and root.intent is not None:
        request = _request_with_policy(root.intent.request, policy)
        changed: Container = replace(root, intent=replace(root.intent, request=request))
        state = replace(state, containers={**state.containers, state.id: changed})
    if state.restore is not None:
        state = replace(state, restore=replace(state.restore, policy=policy))
    return state


def _request_with_policy(request: StartRequest, policy: int) -> StartRequest:
    if request.conf is None:
        return request
    return replace(request, conf={**request.conf, "RestoreSpecValidation": policy})


def _changed(settings: Settings, command: c.Command, facts: Facts) -> c.Command:
    if isinstance(command, c.CreateSandbox | c.StartSubcontainer | c.RestoreSubcontainer):
        request = command.request
        if settings.ignore_namespace_paths is not None:
            request = replace(request, ignore_namespace_paths=settings.ignore_namespace_paths)
        if settings.permits is not None:
            request = replace(request, permits=settings.permits)
        command = replace(command, request=request)
    if settings.engine is not None and hasattr(command, "engine"):
        if settings.engine not in facts.engines:
            raise FactMissing(f"what the engine {settings.engine} could do then")
        command = replace(command, engine=facts.engines[settings.engine])
    return command
