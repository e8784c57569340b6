"""The page as people have it before them: in Chromium, opened from disk, without a network."""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.page import campaign
from pytest_autoresearch.core.experiment import Experiment, Proposal, Reason, Status, Verdict
from pytest_autoresearch.core.run import Role, Run
from pytest_autoresearch.reports.page import About, Artifact, page
from pytest_autoresearch.reports.page.curves import Curve

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MARKUP = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
HOSTILE = f"\x1b]0;owned\x07\x1b[31m{MARKUP}\u202e\u2066\u200b\x00"
SEEN = f"⟨U+001B⟩]0;owned⟨U+0007⟩⟨U+001B⟩[31m{MARKUP}⟨U+202E⟩⟨U+2066⟩⟨U+200B⟩⟨U+0000⟩"
SECONDS = 2.0  # of work that a page may take with 10,000 rows

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: apt install chromium"),
]

Show = Callable[..., "Page"]
Night = tuple[list[Experiment], dict[int, Artifact]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def night() -> Night:
    return campaign(60)


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Show]:
    """Opens records as a page; at the end there must have been no error, no warning and no request but for the file."""
    said: list[str] = []
    asked: list[str] = []
    contexts = []

    def opened(
        records: list[Experiment], artifacts: dict[int, Artifact], address: str = "", position: str = "", **how: object
    ) -> Page:  # fmt: skip
        path = tmp_path / "report.html"
        about = About(bool(position), position, written_at=records[-1].finished_at)
        path.write_text(page(records, artifacts, about), "utf-8")
        settings: dict[str, object] = {"viewport": {"width": 1280, "height": 900}, **how}
        context = browser.new_context(**settings)  # type: ignore[arg-type]
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(15_000)
        tab.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: said.append(f"error: {error}"))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(path.as_uri() + address)
        tab.wait_for_selector("html[data-ready]")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert said == []
    assert {url.partition("#")[0] for url in asked if not url.startswith("data:")} <= {
        (tmp_path / "report.html").as_uri()
    }


def numbers(tab: Page) -> list[str]:
    """The experiments in sight, from top to bottom."""
    script = """() => [...document.querySelectorAll('#rows .row')]
        .sort((one, other) => one.ariaRowIndex - other.ariaRowIndex)
        .map((row) => row.querySelector('.number').textContent)"""
    found: list[str] = tab.evaluate(script)
    return found


def test_the_page_opens_without_an_error_and_answers_first(show: Show, night: Night) -> None:
    tab = show(*night)
    records = night[0]
    kept = sum(record.verdict is not None and record.verdict.status is Status.KEEP for record in records) - 1
    assert f"{kept} changes kept of 60 tried" in tab.inner_text("#claim")
    assert "Not audited" in tab.inner_text("#claim")
    assert "luck" in tab.inner_text("#claim abbr")
    assert "Chance alone would keep" in (tab.get_attribute("#claim abbr", "title") or "")
    assert tab.locator(".chart canvas").count() == 2
    assert tab.locator("#chain li").count() == min(kept + 1, 13)
    assert numbers(tab)[:3] == ["0060", "0059", "0058"]


def test_while_the_session_runs_the_page_says_where_it_is(show: Show, night: Night) -> None:
    where = "experiment 60 of 100, about 6 h 20 min left, $4.10 so far"
    tab = show(*night, position=where)
    assert tab.inner_text("#kicker").endswith(where)
    assert tab.inner_text(".live") == "running"
    assert "reload for updates" in tab.inner_text("#footer")
    assert "left" not in show(*night).inner_text("#kicker")


def test_the_table_is_searched_filtered_and_sorted(show: Show, night: Night) -> None:
    tab = show(*night)
    records: list[Experiment] = night[0]
    tab.fill("#query", "matrix_lr  DISCARDED")
    lost = [one for one in records if one.verdict and one.verdict.status is Status.DISCARD]
    wanted = [one.number for one in lost if "MATRIX_LR" in one.proposal.description]
    assert numbers(tab) == [f"{number:04d}" for number in sorted(wanted, reverse=True)]
    tab.fill("#query", "no such thing")
    assert tab.is_visible("#empty")
    tab.click("#clear")
    tab.click("[data-status=keep]")
    kept = [one for one in records if one.verdict and one.verdict.status is Status.KEEP]
    assert tab.inner_text("#count") == f"{len(kept) - 1} of 60 experiments"
    tab.click("[data-key=metric]")  # the best first
    assert numbers(tab) == [f"{one.number:04d}" for one in sorted(kept, key=lambda one: one.metric)]
    assert tab.locator("[role=columnheader][aria-sort=ascending]").inner_text().startswith("val_bpb")
    tab.click("[data-key=metric]")
    assert numbers(tab)[0] == f"{max(kept, key=lambda one: one.metric).number:04d}"


