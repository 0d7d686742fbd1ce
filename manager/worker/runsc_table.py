"""The table that `runsc ps` prints, as facts. Pure.

::

    UID       PID       PPID      C         TTY       STIME     TIME      CMD
    0         1         0         0         ?         20:04     10ms      sh

It has neither the start's date nor groups; what it does not say is 0.
"""

import datetime as dt
import re
from typing import Final

from manager.schema.observation import ProcessFacts

COLUMNS: Final = 8
NS_PER_SECOND: Final = 1_000_000_000
_DURATION: Final = re.compile(r"([0-9.]+)(h|ms|m|us|µs|ns|s)")
_UNITS_NS: Final = {
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "µs": 1_000,
    "ns": 1,
}


def parse_table(launch_id: str, text: str, today: dt.date) -> tuple[ProcessFacts, ...]:
    """Read the rows; a line that is none is left out."""
    rows = (line.split(maxsplit=COLUMNS - 1) for line in text.splitlines()[1:])
    return tuple(
        _facts(launch_id, row, today) for row in rows if len(row) == COLUMNS and row[1].isdigit()
    )


def _facts(launch_id: str, row: list[str], today: dt.date) -> ProcessFacts:
    uid, pid, ppid, _, tty, stime, time, name = row
    return ProcessFacts(
        launch_id=launch_id,
        uid=int(uid),
        gid=0,
        pid=int(pid),
        ppid=int(ppid),
        pgid=0,
        sid=0,
        threads=(int(pid),),
        tty=tty,
        started_ns=_started_ns(stime, today),
        cpu_ns=_duration_ns(time),
        name=name.strip(),
    )


def _started_ns(text: str, today: dt.date) -> int:
    """Today at that time; of other days there is only the day."""
    try:
        time = dt.time.fromisoformat(text)
    except ValueError:
        return 0
    return int(dt.datetime.combine(today, time, dt.UTC).timestamp()) * NS_PER_SECOND


def _duration_ns(text: str) -> int:
    """A duration as Go writes it. Source: time.Duration.String."""
    return int(sum(float(number) * _UNITS_NS[unit] for number, unit in _DURATION.findall(text)))
