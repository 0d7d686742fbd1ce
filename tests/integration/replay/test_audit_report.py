"""The report: one file that loads nothing, in which nothing of a log becomes markup."""

import base64
import hashlib
import re
import shutil
import sqlite3
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typing_extensions import override

from manager.schema.layout import LOG_FILE, SEAL_KEY_FILE
from manager.terminal.table import printable
from tests.integration.replay.browser import open_tab
from tests.integration.replay.conftest import HOSTILE, SECRET, Run
from tests.patience import PATIENCE_S

COMPLAINTS = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}
VOID = {"meta", "input", "br"}


class Page(HTMLParser):
    """The elements of a page, their attributes and text; it must be balanced."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    @override
    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        self.inside.setdefault(self.open[-1] if self.open else "", []).append(data)


@pytest.fixture(scope="module")
def text(audit: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    made = tmp_path_factory.mktemp("report") / "r.html"
    done = audit("report", "--out", str(made), "--title", f"Web & {HOSTILE}")
    assert (done.returncode, "events, intact" in done.stderr) == (0, True), done
    return made.read_text()


def test_it_is_one_file_that_loads_nothing(text: str) -> None:
    page = Page(text)
    names = {name for name, _ in page.elements}
    assert not names & {"img", "link", "iframe", "object", "embed", "form", "base"}
    attributes = {key for _, given in page.elements for key in given}
    assert not {key for key in attributes if key.startswith("on")} | attributes & {"src", "style"}
    links = {given["href"] for name, given in page.elements if name == "a"}
    assert links
    assert all(str(link).startswith("#e") for link in links)
    assert "url(" not in text
    assert "http" not in re.sub(r'http-equiv="', "", text)


def test_its_policy_allows_what_is_in_it_and_nothing_else(text: str) -> None:
    page = Page(text)
    policy = next(
        str(given["content"]) for name, given in page.elements
        if name == "meta" and given.get("http-equiv") == "Content-Security-Policy"
    )  # fmt: skip
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert parts["default-src"] == "'none'"
    for element, directive in (("style", "style-src"), ("script", "script-src")):
        [content] = page.inside[element]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert parts[directive] == f"'sha256-{digest}'"


def test_nothing_of_the_log_is_markup(text: str) -> None:
    page = Page(text)
    assert printable(HOSTILE) in "".join(page.texts)
    assert HOSTILE not in text
    assert "<img" not in text
    assert not [char for char in text if not char.isprintable() and char != "\n"]
    assert len([name for name, _ in page.elements if name == "script"]) == 1


def test_no_secret_is_in_it(text: str) -> None:
    assert SECRET not in text


def test_it_says_first_what_it_covers_and_whether_it_can_be_trusted(text: str) -> None:
    whole = "".join(Page(text).texts)
    order = ["events in the window", "Can it be trusted?", "✓ VERIFIED #1 to #",
             "The log is complete: #1 to #", "This does not prove:", "What happened",
             "Who asked", "How long it took", "Containers over time", "Words"]  # fmt: skip
    assert [whole.find(each) for each in order] == sorted(whole.find(each) for each in order)
    assert -1 not in [whole.find(each) for each in order]


def test_lanes_and_their_table_say_the_same(text: str) -> None:
    page = Page(text)
    drawn = [str(given["class"]) for name, given in page.elements
             if name == "rect" and str(given.get("class", "")).startswith("s-")]  # fmt: skip
    details = text.partition("<details>")[2].partition("</details>")[0]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td>(\w+)</td>', details)
    legend = 7
    assert len(drawn) - legend == len(rows)
    assert [status for name, status in rows if name == "web/web.1"] == [
        "creating", "starting", "running", "paused", "running", "stopped",
    ]  # fmt: skip
    assert "✕" in page.inside["text"]


def test_a_window_and_a_broken_log(audit: Run, root: Path, tmp_path: Path) -> None:
    copy = tmp_path / LOG_FILE
    source, target = sqlite3.connect(root / LOG_FILE), sqlite3.connect(copy)
    source.backup(target)
    target.execute("DROP TRIGGER event_record_no_update")
    target.execute("UPDATE event_record SET event_id = 'other' WHERE position = 5")
    target.commit()
    target.close()
    source.close()
    made = tmp_path / "r.html"
    key = str(root / f"{SEAL_KEY_FILE}.pub")
    args = ("report", "--log", str(copy), "--key", key, "--out", str(made))
    done = audit(*args, "--since", "#3", "--until", "#9", "-s", "web")
    assert (done.returncode, done.stderr) == (0, f"{made}: 7 events, broken\n")
    whole = "".join(Page(made.read_text()).texts)
    assert "✕ BROKEN at #5" in whole
    assert "since=#3 until=#9 sandbox=web" in whole


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        ((), 2, "--out"),
        (("--out", "/nonexistent/r.html"), 5, "No such file"),
        (("--out", "r.html", "--since", "#99"), 5, "there is no #99"),
        (("--out", "r.html", "--key", "/dev/null"), 4, "not a verifier key"),
        (("--out", "r.html", "--log", "/nonexistent"), 5, "is not there"),
    ],
)
def test_what_cannot_be_reported(audit: Run, args: tuple[str, ...], code: int, text: str) -> None:
    done = audit("report", *args, cwd="/")
    assert (done.returncode, text in done.stderr) == (code, True), done
    assert not Path("/r.html").exists()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_has_nothing_to_complain_of(text: str, tmp_path: Path) -> None:
    made = tmp_path / "r.html"
    made.write_text(text)
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={tmp_path}/profile", "--dump-dom", made.as_uri()],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0
    assert "CONSOLE" not in done.stderr
    assert "✓ VERIFIED" in done.stdout


LUMINANCE = """
(() => {
  const [r, g, b] = getComputedStyle(document.body).%s.match(/[0-9]+/g).map(
    (each) => (each / 255 <= 0.03928 ? each / 255 / 12.92 : ((each / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
})()
"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_at_two_widths_light_and_dark(text: str, tmp_path: Path) -> None:
    made = tmp_path / "r.html"
    made.write_text(text)
    with open_tab(tmp_path / "profile") as tab:
        for width in (1280, 390):
            for scheme in ("light", "dark"):
                tab.events.clear()
                tab.ask("Emulation.setDeviceMetricsOverride", width=width, height=900,
                        deviceScaleFactor=1, mobile=False)  # fmt: skip
                feature = {"name": "prefers-color-scheme", "value": scheme}
                tab.ask("Emulation.setEmulatedMedia", features=[feature])
                tab.ask("Page.navigate", url=made.as_uri())
                tab.wait_for("Page.loadEventFired")
                # Only tables and lanes that are too wide scroll, each in its own box.
                root = "document.documentElement"
                assert tab.value(f"{root}.scrollWidth <= {root}.clientWidth")
                ink, paper = (
                    tab.value(LUMINANCE % "color"),
                    tab.value(LUMINANCE % "backgroundColor"),
                )
                assert (paper > ink) == (scheme == "light")
                assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 7  # WCAG, level AAA
                shown = (
                    "[...document.querySelectorAll('#events tbody tr')].filter((r) => !r.hidden)"
                )
                every = tab.value(f"{shown}.length")
                tab.value(
                    "document.getElementById('filter').value = 'sandbox.created';"
                    "document.getElementById('filter').dispatchEvent(new Event('input'))"
                )
                assert 0 < tab.value(f"{shown}.length") < every
                asked = [each["params"]["request"]["url"] for each in tab.events
                         if each["method"] == "Network.requestWillBeSent"]  # fmt: skip
                assert asked == [made.as_uri()]
                assert not [each for each in tab.events if each["method"] in COMPLAINTS]
        printed = tab.ask("Page.printToPDF", printBackground=True)["data"]
        assert base64.b64decode(printed).startswith(b"%PDF-")
