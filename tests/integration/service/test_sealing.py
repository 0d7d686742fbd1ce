"""A service seals its log: by count, by time and at stop, with a key that may be elsewhere."""

import stat
from pathlib import Path

import anyio
import pytest

from eventstore import Checkpoint, Verdict, load_signer, newest_note, open_checkpoint, verify_log
from tests.integration.service.conftest import Service
from tests.patience import PATIENCE_S


def newest(service: Service, key: Path) -> Checkpoint | None:
    note = newest_note(service.root / "events.db")
    return None if note is None else open_checkpoint(note, [load_signer(key).verifier])


@pytest.mark.runtime
@pytest.mark.parametrize(
    ("when", "running"),
    [
        (("--seal-events", "1", "--seal-seconds", "3600"), True),
        (("--seal-events", "1000000", "--seal-seconds", "0.05"), True),
        (("--seal-events", "1000000", "--seal-seconds", "3600"), False),
    ],
    ids=["count", "time", "stop"],
)
async def test_a_service_seals_with_a_key_that_is_elsewhere(
    tmp_path: Path, when: tuple[str, ...], running: bool
) -> None:
    key = tmp_path / "elsewhere" / "log.key"
    key.parent.mkdir()
    service = Service(tmp_path / "state", "bwrap")
    service.options = ("--key", str(key), *when)
    service.start()
    try:
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert not (service.root / "keys" / "log.key").exists()
        if running:
            with anyio.fail_after(PATIENCE_S):
                while newest(service, key) is None:
                    await anyio.sleep(0.005)  # a seal tells nobody; it is in the file
        else:
            assert newest(service, key) is None
    finally:
        await service.end()

    sealed = newest(service, key)
    found = verify_log(service.root / "events.db", trusted=[load_signer(key).verifier])
    assert sealed is not None
    assert sealed.size == found.head == len(await service.records())
    assert found.verdict is Verdict.INTACT