def test_an_experiment_opens_with_everything_that_is_known_of_it(show: Show, night: Night) -> None:
    records, artifacts = night
    best = [one for one in records if one.verdict and one.verdict.status is Status.KEEP][-1]
    tab = show(records, artifacts, f"#{best.number:04d}")
    tab.wait_for_selector("#drawer .verdict")
    said = tab.inner_text("#drawer")
    assert best.proposal.description in said
    assert best.proposal.hypothesis in said
    assert "the probability that it is truly better is" in said
    assert best.decision.evidence in said
    assert tab.locator("#drawer .measured tbody tr").count() == len(best.runs)
    assert tab.locator("#drawer .diff .add").count() == 1
    assert tab.locator("#drawer .diff .del mark").inner_text() in best.proposal.description
    assert "val_bpb" in tab.inner_text("#drawer .measured")
    assert "num_steps" in tab.inner_text("#drawer pre.code")
    assert tab.locator("#drawer .stack span").count() >= 4
    assert "Cost $0.0" in said
    assert f"git show refs/autoresearch/nov27/{best.number:04d}" in said
    tab.wait_for_selector("#drawer-chart canvas")


def test_the_keyboard_is_enough(show: Show, night: Night) -> None:
    tab = show(*night)
    tab.keyboard.press("/")
    tab.keyboard.type("kept")
    tab.keyboard.press("Enter")
    listed = numbers(tab)
    tab.keyboard.press("j")
    assert tab.locator("#rows [aria-selected=true] .number").inner_text() == listed[1]
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("k")
    tab.keyboard.press("Enter")
    assert tab.inner_text("#drawer .no") == listed[1]
    tab.keyboard.press("j")
    assert tab.inner_text("#drawer .no") == listed[2]
    assert tab.evaluate("location.hash") == f"#{listed[2]}"
    tab.keyboard.press("Escape")
    assert tab.is_hidden("#drawer")
    tab.keyboard.press("Escape")
    assert tab.input_value("#query") == ""
    tab.keyboard.press("?")
    assert tab.is_visible("#keys")
    tab.keyboard.press("Escape")
    tab.keyboard.press("End")
    assert tab.locator("#rows [aria-selected=true] .number").inner_text() == "0000"


def test_curves_of_several_experiments_lie_over_the_best(show: Show, night: Night) -> None:
    tab = show(*night)
    assert tab.locator("#picked li").count() == 2
    for at in (1, 2):
        tab.locator("#rows .row input").nth(at).check()
    tab.wait_for_function("document.querySelectorAll('#picked li').length === 4")
    assert "best" in tab.inner_text("#picked")
    tab.click("#curves-axis button:has-text('step')")
    tab.keyboard.press("Escape")
    tab.locator("#picked li button[aria-label^=Remove]").first.click()
    tab.wait_for_function("document.querySelectorAll('#picked li').length === 3")


def test_pointing_at_a_result_names_it_and_a_click_opens_it(show: Show, night: Night) -> None:
    tab = show(*night)
    over = tab.locator("#progress-chart .u-over")
    box = over.bounding_box()
    assert box is not None
    for step in range(200):  # from left to right along the line's height
        tab.mouse.move(box["x"] + box["width"] * step / 200, box["y"] + box["height"] * 0.85)
        if tab.is_visible("#tip"):
            break
    number = tab.inner_text("#tip b >> nth=0")
    assert any(one.proposal.description in tab.inner_text("#tip") for one in night[0])
    tab.mouse.down()
    tab.mouse.up()
    assert tab.inner_text("#drawer .no") == number


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_follow_the_reader_and_can_be_switched(show: Show, night: Night, scheme: str) -> None:
    tab = show(*night, color_scheme=scheme)
    background = "() => getComputedStyle(document.body).backgroundColor"
    first = tab.evaluate(background)
    assert (first == "rgb(16, 18, 21)") == (scheme == "dark")
    while tab.get_attribute("#theme", "data-now") != ("light" if scheme == "dark" else "dark"):
        tab.keyboard.press("t")
    assert tab.evaluate(background) != first


