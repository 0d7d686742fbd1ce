"""Making a proof for a command: what keeps it from being made ends the process."""

from pathlib import Path

from eventstore import (
    Checkpoint,
    CheckpointStale,
    EventProof,
    LimitExceeded,
    NoteRejected,
    SignatureAbsent,
    prove_events,
)
from manager.terminal.ending import EXIT_INCONCLUSIVE, EXIT_USAGE, fail


def make_proof(
    path: Path, chosen: range, *, since: Checkpoint | None = None, documents: bool = False
) -> EventProof:
    """Prove that events are in a log; ends the process where :func:`prove_events` would raise.

    Args:
        path: The log's file.
        chosen: Their positions.
        since: A checkpoint that the newest one is to extend.
        documents: With the documents that they name.
    """
    try:
        return prove_events(path, chosen, since=since, documents=documents)
    except CheckpointStale as error:
        fail(f"{error}; the service seals what is new within seconds", EXIT_INCONCLUSIVE)
    except SignatureAbsent:
        fail(f"{path} was never sealed: the service does it, with a key", EXIT_INCONCLUSIVE)
    except NoteRejected as error:
        fail(str(error), EXIT_INCONCLUSIVE)
    except LimitExceeded as error:
        fail(f"{error}; prove parts of it", EXIT_USAGE)
