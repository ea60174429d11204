from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from trt_layermerge.delivery.manifest import Manifest
from trt_layermerge.report.evidence import NO_EVIDENCE, Command, Evidence
from trt_layermerge.report.html import write_report
from trt_layermerge.report.summary import summarise

VOID = {"meta"}


class Balance(HTMLParser):
    """Raises where a tag is closed that is not open; knows the text of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


class Structure(HTMLParser):
    """Knows the elements of a page and the names of their attributes, but for what lengths decide."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, ...]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, *(name for name, _ in attrs)))


def page(folder: Path, manifest: Manifest, evidence: Evidence = NO_EVIDENCE) -> str:
    write_report(folder / "report.html", manifest, evidence)
    return (folder / "report.html").read_text()


def text_of(html: str) -> str:
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    return " ".join(" ".join(parser.text).split())


def self_contained(html: str) -> bool:
    """Nothing in it names what lies elsewhere; pictures refer to their own parts."""
    outside = [
        where for where in re.findall(r"url\(([^)]*)|(?:src|href)=\"([^\"]*)", html) if "#" not in "".join(where)
    ]
    return "://" not in html and outside == []


def test_the_page_is_whole_and_tells_every_figure(tmp_path: Path, manifest: Manifest, evidence: Evidence) -> None:
    for shown in (NO_EVIDENCE, evidence):
        html = page(tmp_path, manifest, shown)
        text = text_of(html)
        assert manifest.model in text and f"{manifest.speedup:.2f}x" in text
        summary = summarise(manifest, shown)
        for row in summary.figures:
            assert " ".join([*row.values, row.change]) in text and f"{row.name}: {row.meaning}".rstrip(": ") in text
        assert all(f"{row.compared} {row.error:.1e} {row.allowed:g}" in text for row in summary.proof)
        for name, digest in manifest.files.items():
            assert name in text and digest in text
        assert all(item["key"].split(" ", 1)[1] in text for item in manifest.plan["items"])
        assert f"budget was {manifest.plan['budget']}" in text and "1.23 %" in text
        assert self_contained(html)


def test_the_evidence_is_shown_or_left_out(tmp_path: Path, manifest: Manifest, evidence: Evidence) -> None:
    parts = ("What other budgets would give", "Importance against latency", "The latency table", "was, ms", "before")
    with_it, without = (text_of(page(tmp_path, manifest, shown)) for shown in (evidence, NO_EVIDENCE))
    assert all(part in with_it for part in parts)
    assert not any(part in without for part in parts[:-1])
    for command in evidence.commands:
        assert command.line in with_it
    html = page(tmp_path, manifest, evidence)
    for layer in evidence.layers:
        assert f'data-tip="{layer.name}' in html
    assert all(row.signature in with_it for row in evidence.operations)
    assert all(choice.key in html for choice in evidence.choices)


def test_the_same_report_has_the_same_bytes(tmp_path: Path, manifest: Manifest, evidence: Evidence) -> None:
    assert page(tmp_path, manifest, evidence) == page(tmp_path, manifest, evidence)


def test_the_one_script_is_the_one_that_the_page_admits(tmp_path: Path, manifest: Manifest, evidence: Evidence) -> None:
    html = page(tmp_path, manifest, evidence)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html and "default-src 'none'" in html
    names = re.findall(r'\bid="([^"]+)"', html)
    assert len(names) == len(set(names)), "pictures keep their names apart"


def test_a_metric_that_is_no_accuracy_is_no_percentage(tmp_path: Path, manifest: Manifest) -> None:
    text = page(tmp_path, manifest.model_copy(update={"metric": "minus MSE"}))
    assert manifest.original.accuracy is not None
    assert f"test minus MSE</td><td>{manifest.original.accuracy:.4g}<" in text and "test accuracy" not in text


def test_a_conversion_is_told_layer_by_layer(tmp_path: Path, manifest: Manifest, fp16: Manifest) -> None:
    html = " ".join(page(tmp_path, fp16).split())
    assert "Converted to fp16" in html and "merged_0_3_5" in html and "too large" in html and "stays in FP32" in html
    assert "<td>0.01</td>" in html, "the tolerance of fp16"
    assert "Converted to" not in page(tmp_path, manifest)


HOSTILE = [
    "<script>alert('&')</script>",
    "</script><script>alert(1)</script>",
    "javascript:alert(1)",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "$\\frac{a}{b$ #01fe01 ]]> <!-- \ud800",
]


@pytest.mark.parametrize("evil", HOSTILE)
def test_whatever_comes_from_outside_is_text(tmp_path: Path, manifest: Manifest, evidence: Evidence, evil: str) -> None:
    device = replace(manifest.device, name=evil)
    plan = manifest.plan | {"method": evil, "budget": evil}
    plan["items"] = [item | {"key": f"0:0-1 {evil}"} for item in plan["items"]]
    changes = {"model": evil, "device": device, "git": evil, "plan": plan, "versions": {evil: evil}}
    shown = replace(
        evidence,
        layers=tuple(replace(one, name=evil, operation=evil) for one in evidence.layers),
        choices=tuple(replace(one, key=evil) for one in evidence.choices),
        operations=tuple(replace(one, signature=evil) for one in evidence.operations),
        budgets=tuple(replace(one, budget=evil) for one in evidence.budgets),
        commands=(Command(evil, evil),),
    )
    told = manifest.model_copy(update={"git": "abc", "versions": {"python": "3"}})
    tame, html = page(tmp_path, told, evidence), page(tmp_path, manifest.model_copy(update=changes), shown)
    parser, other = Structure(), Structure()
    parser.feed(html)
    other.feed(tame)
    assert parser.found == other.found, "no name makes an element or an attribute"


def test_plans_that_were_measured_are_shown_in_both_orders(tmp_path: Path, manifest: Manifest) -> None:
    parser = Balance()
    parser.feed(page(tmp_path, manifest))
    text = " ".join(" ".join(parser.text).split())
    assert "1 2 0.045 0.019 +0.2500 0.5000 2 1 0.044 0.018 +0.1250 0.2500 chosen" in text
    assert "with probability 0.979" in text or "with probability 0.978" in text
    plain = page(tmp_path, manifest.model_copy(update={"refined": [], "probability": None}))
    assert "Plans that were measured" not in plain and "with probability" not in plain


def test_simulated_latencies_are_called_so(tmp_path: Path, manifest: Manifest) -> None:
    assert "(simulated)" not in page(tmp_path, manifest)
    assert "(simulated)" in page(tmp_path, manifest.model_copy(update={"simulated": True}))


def test_without_accuracies_there_is_no_row_of_them(tmp_path: Path, manifest: Manifest) -> None:
    def without(name: str) -> dict[str, object]:
        return {name: getattr(manifest, name).model_copy(update={"accuracy": None})}

    assert "test accuracy" in page(tmp_path, manifest)
    assert "test accuracy" not in page(
        tmp_path, manifest.model_copy(update=without("original") | without("compressed"))
    )


def test_a_command_that_draws_nothing_does_not_load_matplotlib() -> None:
    code = "import sys, trt_layermerge.pipeline.compression; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
