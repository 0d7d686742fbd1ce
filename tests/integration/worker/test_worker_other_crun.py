"""A crun whose state is laid out otherwise than the worker knows: it is asked to start, then."""

import shutil

import pytest

from manager.schema import worker as w

pytestmark = pytest.mark.runtime

HIDES_ITS_FIFO = """#!/bin/sh
# Init has its FIFO open once it is created, so nobody but `crun start` needs its name.
hide() { find {state} -name "$1" -execdir mv {} "$2" ';'; }
case " $* " in
*" create "*) {crun} "$@" && hide exec.fifo elsewhere.fifo ;;
*" start "*) hide elsewhere.fifo exec.fifo && echo asked >> {asked} && exec {crun} "$@" ;;
*) exec {crun} "$@" ;;
esac
"""


def test_it_is_asked_to_start(own_worker_type, make_spec, busybox_rootfs, tmp_path):
    crun = shutil.which("crun")
    if crun is None:
        pytest.skip("crun is not installed")
    state, program, asked = tmp_path / "state", tmp_path / "crun", tmp_path / "asked"
    state.mkdir(mode=0o700)
    script = HIDES_ITS_FIFO
    for name, value in {"state": state, "crun": crun, "asked": asked}.items():
        script = script.replace(f"{{{name}}}", str(value))
    program.write_text(script)
    program.chmod(0o755)
    harness = own_worker_type(state)
    try:
        harness.start(f"--engine-path=crun={program}")
        asked.write_text("")  # the worker has tried it
        launched = harness.launch("crun", make_spec(["sh", "-c", "exit 7"]), busybox_rootfs)
        assert harness.expect(w.Exited, launched).status == 7 << 8
        assert asked.read_text() == "asked\n"
        assert harness.destroy(launched).leftovers == ()
    finally:
        harness.stop()
