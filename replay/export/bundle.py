"""Evidence in one file: events, what shows that they are in the log, and what checks that.

It is a zip archive that Python runs: ``python evidence.trail --key LOG.pub``. Who does not trust
the verifier in it takes one from elsewhere: ``python verify_trail.py FILE --key LOG.pub``.
"""

import zipfile
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Final
from zipfile import ZIP_DEFLATED

from eventstore import EventProof
from eventstore.whole_file import new_whole
from replay.evidence.proof_document import proof_text

VERIFIER: Final = "verify_trail.py"
MAIN: Final = "import sys, verify_trail\nsys.exit(verify_trail.main())\n"
FILE_MODE: Final = 0o666
FIRST_DATE: Final = (1980, 1, 1, 0, 0, 0)
"""Of every member: the same evidence gives the same bytes."""
README: Final = """Evidence about a log: {count} events of #{first} to #{last}{between}.

  proof.json       the events as they are stored, with the documents that they name, and the way
                   from them to the root of the log's tree
  checkpoint.note  the signed head of that tree, #1 to #{size}
  events.jsonl     the same events for people and tools; nothing here covers this file
  verify_trail.py  checks proof.json with nothing but Python 3.11

Check it:  python THIS_FILE --key LOG.pub
or, with a verify_trail.py that did not come along:  python verify_trail.py THIS_FILE --key LOG.pub

The verifier key, one line of text, must come from elsewhere: from whoever runs the service.
"""


def write_bundle(path: Path, proof: EventProof, lines: Iterable[str]) -> None:
    """Write evidence to a new file, which is there when it is whole and on disk.

    Args:
        path: The file.
        proof: Of the events, with their documents.
        lines: The same events as lines of JSON.

    Raises:
        OSError: It exists, or cannot be written.
    """
    first, last = proof.events[0].position, proof.events[-1].position
    whole = last - first + 1 == len(proof.events)
    readme = README.format(
        count=len(proof.events),
        first=first,
        last=last,
        between=", which are all there are between" if whole else ", not all there are between",
        size=proof.size,
    )
    with new_whole(path, FILE_MODE) as file, zipfile.ZipFile(file, "w", ZIP_DEFLATED) as bundle:
        for name, text in (
            ("README.txt", readme),
            ("proof.json", proof_text(proof)),
            ("checkpoint.note", proof.note),
            ("events.jsonl", "".join(lines)),
            (VERIFIER, files("replay").joinpath(VERIFIER).read_text("utf-8")),
            ("__main__.py", MAIN),
        ):
            member = zipfile.ZipInfo(name, FIRST_DATE)
            member.compress_type = ZIP_DEFLATED
            bundle.writestr(member, text)
