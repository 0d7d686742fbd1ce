"""A proof as the JSON that :mod:`replay.verify_trail` checks: schema ``sandtrail.proof/v1``."""

from base64 import b64encode
from typing import Any, Final

import msgspec

from eventstore import EventProof
from manager.terminal.table import harmless_json

PROOF_SCHEMA: Final = "sandtrail.proof/v1"


def proof_object(proof: EventProof) -> dict[str, Any]:
    """The proof as JSON has it; ``docs/auditing.md`` describes the members."""
    consistency = proof.consistency
    shown: dict[str, Any] = {
        "schema": PROOF_SCHEMA,
        "events": [msgspec.to_builtins(each) for each in proof.events],
        "hashes": [each.hex() for each in proof.hashes],
        "checkpoint": proof.note,
        "consistency": None,
    }
    if consistency is not None:
        hashes = [each.hex() for each in consistency.hashes]
        shown["consistency"] = {"size": consistency.size, "hashes": hashes}
    if proof.documents:
        shown["documents"] = {
            each.digest: {"media_type": each.media_type, "base64": b64encode(each.body).decode()}
            for each in proof.documents
        }
    return shown


def proof_text(proof: EventProof) -> str:
    """The proof as text, one event a line, so that it can be read and compared."""
    body = msgspec.json.format(msgspec.json.encode(proof_object(proof)), indent=1)
    return harmless_json(body) + "\n"
