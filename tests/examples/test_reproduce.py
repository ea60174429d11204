"""The papers' rows: what is published of them agrees with itself, every command parses, and one runs on made images."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from types import ModuleType

import pytest

from trt_layermerge.cli.commands.compress import command as compress
from trt_layermerge.cli.commands.importance import command as importance
from trt_layermerge.cli.commands.solve import command as solve
from trt_layermerge.cli.main import main
from trt_layermerge.cli.options import settings_of
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.settings import job_of
from trt_layermerge.planning.budget import Budget

ROOT = Path(__file__).parents[2]


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / "papers" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


made, reproduce = _module("made"), _module("reproduce")
NETWORKS = list(reproduce.PUBLISHED)
ROWS = [(name, row["budget"]) for name in NETWORKS for row in reproduce.PUBLISHED[name]["rows"]]


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def job_of_command(words: list[str]) -> Job:
    """The job that a ``compress`` command line says."""
    context = compress.make_context("compress", words[1:])
    given = {name: value for name, value in context.params.items() if name not in ("as_json", "dry_run", "explore")}
    return job_of(**settings_of(given))


@pytest.mark.parametrize(("name", "budget"), ROWS)
def test_a_row_is_the_job_that_was_published(name: str, budget: float, tmp_path: Path) -> None:
    job = job_of_command(reproduce.job(name, budget, tmp_path, False, ["--task", "imagefolder:/data/imagenet"]))
    assert job.budget == Budget.parse(str(budget))
    assert (job.method, job.estimator.name, job.options.precision) == ("layermerge", "finetune", "fp32")
    assert job.batch == (64 if name == "ddpm" else 128)
    assert {job.runtime, job.also or "tensorrt"} == ({"torch", "tensorrt"})
    assert job.output == reproduce.output(tmp_path, name, budget)
    assert job.recipe is not None and 0 < job.recipe.decouple * 900_000 < 1, "gone from the second step on"
    assert job.recipe.steps == 100_000 if name == "ddpm" else job.recipe.epochs >= 90


@pytest.mark.parametrize("name", NETWORKS)
def test_a_configuration_alone_is_the_first_row(name: str) -> None:
    first = reproduce.PUBLISHED[name]["rows"][0]["budget"]
    job = job_of_command(["compress", "--config", f"examples/papers/{name}.toml"])
    assert (job.budget, job.output) == (Budget.parse(str(first)), reproduce.output(Path("engines/papers"), name, first))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("small", [False, True])
def test_every_row_is_planned_from_one_table_of_importance(name: str, small: bool, tmp_path: Path) -> None:
    first, *others = reproduce.planning(name, tmp_path, small, ["--weights", "weights.pth"])
    contexts = [importance.make_context(*_parted(first)), *(solve.make_context(*_parted(each)) for each in others)]
    assert [context.params["budget"] for context in contexts[1:]] == [
        str(budget) for one, budget in ROWS if one == name
    ]
    for key, value in (("runtime", "estimate:rtx-2080-ti"), ("estimator", "finetune"), ("method", "layermerge")):
        assert {context.params[key] for context in contexts} == {value}
    assert len({context.params["output"] for context in contexts}) == 1


def _parted(words: list[str]) -> tuple[str, list[str]]:
    return words[0], words[1:]


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_published_agrees_with_itself(name: str) -> None:
    """A budget is T0's share of one sum; with less of it networks are faster, and, beside the first, less accurate."""
    paper = reproduce.PUBLISHED[name]
    rows = paper["rows"]
    whole = median(row["t0"] / row["budget"] for row in rows)
    assert all(row["t0"] / whole == pytest.approx(row["budget"], abs=0.006) for row in rows)
    for kind in ("t0", "budget"):
        assert [row[kind] for row in rows] == sorted((row[kind] for row in rows), reverse=True)
    for kind in ("pytorch", "tensorrt"):
        speedups = [row[kind] for row in rows if kind in row]
        assert speedups == sorted(speedups) and all(1 < speedup < 1 / rows[-1]["budget"] for speedup in speedups)
    lost = [(paper["original"] - row["quality"]) * (1 if paper["quality"] == "accuracy" else -1) for row in rows]
    assert lost == sorted(lost) and all(-0.2 < one < 5 for one in lost)


TINY = """
from torch import nn

def layer(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())

def net():
    layers = layer(3, 16), layer(16, 16), layer(16, 16)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of jobs with one row from a hundred made images; the network, which takes longest, is a small one."""
    folder = tmp_path_factory.mktemp("papers")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "tiny.py").write_text(TINY)
        tiny = f"{folder / 'tiny.py'}:net"
        made.write_weights(tiny, reproduce.made_weights(folder, "resnet34"))
        options = [tiny, "--also", "estimate:t4"]
        main(reproduce.job("resnet34", 0.71, folder, True, options))
        yield folder


def test_a_row_runs_on_a_hundred_made_images(finished: Path) -> None:
    place = reproduce.output(finished, "resnet34", 0.71)
    manifest = json.loads((place / "manifest.json").read_text())
    assert manifest["plan"]["method"] == "layermerge" and manifest["speedup"] > 1.3
    quality, _, tensorrt, data, where = reproduce.measured_row(place)
    assert 0 <= float(quality) <= 100 and tensorrt == "-" and data == "images 32x32"
    assert where.startswith("estimate:rtx-2080-ti ") and where.endswith(", simulated")


def test_tables_hold_what_is_published_and_what_was_measured(finished: Path) -> None:
    text = "\n".join(reproduce.tables(finished))
    assert text.count("| - | - | - | - | - |") == len(ROWS) - 1
    for said in (
        "| 71% | 74.26 | 1.36x | 1.25x |",
        "| 33% | 70.99 | 2.49x | 2.05x | - |",
        "| 58% | 5.61 | 1.27x | - |",
    ):
        assert said in text


@pytest.mark.parametrize(("code", "rows"), [(0, 3), (4, 3), (7, 3), (8, 3), (130, 1), (3, 1)])
def test_the_next_row_is_run_where_a_budget_is_not_met(
    code: int, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def job_ends(command: list[str]) -> int:
        ran.append(command)
        folder = Path(command[command.index("--output") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "importance.jsonl").exists():
            (folder / "importance.jsonl").write_text(f"of row {len(ran)}")
        return code

    monkeypatch.setattr(reproduce, "tell_and_run", job_ends)
    assert reproduce.run("resnet34", tmp_path, False, []) == code and len(ran) == rows
    assert {table.read_text() for table in tmp_path.rglob("importance.jsonl")} == {"of row 1"}
