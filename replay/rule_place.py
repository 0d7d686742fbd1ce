"""Where in the code a decision's words come from."""

import sys
from collections.abc import Callable
from pathlib import PurePath
from types import FrameType
from typing import Any, Final

RULES: Final = "manager.domain"


def place_of(text: str, decide: Callable[[], object]) -> str:
    """The rule that gave a refusal its text: ``manager/domain/start.py:57 (check_state)``.

    Args:
        text: The text.
        decide: Takes the decision once more, while it is looked at.

    Returns:
        The innermost place that returned it; empty if it was made elsewhere.
    """
    found: list[str] = []

    def inside(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "return" and arg == text and not found:
            module = frame.f_globals["__name__"].replace(".", "/")
            name = frame.f_code.co_name
            found.append(f"{PurePath(module)}.py:{frame.f_lineno} ({name})")
        return inside

    def entering(frame: FrameType, _: str, __: Any) -> Any:
        ours = str(frame.f_globals.get("__name__", "")).startswith(RULES)
        return inside if ours else None

    before = sys.gettrace()
    sys.settrace(entering)
    try:
        decide()
    finally:
        sys.settrace(before)
    return found[0] if found else ""
