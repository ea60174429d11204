"""What each command prints, what it writes, and what it leaves alone."""

from __future__ import annotations

import shlex
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import DELIVERED

FIGURES = {"latency_ms", "latency_ci_ms", "accuracy", "layers", "parameters", "flops"} | {
    "depth",
    "peak_activation_bytes",
    "latency_p90_ms",
    "latency_p99_ms",
}


def test_inspect_tells_layers_skips_breaks_and_counts(run: Any, desk: Any) -> None:
    ran = run("inspect", desk.folder / "model.py", "--json")
    assert ran.code == 0 and ran.err == ""
    found = ran.json
    assert found.keys() == {
        "model", "inputs", "outputs", "notes", "layers", "skips", "breaks", "convolutions", "replaceable",
        "replaceable_in_chains", "irreplaceable", "regions", "choices", "admitted", "signatures", "largest_merge",
        "channel_groups", "fixed_channels", "no_onnx",
    }  # fmt: skip
    assert [item["shape"] for item in found["inputs"]] == [[1, 8, 8]]
    assert [layer["name"] for layer in found["layers"]] == ["stem", "one", "two", "down"]
    assert [(skip["start"], skip["end"]) for skip in found["skips"]] == [(1, 3)]
    assert found["choices"] > found["signatures"] > 4 and all(item["reason"] for item in found["breaks"])
    largest = found["largest_merge"]
    assert largest["convolutions"] >= 2 and largest["into"].count("k") == 1
    text = run("inspect", desk.folder / "model.py").out
    assert f"{largest['convolutions']} convolutions ({largest['block']}) into one" in text
    assert "skip in chain 0: tensor 1 to layer 3" in text and f"{found['choices']} candidate choices" in text


PLAIN_AND_ODD = """
from torch import nn

INPUT_SHAPE = (4, 9, 9)

def model():
    odd = nn.Conv2d(8, 8, 3, stride=(1, 2), padding=2, dilation=2, groups=8)
    return nn.Sequential(nn.Conv2d(4, 8, (3, 5), padding=(1, 2)), nn.ReLU(), odd, nn.ReLU(), nn.Conv2d(8, 4, 2, 2))
"""


