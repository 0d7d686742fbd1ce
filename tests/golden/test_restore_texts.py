"""Every text about a spec that differs from an image's, byte for byte."""

from collections.abc import Callable

from manager.domain.restore_spec import compare_specs
from tests.unit.domain.test_domain_restore_spec import DIFFERENT


def test_every_text(golden: Callable[[str, str], None]) -> None:
    texts = [
        mismatch.error
        for before, now, _ in DIFFERENT
        for mismatch in compare_specs("web", before, now)
    ]
    assert len(texts) == len(DIFFERENT)
    golden("tests/golden/restore_texts.txt", "\n".join(texts) + "\n")