def test_on_a_phone_nothing_is_wider_than_the_screen(show: Show, night: Night) -> None:
    tab = show(*night, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.locator("#rows .row .text").nth(1).tap()
    tab.wait_for_selector("#drawer .verdict")
    assert tab.evaluate("document.getElementById('drawer').scrollWidth") <= 390
    tab.locator("#drawer [aria-label^=Close]").tap()
    assert tab.is_hidden("#drawer")
    tab.select_option("#order", "gain down")
    assert len(numbers(tab)) > 3


def test_hostile_text_stays_text_everywhere(show: Show, night: Night) -> None:
    records, artifacts = night
    crash = Run(42, None, crash=None, log=HOSTILE, hopeless=HOSTILE, others=(HOSTILE,), device=HOSTILE)
    hostile = replace(
        records[5], tag=HOSTILE, proposal=Proposal(HOSTILE, HOSTILE, HOSTILE, expected=HOSTILE, area=HOSTILE),
        notes=HOSTILE, runs=(crash, *records[5].runs), verdict=Verdict(Status.DISCARD, HOSTILE, HOSTILE, 0.0),
        decision=replace(records[5].decision, evidence=HOSTILE),
        constants={HOSTILE: 1.0}, metric_name=HOSTILE,
    )  # fmt: skip
    first = replace(records[0], tag=HOSTILE, metric_name=HOSTILE, proposal=Proposal(HOSTILE))
    left = {5: Artifact(f"+++ b/{HOSTILE}\n@@ {HOSTILE}\n-{HOSTILE}\n+{HOSTILE}!", HOSTILE, artifacts[5].curves)}
    tab = show([first, *records[1:5], hostile, *records[6:]], left, "#0005")
    tab.wait_for_selector("#drawer .verdict")
    tab.fill("#query", "</script>")
    assert "0005" in numbers(tab)
    assert tab.inner_text("#drawer .drawer-title") == MARKUP
    assert tab.inner_text("#drawer pre.code") == SEEN
    assert tab.inner_text("#drawer .diff .add").endswith(f"{SEEN}!")
    everything: str = tab.inner_text("body")
    assert not {c for c in everything if c != "\n" and c != "\t" and unicodedata.category(c) in ("Cc", "Cf")}
    tab.hover("#progress-chart .u-over", force=True)
    assert tab.evaluate("window.hacked") is None
    assert tab.locator("img").count() == 0


def test_going_back_closes_what_was_opened_from_the_list(show: Show, night: Night) -> None:
    tab = show(*night)
    length = "history.length"
    before = tab.evaluate(length)
    tab.locator("#rows .row .text").nth(2).click()
    tab.keyboard.press("j")  # from one to the next is no step of its own
    assert (tab.evaluate("location.hash"), tab.evaluate(length)) == ("#0057", before + 1)
    tab.go_back()
    assert tab.is_hidden("#drawer")
    assert tab.evaluate("location.hash") == ""
    tab.go_forward()
    assert tab.inner_text("#drawer .no") == "0057"
    tab.keyboard.press("Escape")  # at once open another, before the history has gone back
    tab.keyboard.press("Enter")
    tab.wait_for_function("location.hash === '#0057' && history.state.opened")
    assert tab.is_visible("#drawer")
    tab.go_back()
    assert tab.is_hidden("#drawer")
    assert tab.evaluate(length) == before + 1


def test_what_a_link_opened_closes_where_it_is(show: Show, night: Night) -> None:
    tab = show(*night, "#0007")
    before = tab.evaluate("history.length")
    tab.keyboard.press("Escape")
    assert tab.is_hidden("#drawer")
    assert (tab.evaluate("location.hash"), tab.evaluate("history.length")) == ("", before)
    tab.evaluate("location.hash = '#0009'")
    tab.wait_for_function("document.querySelector('#drawer .no')?.textContent === '0009'")


def test_a_line_of_the_change_that_begins_like_a_heading_is_shown(show: Show, night: Night) -> None:
    patch = "diff --git a/a.sql b/a.sql\n--- a/a.sql\n+++ b/a.sql\n@@ -1 +1 @@\n--- drop\n+++ keep"
    tab = show(night[0], {5: Artifact(patch)}, "#0005")
    tab.wait_for_selector("#drawer .verdict")
    assert tab.inner_text("#drawer .diff .file") == "a.sql"
    assert "-- drop" in tab.inner_text("#drawer .diff .del")
    assert "++ keep" in tab.inner_text("#drawer .diff .add")


def test_a_curve_of_one_point_is_a_point(show: Show, night: Night) -> None:
    curve = Curve("train", [7], [2.5])
    tab = show(night[0][:1], {0: Artifact(curves=(curve,))}, "#0000")
    tab.wait_for_selector("#drawer-chart canvas")
    drawn = """(id) => { const c = document.querySelector(id + ' canvas');
        const data = c.getContext('2d').getImageData(c.width * 0.3, c.height * 0.1, c.width * 0.5, c.height * 0.7).data;
        let count = 0;
        for (let at = 0; at < data.length; at += 4) count += data[at + 3] > 200 && data[at + 2] - data[at] > 90;
        return count; }"""
    assert tab.evaluate(drawn, "#drawer-chart") > 10
    assert tab.evaluate(drawn, "#progress-chart") > 10


def test_reasons_and_days_are_told_in_full(show: Show, night: Night) -> None:
    records = night[0]
    lost = [
        replace(one, verdict=Verdict(Status.CRASH, reason, reason))
        for one, reason in zip(records[1:5], ("oom", "timeout", "nan", "oom"), strict=True)
    ]
    long = replace(records[5], finished_at=records[0].finished_at + 3 * 86400)
    tab = show([records[0], *lost, long], {}, timezone_id="UTC")
    tiles = tab.inner_text("#tiles")
    assert "2 oom, 1 timeout, 1 more" in tiles
    assert re.search(r"\d+ \w+, \d\d:\d\d to \d+ \w+, \d\d:\d\d", tiles)


def test_runs_that_do_not_count_say_why(show: Show, night: Night) -> None:
    record = night[0][3]
    runs = (
        Run(1, 0.9912, role=Role.SCREEN, inconclusive="the clock was held down"), Run(1, 0.9913, role=Role.SCREEN),
        Run(2, None, role=Role.CONFIRM, training_seconds=100.0, hopeless="its loss was too far behind"),
    )  # fmt: skip
    stopped = replace(
        record,
        runs=runs,
        verdict=Verdict(Status.DISCARD, "hopeless", ""),
        decision=replace(record.decision, decided=Reason.HOPELESS),
    )
    tab = show([*night[0][:3], stopped], {}, "#0003")
    tab.wait_for_selector("#drawer .verdict")
    measured = tab.inner_text("#drawer .measured")
    assert "inconclusive, not counted: the clock was held down" in measured
    assert "stopped early: its loss was too far behind" in measured
    assert "stopped" in measured
    assert tab.locator("#drawer .dots circle.hollow").count() == 1
    assert "Earlier runs of it gave 0.991" in tab.inner_text("#drawer .verdict")
    assert tab.locator("#rows .row.discard .metric").first.inner_text() == "\u2013"
    assert "1 experiment without a metric" in tab.inner_text("#progress-note")
    assert "NaN" not in tab.inner_text("body")


def test_ten_thousand_experiments_open_and_filter_with_two_seconds_of_work(show: Show, night: Night) -> None:
    records, artifacts = night
    many = [replace(records[number % 60 + 1] if number else records[0], number=number) for number in range(10_001)]
    left = {number: artifacts[number % 60 + 1] for number in range(10_001)}
    tab = show(many, left)
    devtools = tab.context.new_cdp_session(tab)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})  # which other processes do not lengthen

    def worked() -> float:
        metrics = devtools.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))

    began = worked()
    tab.reload()
    tab.wait_for_selector("html[data-ready]")
    opened = worked()
    assert 0.01 < opened - began < SECONDS
    tab.fill("#query", "rate")
    tab.evaluate("document.body.offsetHeight")
    assert worked() - opened < SECONDS
    tab.fill("#query", "")
    tab.evaluate("window.scrollTo(0, document.body.scrollHeight / 2)")
    tab.locator("#rows .row").nth(10).wait_for(state="attached")
    assert tab.locator("#rows .row").count() < 100  # only what is in sight
    tab.click("[data-key=seconds]")
    assert len(numbers(tab)) > 10


