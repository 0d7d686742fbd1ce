"""Lanes as SVG: a line a container, from left to right in time; and the same as a table."""

from typing import Final

from eventstore import RecordedEvent
from replay.describe import detail, utc_time
from replay.duration import duration_text
from replay.lanes import Stretch
from replay.outcome import outcome_of
from replay.report.data import ReportData
from replay.report.markup import Markup, Part, tag
from replay.report.markup import table as html_table
from replay.selection import container_of, payload, sandbox_of

WIDTH: Final = 1000
LABEL_WIDTH: Final = 190
LANE_HEIGHT: Final = 20
TOP: Final = 26
LANES_MAX: Final = 120
"""Containers that are drawn: those that were busy last."""
LABEL_CHARS_MAX: Final = 28
TICKS: Final = 5
BAND: Final = {
    "creating": (7, 6), "starting": (4, 12), "running": (2, 16), "paused": (6, 8),
    "stopped": (9, 2), "failed": (9, 2), "lost": (9, 2),
}  # fmt: skip
"""Where in its lane a status is drawn and how high: it can be told without its colour."""
WRONG: Final = frozenset({"failed", "refused", "mismatch"})

LaneKey = tuple[str, str]


def timeline(data: ReportData) -> Markup:
    """The lanes, with a legend."""
    lanes, cut = _lanes(data)
    if not lanes:
        return tag("p", "No container lived in this window.")
    height = TOP + LANE_HEIGHT * len(lanes) + 4
    parts = _axis(data, height)
    wrong = _wrong_by_lane(data)
    for number, (key, found) in enumerate(lanes.items()):
        top = TOP + number * LANE_HEIGHT
        crosses = [_cross(data, record, top) for record in wrong.get(key, [])]
        parts.append(tag("g", _lane(data, key, found, top), crosses))
    drawing = tag(
        "svg", tag("title", "What each container was when; the table below says the same"), parts,
        viewBox=f"0 0 {WIDTH} {height}", role="img", class_="lanes",
        preserveAspectRatio="xMinYMin meet",
    )  # fmt: skip
    note = f"{cut} more containers, which were busy earlier, are not drawn." if cut else ""
    return tag("div", _legend(), tag("div", drawing, class_="scroll"), tag("p", note))


def stretch_table(data: ReportData) -> Markup:
    """The lanes in words."""
    rows: list[list[Part]] = [
        [
            _name(each.sandbox, each.container),
            each.status,
            f"#{each.first}",
            utc_time(each.began_ns)[:23],
            "" if each.last is None else f"#{each.last}",
            "lasts" if each.ended_ns is None else _lasted(each),
        ]
        for each in data.stretches
        if each.status != "destroyed"
    ]
    return html_table(["container", "status", "from", "time (UTC)", "to", "for"], rows)


def _lasted(found: Stretch) -> str:
    lasted_ns = (found.ended_ns or 0) - found.began_ns
    return duration_text(lasted_ns) if lasted_ns >= 0 else "the clock was set back"


def _lanes(data: ReportData) -> tuple[dict[LaneKey, list[Stretch]], int]:
    """Stretches by container, and how many containers are left out."""
    lanes: dict[LaneKey, list[Stretch]] = {}
    for each in data.stretches:
        if each.status in BAND:
            lanes.setdefault((each.sandbox, each.container), []).append(each)
    by_last = sorted(lanes, key=lambda key: max(each.first for each in lanes[key]))
    chosen = set(by_last[-LANES_MAX:])
    ordered = sorted(chosen, key=lambda key: (key[0], key[1] != key[0], key[1]))
    return {key: lanes[key] for key in ordered}, len(lanes) - len(chosen)


def _x(data: ReportData, at_ns: int) -> float:
    whole = max(1, data.ended_ns - data.began_ns)
    share = min(1.0, max(0.0, (at_ns - data.began_ns) / whole))
    return round(LABEL_WIDTH + share * (WIDTH - LABEL_WIDTH - 6), 2)


def _axis(data: ReportData, height: int) -> list[Markup]:
    parts = []
    for number in range(TICKS):
        at_ns = data.began_ns + (data.ended_ns - data.began_ns) * number // (TICKS - 1)
        x = _x(data, at_ns)
        anchor = ("start", "middle", "end")[(number > 0) + (number == TICKS - 1)]
        parts.append(tag("line", x1=x, x2=x, y1=TOP - 4, y2=height, class_="tick"))
        shown = utc_time(at_ns)
        label = shown[:19].replace("T", " ") if number == 0 else shown[11:23]
        parts.append(tag("text", label, x=x, y=14, text_anchor=anchor, class_="axis"))
    return parts


def _lane(data: ReportData, key: LaneKey, found: list[Stretch], top: int) -> list[Markup]:
    sandbox, container = key
    own = container == sandbox
    short = container[: LABEL_CHARS_MAX - 1] + "…"
    label = container if len(container) <= LABEL_CHARS_MAX else short
    parts = [
        tag("text", label, x=4 if own else 16, y=top + 14, class_="own" if own else "sub"),
    ]
    for each in found:
        x = _x(data, each.began_ns)
        end = data.ended_ns if each.ended_ns is None else each.ended_ns
        down, high = BAND[each.status]
        told = f"{_name(*key)}: {each.status}, from #{each.first} for {_span(each)}"
        parts.append(
            tag("rect", tag("title", told), x=x, y=top + down, height=high, rx=1,
                width=max(1.5, round(_x(data, end) - x, 2)), class_=f"s-{each.status}")
        )  # fmt: skip
    return parts


def _span(found: Stretch) -> str:
    return "as long as was looked at" if found.ended_ns is None else _lasted(found)


def _cross(data: ReportData, record: RecordedEvent, top: int) -> Markup:
    told = f"#{record.position} {record.type}: {detail(payload(record))}"
    return tag(
        "text", tag("title", told), "✕", x=_x(data, record.recorded_at_ns), y=top + 15,
        text_anchor="middle", class_="wrong",
    )  # fmt: skip


def _wrong_by_lane(data: ReportData) -> dict[LaneKey, list[RecordedEvent]]:
    found: dict[LaneKey, list[RecordedEvent]] = {}
    for record in data.events:
        content = payload(record)
        if outcome_of(record.type, content) in WRONG:
            sandbox = sandbox_of(record)
            found.setdefault((sandbox, container_of(record, content) or sandbox), []).append(record)
    return found


def _name(sandbox: str, container: str) -> str:
    return sandbox if container == sandbox else f"{sandbox}/{container}"


def _legend() -> Markup:
    parts = []
    for status, (down, high) in BAND.items():
        bar = tag("rect", x=0, y=down, width=22, height=high, class_=f"s-{status}")
        parts.append(
            tag("span", tag("svg", bar, width=22, height=20, aria_hidden="true"), f" {status}")
        )
    parts.append(tag("span", tag("span", "✕", class_="bad"), " failed, refused or different"))
    return tag("p", parts, class_="legend")
