"""Every method of gVisor's socket has its row, and the row says what a call here is answered."""

from collections.abc import Callable
from typing import Any

import pytest

from manager.adapters.compatibility import OF_GVISOR, reason, table
from manager.adapters.methods import sandbox_methods
from manager.application.calls import Calls

DOCUMENT = "docs/gvisor-compatibility.md"
HEAD = """# gVisor's methods

Every method of the control socket of a gVisor sandbox, of the version of 2022 that Debian has and
of today's, and what a call of it on a sandbox's socket is answered. The text of a refusal is
`<method> is not supported by sandtrail: <why>`; nothing happens and nothing is recorded. A method
that gVisor does not have either is answered `unknown method`, as there.

Where a method works and answers otherwise than gVisor's: [deviations](deviations.md).
This table is written by `make golden`.

"""


class Nobody:
    """A node for methods that are named and not called."""

    ports: Any = type("Ports", (), {"ids": None, "descriptors": None})


def methods() -> tuple[str, ...]:
    return sandbox_methods(Calls(Nobody()), "sb").names  # type: ignore[arg-type]  # names alone are asked


def test_the_document_is_what_the_code_does(golden: Callable[[str, str], None]) -> None:
    golden(DOCUMENT, HEAD + table(methods()))


@pytest.mark.parametrize("method", OF_GVISOR)
def test_a_method_is_answered_or_refused_with_a_reason(method: str) -> None:
    assert method in methods() or reason(method)


def test_no_method_of_ours_is_unknown_to_gvisor() -> None:
    assert set(methods()) <= OF_GVISOR.keys()