def test_inspect_says_of_convolutions_what_is_not_usual(run: Any, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(PLAIN_AND_ODD)
    rows = [
        line.split("│")[4].strip() for line in run("inspect", tmp_path / "model.py").out.splitlines() if ">" in line
    ]
    assert rows == ["4>8 k3x5", "8>8 k3x3 s1x2 d2x2 g8", "8>4 k2x2 s2x2"]


def test_inspect_says_what_compress_cannot_write(run: Any, desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It passed, and compress failed."""
    monkeypatch.setenv("COLUMNS", "400")
    model = desk.folder / "model.py"
    assert run("inspect", model, "--json").json["no_onnx"] == []
    model.write_text(model.read_text().replace("x = self.down(x)", "x = self.down(torch.special.bessel_j0(x))"))
    (found,) = run("inspect", model, "--json").json["no_onnx"]
    assert found["operator"] == "aten.special_bessel_j0.default" and "No ONNX function found" in found["reason"]
    assert f"no form in ONNX, without which compress cannot begin: {found['operator']} at " in run("inspect", model).out


@pytest.mark.parametrize("name", ["[bold]", "[/x]"])
def test_names_are_printed_as_they_are(
    run: Any, desk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    model = tmp_path / name / "model.py"
    model.parent.mkdir(parents=True)
    model.write_bytes((desk.folder / "model.py").read_bytes())
    ran = run("inspect", model)
    assert ran.code == 0 and f"{name}/model.py" in "".join(ran.out.split())  # it may be wrapped


def test_compress_prints_one_object_and_nothing_else(first_run: Any) -> None:
    _, ran = first_run
    assert ran.code in DELIVERED, ran.err
    found = ran.json  # which does not parse if anything else was printed, by the task file for one
    assert "the task is loading" in ran.err
    assert found.keys() - {"warnings"} == {
        "original", "compressed", "speedup", "predicted_latency_ms", "prediction_error", "prediction_missed", "proof",
        "engine", "manifest", "report"
    }  # fmt: skip
    assert found["original"].keys() == found["compressed"].keys() == FIGURES
    assert found["speedup"] == pytest.approx(found["original"]["latency_ms"] / found["compressed"]["latency_ms"])
    assert all(Path(found[name]).is_file() for name in ("engine", "manifest", "report"))
    assert "test accuracy" in ran.err and "Traceback" not in ran.err


def test_compress_shows_people_a_table(run: Any, done: Any) -> None:
    ran = run("compress", *done.job)
    assert ran.code in DELIVERED and "test accuracy" in ran.out and "proof" in ran.out and "manifest.json" in ran.out
    assert "measure latencies" not in ran.err, "the plan is made"


def test_a_task_is_known_by_what_it_is_and_not_by_its_name(run: Any, desk: Any) -> None:
    """Labels swapped in the same file: nothing that was measured before holds."""
    solve, out, task = ("solve", *desk.stage, "--budget", "0.9"), desk.folder / "out", desk.folder / "task.py"
    assert [run(name, *desk.stage).code for name in ("profile", "importance")] == [0, 0] and run(*solve).code == 0
    table, plan = (out / "importance.jsonl").read_bytes(), (out / "plan.json").read_bytes()
    ran = run("importance", *desk.stage)
    assert (ran.code, (out / "importance.jsonl").read_bytes()) == (0, table) and "warning" not in ran.err
    task.write_text(task.read_text().replace("labels = torch.arange(count)", "labels = (1 + torch.arange(count))"))
    before = desk.files()
    ran = run("importance", *desk.stage, "--dry-run", "--json")
    assert ran.json["to_measure"] > 4 and ran.err.count("warning: importance table") == 1
    ran = run(*solve)
    assert ran.code == 3 and "none of its rows hold" in ran.err and desk.files() == before
    ran = run("importance", *desk.stage)
    assert ran.code == 0 and ran.err.count("none of its rows hold, and they are measured again") == 1
    (aside,) = out.glob("importance-*.jsonl")
    assert aside.read_bytes() == table and str(aside) in ran.err
    assert run(*solve).code == 0 and (out / "plan.json").read_bytes() != plan


def test_dry_runs_measure_and_write_nothing(run: Any, desk: Any) -> None:
    before = desk.files()
    found = {name: run(name, *desk.stage, "--dry-run", "--json") for name in ("profile", "importance")}
    found["compress"] = run("compress", *desk.job, "--dry-run", "--json")
    assert [ran.code for ran in found.values()] == [0, 0, 0]
    assert found["profile"].json["to_measure"] > 4 and found["importance"].json["to_measure"] > 4
    assert found["compress"].json.keys() == {"stages", "seconds"}
    assert found["compress"].json["stages"][0]["stage"] == "profile"
    for name in ("profile", "importance"):
        assert "to measure into" in run(name, *desk.stage, "--dry-run").out
    assert "together" in run("compress", *desk.job, "--dry-run").out
    assert desk.files() == before


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_each_precision_has_a_profile_of_its_own(run: Any, done: Any, precision: str) -> None:
    found = run("profile", *done.stage, "--precision", precision, "--dry-run", "--json").json
    assert found["profile"].endswith(f"-{precision}.jsonl") and found["to_measure"] > 4
    assert run("profile", *done.stage, "--dry-run", "--json").json["to_measure"] == 0


def test_stages_find_what_was_measured(run: Any, done: Any) -> None:
    before = done.files()
    profile, importance = run("profile", *done.stage, "--json"), run("importance", *done.stage, "--json")
    counted = {"measured", "left", "seconds", "rows", "ok", "degraded", "failed"}
    assert profile.json.keys() == {"profile", "networks"} | counted
    assert profile.json["rows"] == sum(profile.json[status] for status in ("ok", "degraded", "failed")) > 4
    assert importance.json.keys() == {"table", "rows"} and importance.json["rows"] > 0
    solved = run("solve", *done.stage, "--budget", "0.9", "--json").json
    assert solved["latency_ms"] <= solved["budget_ms"] < solved["original_ms"]
    assert sum(block["end"] - block["start"] for block in solved["blocks"]) == 4
    after = done.files()
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed <= {name for name in after if name.startswith("profiles") or name.endswith("plan.json")}
    assert "signatures in all" in run("profile", *done.stage).out
    assert "choices" in run("importance", *done.stage).out
    assert "predicted" in run("solve", *done.stage, "--budget", "0.9").out


def test_solve_tells_a_plan_of_a_model_as_one_of_tables(run: Any, done: Any) -> None:
    plan = done.folder / "out" / "plan.json"
    before = plan.read_bytes()
    frontier = run("solve", *done.stage, "--frontier", "--json").json["frontier"]
    assert [point.keys() for point in frontier] == [{"latency_ms", "objective"}] * len(frontier)
    assert run("solve", *done.stage, "--frontier", "--csv").out.startswith("latency_ms,objective\n")
    assert plan.read_bytes() == before, "it decides for none"
    found = run("solve", *done.stage, "--budget", "1", "--json").json
    assert found.keys() == {
        "method", "budget_ms", "latency_ms", "objective", "probability", "blocks", "original_ms", "plan"
    }  # fmt: skip
    assert all(
        block.keys() == {"start", "end", "kernel", "depthwise", "latency_ms", "importance"} for block in found["blocks"]
    )
    assert plan.read_bytes() != before and 0 <= found["probability"] <= 1
    assert run("solve", *done.stage, "--budget", "1", "--confidence", 0.2, "--json").json["probability"] >= 0.2
    assert len(run("solve", *done.stage, "--budget", "1", "--count", 2, "--json").json["plans"]) == 2
    assert run("solve", *done.stage, "--csv").out.startswith("start,end,")


def test_compress_shows_what_it_measured(run: Any, done: Any) -> None:
    ran = run("compress", *done.job, "--refine", 2, "--no-finetune")
    assert ran.code in DELIVERED and "plan 1: predicted" in ran.out and ran.out.count(", chosen") == 1
    assert "with probability" in ran.out and "measure plans" in ran.err


def test_verify_says_what_agrees(run: Any, done: Any) -> None:
    manifest = done.folder / "out" / "manifest.json"
    found = run("verify", "--manifest", manifest, "--json")
    assert found.code == 0 and found.err == "" and found.json.keys() == {
        "manifest", "files", "engine_error", "samples", "runtime", "runtime_version", "device"
    }  # fmt: skip
    assert "6 files as delivered" in run("verify", "--manifest", manifest).out
    with open(done.folder / "out" / "compressed.engine.onnx", "ab") as file:
        file.write(b"x")
    refused = run("verify", "--manifest", manifest, "--json")
    assert refused.code == 5 and refused.out == "" and "is not the file that was delivered" in refused.err


def test_build_makes_an_engine_of_any_batch(run: Any, done: Any, tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    shutil.copy(done.folder / "out" / "compressed.onnx", model)
    found = run("build", model, "--batch", 3, "--json").json
    assert found["engine"] == str(tmp_path / "net.engine.onnx") and found["inputs"] == {"input": [3, 1, 8, 8]}
    ran = run("build", model, "--output", tmp_path / "sub" / "e.onnx")
    assert ran.code == 0 and (tmp_path / "sub" / "e.onnx").is_file() and "batch 8" in ran.out


def test_a_file_holds_the_settings_and_the_command_line_goes_first(run: Any, done: Any) -> None:
    lines = [f"{name} = '{done.source}/{file}'" for name, file in [("model", "model.py"), ("task", "task.py")]]
    lines += [f"weights = '{done.source}/weights.safetensors'", f"output = '{done.folder}/nowhere'"]
    lines += ["max-layers = 2", "max-kernel = 5", "calibration = 64", "held-out = 64", "epochs = 1", "budget = 0.9"]
    (done.folder / "job.toml").write_text("\n".join(lines))
    at = ["--output", done.folder / "out", "--profiles", done.folder / "profiles"]
    assert run("solve", "--config", done.folder / "job.toml", *at).code == 0
    assert not (done.folder / "nowhere").exists()


def test_explore_says_what_budgets_cost_and_delivers_nothing(run: Any, done: Any) -> None:
    before = done.files()
    ran = run("compress", *done.job, "--explore", "--json")
    assert ran.code == 0, ran.err
    found = ran.json
    assert found.keys() == {"original", "budgets", "report"}
    figures = {"budget", "predicted_speedup", "speedup", "latency_ms", "changed", "held_out_loss", "held_out_accuracy"}
    assert [one.keys() for one in found["budgets"]] == [figures | {"finishing_seconds"}] * len(found["budgets"])
    by_speed = sorted(found["budgets"], key=lambda one: one["speedup"])
    seconds = [one["finishing_seconds"] for one in by_speed]
    assert seconds == sorted(seconds, reverse=True), "a faster network is trained sooner"
    page = done.folder / "out" / "explore.html"
    assert found["report"] == str(page) and "--explore --json" in unescape(page.read_text())
    kept = {name: content for name, content in done.files().items() if name in before}
    assert kept == before, "what was delivered is as it was"
    people = run("compress", *done.job, "--explore")
    assert people.code == 0 and all(f" {one['budget']} " in people.out for one in found["budgets"])
    assert f"picture    {page}" in people.out and "the job with that budget should take" in " ".join(people.out.split())


def test_explore_is_announced_by_a_dry_run(run: Any, done: Any) -> None:
    before = done.files()
    assert "5 plans" in run("compress", *done.job, "--explore", "--dry-run").out
    assert done.files() == before


def test_the_report_has_the_command_that_makes_it(first_run: Any) -> None:
    desk, _ = first_run
    page = unescape((desk.folder / "out" / "report.html").read_text())
    typed = shlex.join(["trt-layermerge", "compress", *map(str, desk.job), "--json"])
    assert typed in page and "trt-layermerge verify --manifest" in page
