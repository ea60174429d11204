"""A comparison as a page."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import pytest

from tests.cli.test_compare import write_profile
from trt_layermerge.ci.compared import report_of_comparison
from trt_layermerge.ci.comparison_page import write_comparison
from trt_layermerge.delivery.manifest import Manifest, read_manifest, write_manifest
from trt_layermerge.errors import TableError
from trt_layermerge.regression.comparable import compare_files

GOLDEN = Path(__file__).parents[1] / "delivery" / "assets" / "manifest-v1.json"


def page(folder: Path, baseline: Path, new: Path) -> str:
    found = compare_files(baseline, new, 0.05, None, ())
    write_comparison(folder / "compared.html", found)
    html = (folder / "compared.html").read_text()
    report = report_of_comparison(found)
    plain = unescape(html)
    assert report.title in plain and all(note in plain for note in report.notes)
    for case in report.cases:
        assert case.name in plain and all(figure in plain for figure in case.figures)
    assert (found.objection is None) is ("Nothing was found to be slower" in html)
    return html


def delivered(path: Path, slower: float, **changes: object) -> Path:
    manifest = read_manifest(GOLDEN)
    compressed = manifest.compressed
    low, high = compressed.latency_ci_ms
    figures = {"latency_ms": slower * compressed.latency_ms, "latency_ci_ms": (slower * low, slower * high)}
    update = {"compressed": compressed.model_copy(update=figures), "speedup": manifest.speedup / slower}
    write_manifest(path, manifest.model_copy(update=update | changes))
    return path


@pytest.mark.parametrize("slower", [1.0, 1.5])
def test_two_deliveries_are_drawn_to_one_scale(tmp_path: Path, slower: float) -> None:
    html = page(tmp_path, GOLDEN, delivered(tmp_path / "new.json", slower))
    assert html.count('<div class="strips">') == 2 and "latency of the compressed" in html


@pytest.mark.parametrize("count", [3, 120])
def test_two_profiles_have_a_row_for_each_operation(tmp_path: Path, count: int) -> None:
    baseline = write_profile(tmp_path / "baseline.jsonl", count=count)
    html = page(tmp_path, baseline, write_profile(tmp_path / "new.jsonl", slow=1.4, count=count))
    assert '<div class="strips">' not in html and html.count("<code>fp32") >= count


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    manifest: Manifest = read_manifest(GOLDEN)
    plan = dict(manifest.plan)
    plan["items"] = [item | {"key": f"{item['key']} {evil}"} for item in plan["items"]]
    both = [delivered(tmp_path / f"{name}.json", 1.0, plan=plan, model=evil) for name in ("old", "new")]
    html = page_of(tmp_path, *both)
    assert html.count("<script>") == 1 and "&lt;/script&gt;" in html


def page_of(folder: Path, baseline: Path, new: Path) -> str:
    write_comparison(folder / "compared.html", compare_files(baseline, new, 0.05, None, ()))
    return (folder / "compared.html").read_text()


@pytest.mark.parametrize("plan", [{}, {"items": [], "original_ns": "slow"}, {"latency_ns": 0}])
def test_a_manifest_without_a_plan_is_told(tmp_path: Path, plan: dict[str, object]) -> None:
    with pytest.raises(TableError, match="the plan in the new manifest"):
        page_of(tmp_path, GOLDEN, delivered(tmp_path / "new.json", 1.0, plan=plan))
