from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trt_layermerge.delivery.also import Also
from trt_layermerge.delivery.manifest import Manifest
from trt_layermerge.delivery.per_network import PerNetwork
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.report.exploration import Exploration, ExploredBudget
from trt_layermerge.report.result import Result
from trt_layermerge.report.summary import summarise
from trt_layermerge.report.terminal import print_exploration, print_result


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def printed(capsys: pytest.CaptureFixture[str], manifest: Manifest, also: Also | None = None) -> str:
    print_result(Result(manifest, Path("job"), also))
    return capsys.readouterr().out


def test_every_row_is_printed(manifest: Manifest, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, manifest).splitlines()
    for row in summarise(manifest).figures:
        cells = [row.name, *row.values, row.change]
        assert any([cell.strip() for cell in line.split("│")[1:-1]] == cells for line in lines), row


def test_how_the_figures_came_about_is_told(manifest: Manifest, capsys: pytest.CaptureFixture[str]) -> None:
    text, device = printed(capsys, manifest), manifest.device
    assert f"measured   {device.runtime} {device.runtime_version} on {device.name}," in text
    assert f"batch {manifest.batch}, {device.threads} thread(s), {device.precision};" in text
    assert f"predicted  {manifest.predicted_latency_ms:.3f} ms" in text and "with probability 0.97" in text
    assert f"{manifest.proof.merged_blocks} merged blocks and {manifest.proof.folded_norms} folded norms" in text
    assert "           plan 2: " in text and ", chosen" in text
    assert f"engine     job/{manifest.engine}\nmanifest   job/manifest.json\nreport     job/report.html\n" in text
    assert "SIMULATED" not in text and "converted" not in text and "also" not in text


@pytest.mark.parametrize(("share", "told"), [(0.5, False), (0.9, False), (1.1, False), (1.2, True)])
def test_a_prediction_that_is_far_too_long_is_told_in_words(
    manifest: Manifest, capsys: pytest.CaptureFixture[str], share: float, told: bool
) -> None:
    """One that is far too short ends the command with an error."""
    predicted = share * manifest.compressed.latency_ms
    text = printed(capsys, manifest.model_copy(update={"predicted_latency_ms": predicted}))
    assert ("so far off that another plan may be better: --refine 8" in text) is told


def test_a_double_and_a_conversion_are_told(fp16: Manifest, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, fp16.model_copy(update={"simulated": True}))
    assert "SIMULATED  no device was timed" in text
    assert f"converted  to fp16: outputs off by {fp16.conversion.compressed:.1e}" in text  # type: ignore[union-attr]
    assert f"in FP32: {', '.join(summarise(fp16).full)}" in text


def test_one_more_engine_is_told(manifest: Manifest, capsys: pytest.CaptureFixture[str]) -> None:
    assert "also       skipped: no GPU\n" in printed(capsys, manifest, Also("tensorrt", skipped="no GPU"))
    assert "also       job/a, for tensorrt\n" in printed(capsys, manifest, Also("tensorrt", Path("job/a")))


@pytest.mark.parametrize("simulated", [False, True])
def test_the_speed_up_in_another_runtime_stands_beside_the_first(
    manifest: Manifest, capsys: pytest.CaptureFixture[str], simulated: bool
) -> None:
    timings = PerNetwork(Timing.of([3e6] * 6), Timing.of([2e6] * 6))
    lines = printed(capsys, manifest, Also("torch:cpu", Path("a"), timings=timings, simulated=simulated)).splitlines()
    first = next(index for index, line in enumerate(lines) if "latency, ms" in line)
    name = "in torch:cpu, SIMULATED, ms" if simulated else "in torch:cpu, ms"
    cells = [cell.strip() for cell in lines[first + 1].split("│")[1:-1]]
    assert cells == [name, "3.000 (3.000 to 3.000)", "2.000 (2.000 to 2.000)", "1.50x"]


@pytest.mark.parametrize("name", ["[bold]", "[/x]", "a[0]", ":smile:", "[red]b[/red]"])
def test_names_are_printed_as_they_are(manifest: Manifest, capsys: pytest.CaptureFixture[str], name: str) -> None:
    changes = {"model": name, "metric": name, "device": replace(manifest.device, name=name, settings=f"set {name}")}
    print_result(Result(manifest.model_copy(update=changes), Path(name)))
    text = capsys.readouterr().out
    for told in (f"test {name} ", f"on {name},", f"set {name}\n", f"report     {name}/report.html\n"):
        assert told in text
    assert name in text.splitlines()[0]


@pytest.mark.parametrize("metric", [None, "[bold]"])
def test_what_budgets_cost_is_told_whole(capsys: pytest.CaptureFixture[str], metric: str | None) -> None:
    budgets = tuple(
        ExploredBudget(f"0.{9 - n}", 1 + n, 1 + n / 3, 12.34567 / n, n, n / 7, 0.9, 300.0 / n) for n in range(1, 6)
    )
    found = Exploration("[red]m[/red]", "a device", True, metric, 1024, 0.19, 0.93, budgets, False, "")
    print_exploration(found, Path("[a]/explore.html"))
    text = capsys.readouterr().out
    assert "[red]m[/red]: what budgets cost" in text and "[a]/explore.html" in text and "SIMULATED" in text
    for row in found.rows:
        cells = [cell for cell in row if cell]
        assert any(" ".join(cells) in " ".join(line.split()) for line in text.splitlines())
    assert "should take, without fine-tuning" in " ".join(text.split())
    assert all(f" {time}" in text for time in ("5 min", "2 min", "75 s", "60 s"))
