"""Pages as they are looked at: in a Chromium that is there, in both themes, wide and narrow.

Screenshots lie in the tests' temporary folder: ``pytest --basetemp FOLDER`` keeps them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trt_layermerge.ci.comparison_page import write_comparison
from trt_layermerge.delivery.manifest import Manifest
from trt_layermerge.regression.deliveries import compare_deliveries
from trt_layermerge.report.evidence import Evidence
from trt_layermerge.report.exploration import Exploration, ExploredBudget, write_exploration
from trt_layermerge.report.html import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 375, "height": 740}
EVIL = "</script><img src=x onerror=alert(1)><script>alert(1)</script>"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here, such as Debian's package chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright, of the extra dev, is not installed")
    with playwright.sync_playwright() as started:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # which Chromium refuses to root
        opened = started.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield opened
        opened.close()


@pytest.fixture
def pages(tmp_path: Path, manifest: Manifest, fp16: Manifest, evidence: Evidence) -> dict[str, Path]:
    """A page of each kind, one of them of a network whose names are hostile."""
    layers = tuple(replace(one, name=EVIL) for one in evidence.layers)
    hostile = replace(evidence, layers=layers, choices=tuple(replace(one, key=EVIL) for one in evidence.choices))
    narrowed = manifest.model_copy(update={"plan": _narrowed(manifest.plan)})
    paths = {name: tmp_path / f"{name}.html" for name in ("delivery", "bare", "hostile", "comparison", "exploration")}
    write_report(paths["delivery"], narrowed, evidence)
    write_report(paths["bare"], fp16)
    write_report(paths["hostile"], manifest.model_copy(update={"model": EVIL}), hostile)
    write_comparison(paths["comparison"], compare_deliveries(manifest, manifest, 0.05))
    budgets = tuple(
        ExploredBudget(f"0.{9 - n}", 1 + n / 3, 1 + n / 4, 3.5 - n / 2, n, 0.2 + n**2 / 9, 0.9, 99.0)
        for n in range(1, 6)
    )
    explored = Exploration("model.py", "a device", False, None, 1024, 0.19, 0.93, budgets, True, "compress")
    write_exploration(paths["exploration"], explored)
    return paths


def _narrowed(plan: dict[str, Any]) -> dict[str, Any]:
    """A plan with its first block narrowed."""
    first, *others = plan["items"]
    widths = [{"group": "g0", "channels": 4, "full": 8, "value": -0.01}]
    return plan | {"items": [first | {"widths": [["g0", 4]]}, *others], "widths": widths}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_every_page_is_shown_without_errors(
    browser: Any, pages: dict[str, Path], tmp_path: Path, theme: str, size: dict[str, int]
) -> None:
    context = browser.new_context(color_scheme=theme, viewport=size, has_touch=size is NARROW)
    for name, path in pages.items():
        page, faults, fetched = context.new_page(), list[str](), list[str]()
        page.on("pageerror", lambda error, faults=faults: faults.append(str(error)))
        page.on("console", lambda message, faults=faults: faults.append(message.text))
        page.on("dialog", lambda dialog, faults=faults: (faults.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request, fetched=fetched: fetched.append(request.url))
        page.goto(path.as_uri())
        page.screenshot(path=tmp_path / f"{name}-{theme}-{size['width']}.png", full_page=True)
        for summary in page.query_selector_all("summary"):
            summary.click()
        assert faults == [] and fetched == [path.as_uri()], name
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{name} is wider than the screen by {wider} pixels"
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, paper[4:-1].split(","))) > 382) is (theme == "light"), name
        unseen = page.evaluate(
            "[...document.querySelectorAll('svg')].filter(e => !e.getBoundingClientRect().height).length"
        )
        assert unseen == 0, name
        page.close()
    context.close()


def test_a_block_tells_what_it_is_to_pointer_finger_and_keyboard(browser: Any, pages: dict[str, Path]) -> None:
    context = browser.new_context(viewport=WIDE, has_touch=True)
    page = context.new_page()
    page.goto(pages["hostile"].as_uri())
    tip, blocks = page.locator("#tip"), page.locator(".strips rect[data-tip]")
    assert not tip.is_visible()
    _scroll_to(blocks.first)
    blocks.first.hover()
    assert tip.is_visible() and tip.inner_text() == blocks.first.get_attribute("data-tip") and EVIL in tip.inner_text()
    assert page.locator("#tip *").count() == 0, "whatever a layer is called is text"
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    blocks.nth(1).tap()
    assert tip.inner_text() == blocks.nth(1).get_attribute("data-tip")
    page.locator("h1").tap()
    assert not tip.is_visible()
    reached = page.locator(".strips [tabindex]").first
    page.locator("nav a").last.focus()
    page.keyboard.press("Tab")
    _scroll_to(reached)
    assert tip.is_visible() and tip.inner_text() == reached.get_attribute("data-tip")
    points = page.locator("#choices [data-tip]")
    _scroll_to(points.first)
    points.first.hover()
    assert EVIL in tip.inner_text()
    context.close()


def _scroll_to(shown: Any) -> None:
    """Have something on the screen, and the page told so: scrolling hides what is told of where the pointer was."""
    shown.scroll_into_view_if_needed()
    shown.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_it_prints_in_light_colours_with_all_of_it(browser: Any, pages: dict[str, Path]) -> None:
    context = browser.new_context(color_scheme="dark", viewport=WIDE)
    page = context.new_page()
    page.goto(pages["delivery"].as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("[...document.querySelectorAll('details')].every(one => one.open)")
    assert page.pdf().startswith(b"%PDF")
    context.close()
