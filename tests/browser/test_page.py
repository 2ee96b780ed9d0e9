"""`reports/index.html` in a real Chromium: it sorts, filters, shows runs, escapes, and asks nobody for anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from benchmarks.many_runs import NASTY, write_many
from repro.paper_tables import load_table
from repro.report import page as page_module
from repro.report.build import build
from repro.report.page import section_file, write_index
from repro.runs.files import read_json, write_json

RUNS = 5000
COUNT = "section#table1 output.count"


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
        f"{table} tbody tr:not([hidden])", "lines => lines.map(line => line.cells[0].textContent)"
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
    assert page.title().startswith("Sparse vision transformers")
    assert page.text_content(COUNT) == "42 of 42 rows"
    assert page.text_content("#run-count") == "200 shown, 5000 match, 5000 runs"
    page.click("#more")
    assert page.text_content("#run-count") == "400 shown, 5000 match, 5000 runs"


def test_a_name_full_of_markup_is_text(page: Page, asked: list[str]) -> None:
    assert page.text_content("#run-table tbody tr td:nth-child(2)") == NASTY
    assert page.text_content("#run-table tbody tr td:nth-child(10)") == NASTY
    label = page.get_attribute("svg.plot a", "aria-label")
    assert label is not None
    assert label.startswith(NASTY)
    assert page.locator("img[src='x']").count() == 0
    assert not [line for line in asked if line.startswith("error")]


def test_it_filters_and_sorts(page: Page) -> None:
    page.fill("section#table1 input.filter", "deit_tiny s2vite")
    assert page.text_content(COUNT) == "1 of 42 rows"
    assert first_cells(page, "table.rows") == ["deit_tiny/s2vite-30"]
    page.fill("section#table1 input.filter", "")
    params = page.locator("table.rows thead button").nth(1)
    params.click()
    rising = first_cells(page, "table.rows")
    params.click()
    assert first_cells(page, "table.rows")[0] == "deit_base/dense"
    assert rising[0].startswith("deit_tiny/")
    assert sorted(rising) == sorted(first_cells(page, "table.rows"))
    best = page.locator("#run-table button[data-key=best]")
    best.click()
    assert page.text_content("#run-table tbody tr td:nth-child(2)") == NASTY  # 0 %
    best.click()
    assert best.locator("xpath=..").get_attribute("aria-sort") == "descending"
    assert page.text_content("#run-table tbody tr td:nth-child(2)") == "r/4999"
    page.fill("#run-filter", "r/499 digits")
    assert page.text_content("#run-count") == "11 shown, 11 match, 5000 runs"


def test_a_point_says_its_run_and_leads_to_it(page: Page) -> None:
    point = page.locator("svg.plot a").nth(4999)
    point.hover()
    said = page.text_content("output.run")
    assert said == "r/4999, seed 0: 49.99 % (digits), 6.00 GMACs"
    assert point.get_attribute("href") == "runs/r4999/"
    assert point.locator("title").text_content() == said


def test_it_is_usable_with_a_keyboard_alone(page: Page) -> None:
    tab_to(page, r"^INPUT\|\|filter")
    page.keyboard.type("deit_base reproduced")
    assert page.text_content(COUNT) != "42 of 42 rows"
    shown = first_cells(page, "table.rows")
    assert shown
    assert all(row.startswith("deit_base") for row in shown)
    tab_to(page, r"^BUTTON\|\|\|Params")
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    assert page.locator("table.rows th[aria-sort=descending]").count() == 1
    here = tab_to(page, r"^a\|")
    assert NASTY in here  # the plot is one stop of the tab key, though it has 5,000 points
    page.keyboard.press("ArrowLeft")
    assert "r/4999, seed 0" in focused(page)
    assert page.text_content("output.run") == "r/4999, seed 0: 49.99 % (digits), 6.00 GMACs"
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


def test_the_tables_of_a_folder_share_the_page(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = load_table("table1")
    path = write_many(tmp_path, 3)
    first = read_json(section_file(tmp_path, "table1"))
    assert first is not None
    html = [part.replace("table1", "table2") for part in first["html"]]
    write_json(section_file(tmp_path, "table2"), {**first, "table": "table2", "html": html})
    monkeypatch.setattr(page_module, "table_names", lambda: ("table1", "table2"))
    assert write_index(tmp_path) == path
    build(table, table.select(["deit_tiny/*"]), "local", [0], tmp_path / "runs", tmp_path)  # of one table only
    page = browser.new_page()
    page.goto(path.as_uri())
    assert page.text_content("section#table1 output.count") == "8 of 8 rows"
    assert page.text_content("section#table2 output.count") == "42 of 42 rows"
    assert page.text_content("#run-count") == "3 shown, 3 match, 3 runs"
    page.fill("section#table2 input.filter", "deit_small/dense")
    assert page.text_content("section#table2 output.count") == "1 of 42 rows"
    assert page.text_content("section#table1 output.count") == "8 of 8 rows"
    page.close()
