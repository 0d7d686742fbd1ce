"""The page: what it covers and whether it can be trusted first, then what happened."""

import hashlib
from base64 import b64encode
from importlib.resources import files
from typing import Final

from msgspec import Struct

from eventstore import Outcome, Verdict
from replay.describe import detail, utc_time, where
from replay.duration import duration_text
from replay.evidence.verification import AuditReport
from replay.outcome import outcome_of
from replay.report.data import EVENTS_MAX, ReportData
from replay.report.markup import Markup, Part, table, tag
from replay.report.timeline import stretch_table, timeline
from replay.selection import payload
from replay.stats import Latency

TOP_REASONS: Final = 25
TOP_NAMES: Final = 25
BAR_WIDTH: Final = 240
VERDICTS: Final = {
    Verdict.INTACT: ("✓ VERIFIED", "good"),
    Verdict.BROKEN: ("✕ BROKEN", "bad"),
    Verdict.INCONCLUSIVE: ("? INCONCLUSIVE", "open"),
}
OUTCOME_CLASS: Final = {
    Outcome.PASS: "good", Outcome.FAIL: "bad", Outcome.SKIP: "open", Outcome.INFO: "open",
}  # fmt: skip
GLOSSARY: Final = {
    "event": "One thing that happened, written down once and never changed. # is its place.",
    "sandbox": "A group of containers that share a network and live and end together.",
    "container": "A program that runs shut off from the rest of the machine.",
    "actor": "The user of the machine who asked for it, as the kernel said: uid 0 is root.",
    "ok, refused, failed": "It was done; it was not allowed or not possible and nothing was done; "
    "it was tried and did not work, or a program ended with an error.",
    "mismatch": "What was to be restored differs from what was saved.",
    "sealed": "Covered by a signature: whoever changes it later is found out.",
    "checkpoint": "Such a signature over everything up to one event.",
    "p50, p90, p99": "Half, nine tenths, 99 of 100 took no longer than that.",
}


class Heading(Struct, frozen=True, kw_only=True):
    """What stands above everything.

    Attributes:
        title: The report's.
        log: The log's file.
        filters: What was asked for, for people; empty for everything.
        made_at_ns: When the report was made.
        program: Version of sandtrail.
    """

    title: str
    log: str
    filters: str
    made_at_ns: int
    program: str


def page(heading: Heading, data: ReportData, report: AuditReport) -> str:
    """The whole file."""
    style, script = _asset("style.css"), _asset("filter.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        # Not escaped twice: the policy is ours, and quotes are part of it.
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", heading.title),
        tag("style", Markup(style)),
    )
    body = tag(
        "body",
        tag("main", _top(heading, data), _integrity(report), _summary(data), _who(data),
            _latencies(data), _timeline(data), _events(data), _glossary()),
        tag("script", Markup(script)),
    )  # fmt: skip
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _asset(name: str) -> str:
    return files("replay.report").joinpath(name).read_text("utf-8")


def _digest(asset: str) -> str:
    """A hash source. Source: Content Security Policy Level 3, section 2.3.1."""
    return "sha256-" + b64encode(hashlib.sha256(asset.encode()).digest()).decode()


def _top(heading: Heading, data: ReportData) -> Markup:
    window = data.window
    span = f"#{window.first} to #{window.last}" if window.count else "empty: no event is in it"
    facts: list[list[Part]] = [
        ["log", heading.log],
        ["window", span],
        ["from", utc_time(data.began_ns) if window.count else "-"],
        ["to", utc_time(data.ended_ns) if window.count else "-"],
        ["events in the window", f"{window.count:,}"],
        ["of these asked for", f"{data.stats.events:,} ({heading.filters or 'all'})"],
        ["made", f"{utc_time(heading.made_at_ns)[:19]}Z by sandtrail {heading.program}"],
    ]
    steps = ", ".join(f"#{each}" for each in data.clock_steps)
    note = f"The clock was set back before {steps}; the order is that of #." if steps else ""
    return tag("header", tag("h1", heading.title), table(["", ""], facts, class_="facts"),
               tag("p", note))  # fmt: skip


def _integrity(report: AuditReport) -> Markup:
    word, kind = VERDICTS[report.verdict]
    where = f" #1 to #{report.sealed}" if report.sealed else ""
    if report.verdict is Verdict.BROKEN:
        where = "" if report.first_bad is None else f" at #{report.first_bad}"
    rows: list[list[Part]] = [
        [each.layer, tag("span", each.outcome.value, class_=OUTCOME_CLASS[each.outcome]), each.text]
        for each in report.findings
    ]
    proves = {
        Verdict.INTACT: "Nothing between was changed, removed or reordered since it was sealed.",
        Verdict.BROKEN: "The log is not what was sealed. Do not rely on what follows.",
        Verdict.INCONCLUSIVE: "Nothing wrong was found, but what was skipped could hide it.",
    }[report.verdict]
    return tag(
        "section", tag("h2", "Can it be trusted?"),
        tag("p", tag("strong", f"{word}{where}", class_=f"verdict {kind}"), f" {proves}"),
        tag("p", _completeness(report)),
        table(["layer", "", "finding"], rows, class_="findings"),
        tag("p", "This does not prove:"),
        tag("ul", [tag("li", sentence) for sentence in report.unproven]),
        tag("p", "Check it yourself: ", tag("code", "sandtrail audit verify --log FILE --key KEY")),
    )  # fmt: skip


