"""What each engine gives, as the document says it: written from the code's own tables."""

from collections.abc import Callable, Mapping
from pathlib import Path

from manager.domain.features import FEATURES, Feature
from manager.worker.bwrap_lacks import LACKS
from manager.worker.engines import ROOTLESS_LACKS
from manager.worker.oci import CRUN, RUNC
from manager.worker.runsc import RUNSC

DOCUMENT = "docs/engines.md"
BEGIN, END = "<!-- features: written by `make golden` -->\n", "<!-- end of features -->\n"
NO = "-"
ENGINES: Mapping[str, frozenset[Feature]] = {
    "crun": CRUN.lacks,
    "runc": RUNC.lacks,
    "runsc": RUNSC.lacks,
    "bwrap": LACKS,
}


def table() -> str:
    lines = [f"| feature | {' | '.join(ENGINES)} | ordinary user |", "|---|" + "---|" * 5]
    for feature in FEATURES:
        cells = [NO if feature in lacks else "yes" for lacks in ENGINES.values()]
        cells.append(NO if feature in ROOTLESS_LACKS else "as root")
        lines.append(f"| `{feature}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def test_the_table_of_features(golden: Callable[[str, str], None]) -> None:
    text = (Path(__file__).parents[2] / DOCUMENT).read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    assert after, f"{DOCUMENT} has lost its marks"
    golden(DOCUMENT, before + BEGIN + table() + END + after)
