"""The page of `gpe explore` in a real browser."""

import os
import re
import shutil

import pytest
import torch

from gpe.experiments.explore.page import PAGE, PLACES
from gpe.records import Record, load_arrays

playwright = pytest.importorskip(
    "playwright.sync_api", reason="no Playwright: pip install playwright"
)
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt install chromium")
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # which root has to go without
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser):
    """A function that opens the page of a run; what the page complains of fails the test."""
    said = []

    def visit(explored, *, width=1280, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
        )
        page = context.new_page()
        page.on("console", lambda told: told.type == "error" and said.append(told.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url))
        page.goto((explored.directory / PAGE).as_uri())
        return page

    yield visit
    assert [text for text in said if not re.match(r"file:.*explore\.html$|data:", text)] == []


def number(text):
    return float(text.replace("−", "-").removesuffix(" %"))


def rows(record, **values):
    found = [row for row in record.result["rows"] if values.items() <= row.items()]
    assert found
    return found


def cells(page, row):
    return [
        cell.inner_text()
        for cell in page.query_selector_all(f"#scores tbody tr:nth-child({row}) td")
    ]


def pixels(page, name):
    """The colours of a canvas, as one list."""
    page.wait_for_function(f"document.getElementById('{name}').width > 0")
    read = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    return page.eval_on_selector(f"#{name}", read)


def test_the_slider_moves_and_the_numbers_are_those_of_the_record(visit, segmenter):
    page, record = visit(segmenter), Record.load(segmenter.directory)
    arrays = load_arrays(segmenter.directory)
    page.focus("#count")
    for step, count in enumerate((0, 4, 16)):
        if step:
            page.keyboard.press("ArrowRight")
        assert page.inner_text("#removed") == f"{count} of 32"
        for place, region in enumerate(("full", "left", "centre", "right"), 1):
            chosen = {"ranking": "overall", "stop": count}
            (row,) = rows(record, **chosen, region=region)
            (before,) = rows(record, ranking="overall", stop=0, region=region)
            (own,) = [r for r in record.result["samples"][0]["rows"] if chosen.items() <= r.items()]
            shown = [number(text.removeprefix("±")) for text in cells(page, place)]
            expected = [own[region], row["miou"], row["miou"] - before["miou"]]
            assert shown == pytest.approx(expected, abs=0.051)
        wrong = number(page.inner_text("#wrong").removesuffix(" of the pixels"))
        assert wrong == pytest.approx(100 - own["accuracy"], abs=0.051)
        colours = arrays["palette"][arrays["answers0"][0, step].long()].flatten(0, 1)
        shown = torch.tensor(pixels(page, "seen")).view(-1, 4)
        assert torch.equal(shown[:, :3], colours.long()) and len(colours.unique(dim=0)) > 1
        missed = arrays["answers0"][0, step] != arrays["labels0"]
        reddest = torch.tensor(pixels(page, "errors")).view(32, 64, 4)[..., 1] < 100
        assert torch.equal(reddest, missed & (arrays["labels0"] != 255))


def test_the_keyboard_reaches_everything(visit, segmenter):
    page = visit(segmenter)
    reached = []
    for _ in range(16):
        page.keyboard.press("Tab")
        reached.append(page.eval_on_selector(":focus", "e => e.id || e.name || e.dataset.cell"))
    order = ["count", "ranking", *map(str, range(9)), "picture", "region", "tiles"]
    assert [name for name in dict.fromkeys(reached) if name in order] == order
    page.focus("[name=ranking]")
    page.keyboard.press("ArrowRight")
    assert page.is_checked("[name=ranking]:nth-of-type(1) >> nth=1")
    page.focus("[data-cell='2']")
    page.keyboard.press("Enter")
    assert page.get_attribute("[data-cell='2']", "aria-pressed") == "true"
    assert page.inner_text("#place") == PLACES[2] and page.is_checked("[value=place]")
    page.focus("#tiles")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#tiles", "aria-valuenow") == "2"


def test_a_click_on_a_place_removes_its_channels(visit, segmenter):
    page, record = visit(segmenter), Record.load(segmenter.directory)
    page.click("[data-cell='6']")
    assert page.inner_text("#removed") == "16 of 32"  # the last, of so few
    (row,) = rows(record, ranking="cells:6", stop=16, region="full")
    assert number(cells(page, 1)[1]) == pytest.approx(row["miou"], abs=0.051)


def test_a_click_on_a_channel_shows_what_its_removal_costs(visit, segmenter):
    page, record = visit(segmenter), Record.load(segmenter.directory)
    page.click("#tiles", position={"x": 37 * 2 + 10, "y": 10})
    channel = record.result["alone"][2 * 4]["channel"]
    assert page.inner_text("#channel") == f"Channel {channel}"
    costs = [row["miou"] for row in record.result["alone"] if row["channel"] == channel]
    facts = page.inner_text("#facts")
    shown = [float(value) for value in re.findall(r"([\d.]+) % \(", facts)]
    assert shown == pytest.approx(costs, abs=0.051) and "3 of 32" in facts
    whole = [row["miou"] for row in rows(record, ranking="overall", stop=0)]
    changes = [number(value) for value in re.findall(r"% \(±?([^)]+)\)", facts)]
    assert changes == pytest.approx([a - b for a, b in zip(costs, whole, strict=True)], abs=0.051)
    assert len(set(pixels(page, "responses"))) > 3 and len(set(pixels(page, "cells"))) > 3


def test_a_classifier_says_what_it_takes_pictures_for(visit, classifier):
    page, record = visit(classifier), Record.load(classifier.directory)
    page.focus("#count")
    page.keyboard.press("End")
    kept = rows(record, ranking="overall", stop=16)
    shown = [number(cells(page, row)[0]) for row in (1, 2)]
    expected = [kept[-1]["kept"], kept[0]["accuracy"]]
    assert shown == pytest.approx(expected, abs=0.051)
    page.check("[name=picture] >> nth=1", force=True)
    assert page.inner_text("#label") == record.result["samples"][1]["label"]
    assert page.inner_text("#now").endswith("sure") and page.inner_text("#without") == "16 of 32"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["segmenter", "classifier"])
def test_a_phone_needs_no_sideways_scrolling(visit, request, kind, scheme):
    page = visit(request.getfixturevalue(kind), width=360, scheme=scheme)
    page.focus("#count")
    page.keyboard.press("End")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.evaluate("scrollTo(0, 2000)")
    assert page.is_visible("#count") and page.query_selector("#count").bounding_box()["y"] < 100
