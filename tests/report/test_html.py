from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from trt_layermerge.delivery.manifest import Manifest
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


def page(folder: Path, manifest: Manifest) -> str:
    write_report(folder / "report.html", manifest)
    return (folder / "report.html").read_text()


def test_the_page_is_whole_and_tells_every_figure(tmp_path: Path, manifest: Manifest) -> None:
    parser = Balance()
    parser.feed(page(tmp_path, manifest))
    assert parser.open == []
    text = " ".join(" ".join(parser.text).split())
    assert manifest.model in text and f"{manifest.speedup:.2f}x" in text
    summary = summarise(manifest)
    for row in summary.figures:
        assert " ".join([*row.values, row.change]) in text and f"{row.name}: {row.meaning}".rstrip(": ") in text
    assert all(f"{row.compared} {row.error:.1e} {row.allowed:g}" in text for row in summary.proof)
    for name, digest in manifest.files.items():
        assert name in text and digest in text
    assert all(item["key"].split(" ", 1)[1] in text for item in manifest.plan["items"])
    assert f"budget was {manifest.plan['budget']}" in text and "1.23 %" in text
    assert "http" not in page(tmp_path, manifest), "self-contained"


def test_a_metric_that_is_no_accuracy_is_no_percentage(tmp_path: Path, manifest: Manifest) -> None:
    text = page(tmp_path, manifest.model_copy(update={"metric": "minus MSE"}))
    assert manifest.original.accuracy is not None
    assert f"test minus MSE</td><td>{manifest.original.accuracy:.4g}<" in text and "accuracy" not in text


def test_a_conversion_is_told_layer_by_layer(tmp_path: Path, manifest: Manifest, fp16: Manifest) -> None:
    html = " ".join(page(tmp_path, fp16).split())
    assert "Converted to fp16" in html and "merged_0_3_5" in html and "too large" in html and "stays in FP32" in html
    assert "<td>0.01</td>" in html, "the tolerance of fp16"
    assert "Converted to" not in page(tmp_path, manifest)


def test_whatever_comes_from_outside_is_escaped(tmp_path: Path, manifest: Manifest) -> None:
    evil = "<script>alert('&')</script>"
    device = replace(manifest.device, name=evil)
    plan = manifest.plan | {"method": evil, "budget": evil}
    plan["items"] = [item | {"key": f"0:0-1 {evil}"} for item in plan["items"]]
    changes = {"model": evil, "device": device, "git": evil, "plan": plan, "versions": {evil: evil}}
    html = page(tmp_path, manifest.model_copy(update=changes))
    assert "<script" not in html and "&lt;script&gt;alert(&#39;&amp;&#39;)" in html


def test_plans_that_were_measured_are_shown_in_both_orders(tmp_path: Path, manifest: Manifest) -> None:
    parser = Balance()
    parser.feed(page(tmp_path, manifest))
    text = " ".join(" ".join(parser.text).split())
    assert "1 2 0.045 0.019 +0.2500 0.5000 2 1 0.044 0.018 +0.1250 0.2500 chosen" in text
    assert "with probability 0.979" in text or "with probability 0.978" in text
    plain = page(tmp_path, manifest.model_copy(update={"refined": [], "probability": None}))
    assert "Plans that were measured" not in plain and "with probability" not in plain


def test_simulated_latencies_are_called_so(tmp_path: Path, manifest: Manifest) -> None:
    assert "simulated" not in page(tmp_path, manifest)
    assert "simulated" in page(tmp_path, manifest.model_copy(update={"simulated": True}))


def test_without_accuracies_there_is_no_row_of_them(tmp_path: Path, manifest: Manifest) -> None:
    def without(name: str) -> dict[str, object]:
        return {name: getattr(manifest, name).model_copy(update={"accuracy": None})}

    assert "accuracy" in page(tmp_path, manifest)
    assert "accuracy" not in page(tmp_path, manifest.model_copy(update=without("original") | without("compressed")))
