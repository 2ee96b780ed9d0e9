"""`reports/index.html` in a real Chromium: it fits, sorts, filters, shows runs, escapes, and needs no server."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page
from report_records import write_record, write_saving

from benchmarks.many_runs import NASTY, write_many
from repro.report.build import build
from repro.report.tables import html_environment
from repro.tables.loader import load_table, table_names
from repro.tracking.mirror_file import Mirror, write_mirror

RUNS = 5000
COUNT = "section#table1-local output.count"
ROWS = len(load_table("table1").rows)
COMPACT = "table.rows.compact"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with 5,000 runs, the first of them with a name full of markup."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "runs" / "r4321").mkdir(parents=True)
    return write_many(folder, RUNS)


@pytest.fixture
def asked() -> list[str]:
    """The addresses that the page asked for, and what went wrong in it."""
    return []


@pytest.fixture
def page(browser: Browser, path: Path, asked: list[str]) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: asked.append(f"error {error}"))
    opened.goto(path.as_uri())
    yield opened
    opened.close()


def first_cells(page: Page, table: str) -> list[str]:
    """The first cell of each line that is shown."""
    return page.eval_on_selector_all(
        f"{table} tbody tr.line:not([hidden])", "lines => lines.map(line => line.cells[0].textContent.trim())"
    )  # type: ignore[no-any-return]


def focused(page: Page) -> str:
    """Where the keyboard is: tag, id or class, and words."""
    return str(
        page.evaluate(
            "() => { const e = document.activeElement, words = e.getAttribute('aria-label') || e.textContent;"
            " return [e.tagName, e.id, e.getAttribute('class'), words].join('|') }"
        )
    )


def tab_to(page: Page, what: str) -> str:
    """Press the tab key until the focus is there, as a reader without a mouse would."""
    for _ in range(120):
        page.keyboard.press("Tab")
        here = focused(page)
        if re.search(what, here):
            outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
            circle = page.evaluate(
                "() => { const c = document.activeElement.querySelector('circle');"
                " return c && getComputedStyle(c).strokeWidth }"
            )
            assert outline != "none" or circle == "2px", f"{here}: the focus is not to be seen"
            return here
    raise AssertionError(f"no tab stop {what}")


def test_it_shows_every_row_and_a_part_of_5000_runs(page: Page) -> None:
    assert page.title() == "Reports: table1"
    assert page.text_content(COUNT) == f"{ROWS} of {ROWS} rows"
    assert page.text_content("#run-count") == "200 shown, 5000 match, 5000 runs"
    page.click("#more")
    assert page.text_content("#run-count") == "400 shown, 5000 match, 5000 runs"


def test_a_name_full_of_markup_is_text(page: Page, asked: list[str]) -> None:
    assert page.text_content("#run-table tbody tr td:nth-child(3)") == NASTY
    assert page.text_content("#run-table tbody tr td:nth-child(12)") == NASTY
    label = page.get_attribute("svg.plot a", "aria-label")
    assert label is not None
    assert label.startswith(NASTY)
    assert page.locator("img[src='x']").count() == 0
    assert not [line for line in asked if line.startswith("error")]


def test_it_filters_and_sorts(page: Page) -> None:
    page.fill("section#table1-local input.filter", "deit_tiny s2vite")
    assert page.text_content(COUNT) == f"1 of {ROWS} rows"
    assert first_cells(page, COMPACT) == ["deit_tiny/s2vite-30"]
    page.fill("section#table1-local input.filter", "")
    params = page.locator(f"{COMPACT} thead button").nth(1)
    params.click()
    rising = first_cells(page, COMPACT)
    params.click()
    assert first_cells(page, COMPACT)[0] == "deit_base/dense"
    assert rising[0].startswith("deit_tiny/")
    assert sorted(rising) == sorted(first_cells(page, COMPACT))
    best = page.locator("#run-table button[data-key=best]")
    best.click()
    assert page.text_content("#run-table tbody tr td:nth-child(3)") == NASTY  # 0 %
    best.click()
    assert best.locator("xpath=..").get_attribute("aria-sort") == "descending"
    assert page.text_content("#run-table tbody tr td:nth-child(3)") == "r/4999"
    page.fill("#run-filter", "r/499 digits")
    assert page.text_content("#run-count") == "11 shown, 11 match, 5000 runs"


def test_a_point_says_its_run_and_leads_to_it(page: Page) -> None:
    point = page.locator("svg.plot a").nth(4999)
    point.hover()
    said = page.text_content("output.run")
    assert said == "r/4999, seed 0: best 49.99 % (digits), 6.00 GMACs"
    assert point.get_attribute("href") == "runs/r4999/"
    assert point.locator("title").text_content() == said


def test_it_is_usable_with_a_keyboard_alone(page: Page) -> None:
    tab_to(page, r"^INPUT\|\|filter")
    page.keyboard.type("deit_base reproduced")
    assert page.text_content(COUNT) != f"{ROWS} of {ROWS} rows"
    shown = first_cells(page, COMPACT)
    assert shown
    assert all(row.startswith("deit_base") for row in shown)
    tab_to(page, r"^BUTTON\|\|\|Params")
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    assert page.locator(f"{COMPACT} th[aria-sort=descending]").count() == 1
    here = tab_to(page, r"^a\|")
    assert NASTY in here  # the plot is one stop of the tab key, though it has 5,000 points
    page.keyboard.press("ArrowLeft")
    assert "r/4999, seed 0" in focused(page)
    assert page.text_content("output.run") == "r/4999, seed 0: best 49.99 % (digits), 6.00 GMACs"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "r/1, seed 0" in focused(page)
    tab_to(page, r"^INPUT\|run-filter")
    page.keyboard.type("r/4321")
    assert page.text_content("#run-count") == "1 shown, 1 match, 5000 runs"
    tab_to(page, r"^A\|\|\|r/4321")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert page.url.endswith("/runs/r4321/")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(scheme: str, browser: Browser, path: Path) -> None:
    page = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(path.as_uri())
    seen = page.evaluate(
        "() => ['body', '.badge.good', 'thead th', 'a'].flatMap(name => {"
        " const style = getComputedStyle(document.querySelector(name)); return [style.color, style.backgroundColor] })"
    )
    assert contrast(seen[0], seen[1]) > 7
    assert contrast(seen[2], seen[3]) > 4.5
    assert (luminance(seen[1]) > 0.5) is (scheme == "light")
    assert contrast(seen[6], seen[1]) > 4.5  # a link on the page
    page.close()


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, as WCAG defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """WCAG's contrast ratio of two colours."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_it_asks_no_server(page: Page, path: Path, asked: list[str]) -> None:
    page.fill("#run-filter", "r/1")
    page.locator("svg.plot a").nth(4999).hover()
    page.click("#run-table button[data-key=best]")
    assert asked[0] == path.as_uri()
    assert all(address.startswith("data:") for address in asked[1:])


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of all tables with all that they can show: every row trained, timed, and a seed missing."""
    folder = tmp_path_factory.mktemp("full page")
    for name in table_names():
        table = load_table(name)
        rows = table.select([], "local")
        for row in (row for row in rows if not row.reads_runs_of):
            record = write_record(folder / "runs", row, "local", 0, top1_best_pct=80.0)
            write_record(folder / "runs", row, "local", 1, top1_best_pct=70.0)
            write_saving(folder / "runs", row, 30.0)
            write_mirror(record.path, Mirror("current", "online", f"{name}-id", f"https://wandb.example/{row.id}"))
        build(table, rows, "local", [0, 1, 2], folder / "runs", folder / "reports")
    build(load_table("table1"), table_rows("table1")[:3], "smoke", [0], folder / "runs", folder / "reports")
    return folder / "reports" / "index.html"


def table_rows(name: str) -> tuple:
    return load_table(name).rows


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overflows_and_verdicts_are_visible(browser: Browser, full: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.goto(full.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for table in page.locator(".compact-table").all():
        assert table.evaluate("e => e.scrollWidth <= e.clientWidth"), "a table needs scrolling"
    cut = page.evaluate(
        "() => [...document.querySelectorAll('.compact td, .compact th')].filter(e => e.offsetParent"
        " && (e.getBoundingClientRect().right > innerWidth || e.getBoundingClientRect().left < 0)).length"
    )
    assert cut == 0
    badges = page.locator("section#table1-local .compact tr.line .badge:has(.word)")
    published = [{value.metric for value in row.published} for row in table_rows("table1")]
    assert badges.count() == sum(map(len, published)), "one for each published value"
    for badge in badges.all():
        box = badge.bounding_box()
        assert box is not None
        assert box["width"] > 5
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width
    word = page.locator("section#table1-local .compact .badge.good .word").first.bounding_box()
    assert word is not None
    assert (word["width"] > 30) is (width == 390), "in words on a phone, as a mark elsewhere"
    line = page.locator("[id='table1-local-deit_small/s2vite_plus-10-40']")
    line.scroll_into_view_if_needed()
    assert line.locator(".badge.off").first.is_visible()
    page.close()


def test_the_plot_is_readable_on_a_phone_and_scrolls_by_itself(browser: Browser, full: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(full.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    plot = page.locator("svg.plot").first
    size_px = "e => parseFloat(getComputedStyle(e.querySelector('text')).fontSize) * e.getScreenCTM().a"
    assert plot.evaluate(size_px) >= 10
    last = plot.locator("a").last
    last.focus()
    last.press("End")
    words = page.locator("output.run").first
    assert words.inner_text().startswith("deit_"), "the run at which the keys point is named below the plot"
    page.close()


@pytest.mark.parametrize(("width", "inches"), [(1280, 5.5), (390, 3.25)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_are_drawn_for_the_screen(browser: Browser, full: Path, width: int, inches: float, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(full.as_uri())
    picture = page.locator(".figures img").first
    picture.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('.figures img').complete")
    assert picture.evaluate("e => e.naturalWidth") == pytest.approx(inches * 96, abs=1)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    with Image.open(io.BytesIO(picture.screenshot())) as shown:
        light = shown.convert("L").getpixel((shown.width // 2, 6))  # paper above the legend
    assert isinstance(light, int)
    assert (light > 128) is (scheme == "light")
    page.close()


@pytest.mark.parametrize("width", [701, 720, 860, 1000, 1060, 1199, 1200])
def test_no_width_scrolls_sideways(browser: Browser, full: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.goto(full.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cells = page.locator("section#table1-local .compact tr.line").first.locator("td, th")
    assert all(box["x"] + box["width"] <= width for cell in cells.all() if (box := cell.bounding_box()))
    page.close()


def test_printed_heads_are_text_and_names_of_runs_break_after_slashes_only(browser: Browser, full: Path) -> None:
    """On the second page of a table, Chromium paints the words of a head, but not the box of a button around them."""
    page = browser.new_page(viewport={"width": 718, "height": 1000})
    page.emulate_media(media="print")
    page.goto(full.as_uri())
    heads = page.locator("thead button")
    assert heads.evaluate_all("all => new Set(all.map(e => getComputedStyle(e).display)).size") == 1
    assert heads.first.evaluate("e => getComputedStyle(e).display") == "contents"
    broken = page.eval_on_selector_all(
        "#run-table a, #run-table td:nth-child(1), #run-table td:nth-child(2)",
        "names => names.flatMap(name => [...name.childNodes]).filter(part => { const range = new Range();"
        " range.selectNodeContents(part); return range.getClientRects().length > 1 }).map(part => part.textContent)",
    )
    assert broken == []
    assert page.locator("#run-table").evaluate("e => e.getBoundingClientRect().right") <= 718
    page.close()


def test_print_cuts_nothing(browser: Browser, full: Path) -> None:
    page = browser.new_page(viewport={"width": 718, "height": 1000})  # A4 less its margins at 96 dots per inch
    page.emulate_media(media="print")
    page.goto(full.as_uri())
    for table in page.locator(".compact-table table").all():
        assert table.evaluate("e => e.getBoundingClientRect().right") <= 718
    assert page.locator("input.filter").first.is_hidden()
    page.close()


def test_a_switch_shows_every_column(browser: Browser, full: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(full.as_uri())
    section = page.locator("section#table1-local")
    assert section.locator(".compact-table").first.is_visible()
    assert section.locator(".wide-table").first.is_hidden()
    section.locator("label[for=table1-local-wide]").click()
    assert section.locator(".compact-table").first.is_hidden()
    heads = section.locator(".wide-table thead").first.inner_text()
    for head in ("published", "verdict", "last epoch (%)", "best epoch (%)"):
        assert head in heads
    page.fill("section#table1-local input.filter", "deit_tiny/dense")
    assert first_cells(page, "section#table1-local table.full") == ["deit_tiny/dense W&B"]
    page.close()


def test_links_lead_to_sources_rows_and_wandb(browser: Browser, full: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(full.as_uri())
    section = page.locator("section#table1-local")
    contradicted = section.locator(".summary a").first
    assert contradicted.text_content() == "deit_small/s2vite_plus-10-40"
    contradicted.click()
    row = page.locator("section#table1-local tr:target")
    assert row.locator("th").inner_text().startswith("deit_small/s2vite_plus-10-40")
    macs = row.locator("td[data-head='MACs (G)']")
    assert "delta +0.09 G, tolerance 0.055; above" in str(macs.get_attribute("title"))
    macs.locator(".published a").click()
    assert page.locator("section#table1-local li:target").is_visible()
    links = section.locator(".compact tr.line a.run")
    assert links.first.get_attribute("href") == "https://wandb.example/deit_tiny/dense"
    assert page.locator("#run-table a[href^='https://wandb.example/']").count() > 0
    page.close()


def test_scales_and_tables_have_a_section_each_and_are_listed_first(browser: Browser, full: Path) -> None:
    page = browser.new_page()
    page.goto(full.as_uri())
    names = ["table1-local", "table1-smoke", "table2-local", "table3-local"]
    assert page.eval_on_selector_all("main > section", "parts => parts.map(part => part.id)") == [*names, "runs"]
    links = page.eval_on_selector_all("nav.overview a", "links => links.map(link => link.getAttribute('href'))")
    assert [link for link in links if link.startswith("#table")][: len(names)] == [f"#{name}" for name in names]
    assert page.text_content("section#table1-smoke output.count") == "3 of 3 rows"
    page.fill("section#table1-local input.filter", "deit_small/dense")
    assert page.text_content("section#table1-local output.count") == f"1 of {ROWS} rows"
    assert page.text_content("section#table1-smoke output.count") == "3 of 3 rows"
    smoke = page.locator("section#table1-smoke .summary")
    assert "No run is finished" in smoke.inner_text()
    assert "good" not in str(smoke.get_attribute("class"))
    page.close()


@pytest.mark.parametrize("hides", ["switch", "filter", "both"])
def test_a_link_shows_a_row_that_is_hidden(browser: Browser, full: Path, hides: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(full.as_uri())
    section = page.locator("section#table1-local")
    link = section.locator(".summary a").first
    row = section.locator(f"[id='table1-local-{link.text_content()}']")
    for _ in range(2):  # the second click changes no URL
        if hides != "filter":
            section.locator("input.wide").check()
        if hides != "switch":
            section.locator("input.filter").fill("deit_tiny")
        assert row.is_hidden()
        link.click()
        row.wait_for(state="visible")
        assert_below_the_head(page, row)
        assert page.text_content(COUNT) == f"{ROWS} of {ROWS} rows"
    section.locator("input.filter").fill("deit_small")
    link.click()
    assert section.locator("input.filter").input_value() == "deit_small", "the filter does not hide the row"
    page.close()


def assert_below_the_head(page: Page, row: Locator) -> None:
    """The row is on the screen, and the head of its table above it."""
    head = row.locator("xpath=ancestor::table").locator("thead").bounding_box()
    line = row.bounding_box()
    assert head is not None
    assert line is not None
    assert 0 <= head["y"] < head["y"] + head["height"] <= line["y"] < line["y"] + line["height"] <= 900
    assert page.evaluate(
        "([x, y]) => !!document.elementFromPoint(x, y).closest('thead')", [line["x"] + 20, head["y"] + 5]
    )


def test_a_page_opened_at_a_row_shows_its_head(browser: Browser, full: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{full.as_uri()}#table1-local-deit_base/dense")
    assert_below_the_head(page, page.locator("tr:target"))
    page.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_targets_stand_out(browser: Browser, full: Path, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(full.as_uri())
    style = "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
    section = page.locator("section#table1-local")
    section.locator(".summary a").first.click()
    row = page.locator("tr:target")
    _, target = row.locator("th").evaluate(style)
    row.hover()
    assert row.locator("th").evaluate(style)[1] == target, "also under the mouse"
    other = section.locator("tr.line:not(:target)").first
    other.hover()
    assert other.locator("th").evaluate(style)[1] not in {target, "rgba(0, 0, 0, 0)"}
    published = row.locator(".published").first
    assert contrast(published.evaluate(style)[0], target) > 4.5
    published.locator("a").click()
    assert page.locator("li:target").evaluate(style)[1] == target
    page.close()


def test_print_breaks_names_after_slashes_only(browser: Browser, full: Path) -> None:
    page = browser.new_page(viewport={"width": 718, "height": 1000})
    page.emulate_media(media="print")
    page.goto(full.as_uri())
    assert page.locator("section#table1-local .compact tr.line th wbr").count() >= ROWS
    broken = page.eval_on_selector_all(
        ".compact tr.line th span",
        "names => names.flatMap(name => [...name.childNodes]).filter(part => { const range = new Range();"
        " range.selectNodeContents(part); return range.getClientRects().length > 1 }).map(part => part.textContent)",
    )
    assert broken == []
    assert page.locator(".compact thead").first.evaluate("e => getComputedStyle(e).position") == "static"
    figures = page.locator("h2[id$=-figures]").first
    assert figures.evaluate("e => getComputedStyle(e).breakAfter") == "avoid"
    page.close()


def test_a_name_with_markup_breaks_and_stays_text(browser: Browser) -> None:
    name = "a/<b>&amp;/</b>"
    page = browser.new_page()
    page.set_content(html_environment().get_template("macros.html").module.name(name))  # type: ignore[attr-defined]
    assert page.text_content("span") == name
    assert page.locator("span *").count() == page.locator("wbr").count() == name.count("/")
    page.close()


def test_a_table_of_its_own_names_its_scale(browser: Browser, full: Path) -> None:
    page = browser.new_page()
    page.goto((full.parent / "table1" / "local" / "table1.html").as_uri())
    assert str(page.text_content("h1")).endswith(": scale local")
    assert page.title() == page.text_content("h1")
    page.close()