def test_a_campaign_with_nothing_but_its_baseline_is_a_page_too(show: Show, night: Night) -> None:
    tab = show(night[0][:1], {})
    assert tab.inner_text("#headline").endswith("val_bpb: the baseline")
    assert tab.inner_text("#claim") == "The baseline is measured; no experiment has been judged yet."
    assert "of 0" not in tab.inner_text("#tiles")
    assert "Nothing kept" in tab.inner_text("#chain")
    tab.keyboard.press("j")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#drawer .verdict")
    assert "The baseline" in tab.inner_text("#drawer .verdict")


def test_a_row_for_each_lane_shows_its_runs_where_the_records_have_their_times(show: Show, night: Night) -> None:
    records, artifacts = night
    places = show(records, artifacts).locator("#lanes, #lanes-link")
    assert places.evaluate_all("all => all.map(one => one.hidden)") == [True, True]
    at, timed = 1.7e9, []
    for record in records:
        runs = []
        for run in record.runs:
            runs.append(replace(run, began_at=at, lane=len(runs) % 2))
            at += run.total_seconds
        timed.append(replace(record, runs=tuple(runs), finished_at=at, timings={"run": 1.0}))
    tab = show(timed, artifacts)
    assert tab.locator("#lanes canvas").count() == 2
    assert re.search(r"2 lanes over .* of sessions, \d+% idle", tab.locator("#lanes-note").inner_text())
    band = tab.locator("#lanes canvas").first
    assert re.search(r"Lane 0: \d+ runs, \d+% idle", band.get_attribute("aria-label") or "")
    band.hover(position={"x": 2, "y": 5})
    assert "0000" in tab.locator("#tip").inner_text()
    band.click(position={"x": 2, "y": 5})
    assert tab.locator("#drawer").is_visible()