def _completeness(report: AuditReport) -> str:
    layers = {each.layer: each.outcome for each in report.findings}
    if layers["sequence"] is not Outcome.PASS:
        return "Events are missing, or were added: see the layer sequence."
    if "complete" in layers:
        return "This file is a copy that may lack the newest events: see the layer complete."
    return f"The log is complete: #1 to #{report.head} are there without a gap; none was dropped."


def _summary(data: ReportData) -> Markup:
    stats = data.stats
    reasons: list[list[Part]] = [
        [each.text, f"{each.count:,}", _link(each.first, data), _link(each.last, data)]
        for each in stats.reasons[:TOP_REASONS]
    ]
    more = len(stats.reasons) - len(reasons)
    return tag(
        "section", tag("h2", "What happened"),
        tag("div", _counts("outcome", stats.by_outcome), _counts("event", stats.by_type),
            class_="side"),
        tag("h3", "What did not come out as asked, by reason"),
        table(["reason", "times", "first", "last"], reasons) if reasons
        else tag("p", "Nothing: everything came out as asked."),
        tag("p", f"and {more} more reasons" if more > 0 else ""),
    )  # fmt: skip


def _link(position: int, data: ReportData) -> Part:
    if data.events and position >= data.events[0].position:
        return tag("a", f"#{position}", href=f"#e{position}")
    return f"#{position}"


def _counts(name: str, counts: dict[str, int]) -> Markup:
    most = max(counts.values(), default=1)
    rows: list[list[Part]] = [
        [key, f"{count:,}", _bar(count / most)] for key, count in list(counts.items())[:TOP_NAMES]
    ]
    more = len(counts) - len(rows)
    return tag(
        "div", table([name, "times", ""], rows), tag("p", f"and {more} more" if more else "")
    )


def _bar(share: float) -> Markup:
    bar = tag("rect", x=0, y=2, width=max(1, round(share * BAR_WIDTH / 2)), height=10)
    return tag("svg", bar, width=BAR_WIDTH // 2, height=14, class_="bar", aria_hidden="true")


def _who(data: ReportData) -> Markup:
    parts = tag("div", _counts("actor", data.stats.by_actor),
                _counts("sandbox", data.stats.by_sandbox), class_="side")  # fmt: skip
    return tag("section", tag("h2", "Who asked, and where"), parts)


def _latencies(data: ReportData) -> Markup:
    found = [each for each in data.stats.latencies if each.count or each.failed]
    if not found:
        return Markup("")
    rows: list[list[Part]] = [
        [each.what, f"{each.count:,}", f"{each.failed:,}", f"{each.pending:,}",
         *(_duration(ns) for ns in (each.p50_ns, each.p90_ns, each.p99_ns, each.max_ns)),
         "" if each.max_position is None else _link(each.max_position, data)]
        for each in found
    ]  # fmt: skip
    columns = ["", "done", "failed", "pending", "p50", "p90", "p99", "longest", "at"]
    return tag("section", tag("h2", "How long it took"), table(columns, rows),
               tag("div", [_histogram(each) for each in found if each.count],
                   class_="side"))  # fmt: skip


def _duration(ns: int | None) -> str:
    return "" if ns is None else duration_text(ns)


def _histogram(found: Latency) -> Markup:
    most = max(bar.count for bar in found.bars)
    rows: list[list[Part]] = [
        [f"≤ {duration_text(bar.to_ns)}", _bar(bar.count / most) if bar.count else "",
         f"{bar.count:,}"]
        for bar in found.bars
    ]  # fmt: skip
    return tag("div", table([found.what, "", "times"], rows))


def _timeline(data: ReportData) -> Markup:
    cut = f"{data.cut_stretches:,} earlier stretches are left out." if data.cut_stretches else ""
    return tag(
        "section", tag("h2", "Containers over time"), timeline(data),
        tag("details", tag("summary", "The same as a table"), stretch_table(data)),
        tag("p", cut),
    )  # fmt: skip


def _events(data: ReportData) -> Markup:
    shown = len(data.events)
    cut = data.stats.events - shown
    note = f"The newest {EVENTS_MAX:,}; {cut:,} earlier ones are counted above." if cut else "All."
    rows = [
        tag(
            "tr",
            tag("th", f"#{record.position}", scope="row", id=f"e{record.position}"),
            [tag("td", cell) for cell in (
                utc_time(record.recorded_at_ns)[:23].replace("T", " "),
                where(record),
                record.type,
                _outcome(record.type, data_of),
                "-" if record.actor is None else f"uid:{record.actor.uid}",
                detail(data_of),
            )],
        )
        for record in data.events
        for data_of in (payload(record),)
    ]  # fmt: skip
    heads = ("#", "time (UTC)", "where", "event", "outcome", "actor", "detail")
    whole = tag("table", tag("thead", tag("tr", [tag("th", each, scope="col") for each in heads])),
                tag("tbody", rows), id="events")  # fmt: skip
    label = tag("label", "Show only rows with ", tag("input", type="search", id="filter"))
    return tag("section", tag("h2", "Events"), tag("p", note), tag("p", label, class_="control"),
               tag("div", whole, class_="scroll"))  # fmt: skip


def _outcome(type_: str, data: dict[str, object]) -> Part:
    outcome = outcome_of(type_, data)
    if outcome in {"", "ok"}:
        return outcome
    return tag("span", f"✕ {outcome}", class_="bad")


def _glossary() -> Markup:
    terms = [Markup(tag("dt", term) + tag("dd", meaning)) for term, meaning in GLOSSARY.items()]
    return tag("section", tag("h2", "Words"), tag("dl", terms))
