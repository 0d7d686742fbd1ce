"""How runsc is talked to, by what it lists as its options."""

import pytest

from manager.worker.runsc import dialect_of

NEVER_ASKED = "runsc version 0.0~20210806\n  -overlay\n\twrap filesystem mounts\n"
ASKED = "  -overlay\n\tDEPRECATED\n  -overlay2 value\n\twrap mounts (default root:self)\n"


@pytest.mark.parametrize(("words", "told"), [(NEVER_ASKED, False), (ASKED, True)])
def test_what_is_written_stays_where_it_was_donated_for(words: str, told: bool) -> None:
    dialect = dialect_of(words)
    assert ("--overlay2=none" in dialect.global_options) == told
    assert "--file-access=shared" in dialect.global_options
