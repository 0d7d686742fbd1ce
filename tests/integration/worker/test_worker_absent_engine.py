"""A worker that finds containers of an engine whose program is not there any more."""

import signal

import pytest

from manager.schema import worker as w
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.runtime

LOOP = "trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done"


def test_its_containers_run_on(
    worker, own_worker_type, engine, make_spec, busybox_rootfs, tmp_path
):
    (known,) = (each for each in worker.conversation.welcome.engines if each.name == engine)
    program = tmp_path / engine
    program.symlink_to(known.path)
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    harness = own_worker_type(state)
    try:
        harness.start(f"--engine-path={engine}={program}")
        launched = harness.launch(engine, make_spec(["sh", "-c", LOOP]), busybox_rootfs)
        started = harness.expect(w.Started, launched)
        assert launched.stdio.read_line() == "ready"
        harness.process.kill()
        harness.process.wait()
        program.unlink()
        harness.start(f"--engine-path={engine}={program}")
        (report,) = (each for each in harness.conversation.welcome.engines if each.name == engine)
        assert not report.works
        (fact,) = harness.conversation.welcome.launches
        assert (fact.phase, fact.identity) == ("running", started.identity)
        assert harness.kill(launched, signal.SIGTERM) is None
        harness.expect_orphans_end(launched, 42 << 8)
        assert harness.destroy(launched).leftovers == ()
        refused = harness.fail(engine, make_spec(["true"]), busybox_rootfs)
        assert f"no engine named '{engine}' works here" in refused.reason
        harness.tidy()
        harness.send(w.Stop())
        assert harness.process.wait(PATIENCE_S) == 0
    finally:
        harness.stop()
