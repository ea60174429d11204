"""Torch-Pruning's iterative mode, as it is compared: rungs are snapshots of one path, the same in every process."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_model
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.methods import bench as benches
from benchmarks.methods import iterative_pruning
from benchmarks.methods.bench import Bench
from benchmarks.methods.cases import CASES
from benchmarks.methods.iterative_pruning import IterativePruning, IterativeRung, path_file
from benchmarks.methods.pruning import PrunedRung, unpruned
from trt_layermerge.network.source import load_source

pytest.importorskip("torch_pruning", reason="pip install '.[peers]'")

ASSETS = Path(__file__).parents[1] / "pipeline" / "assets"
MODEL = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(1, 24, 3), nn.Conv2d(24, 24, 3, padding=1), nn.Conv2d(24, 32, 3)
        self.norms = nn.ModuleList([nn.BatchNorm2d(24), nn.BatchNorm2d(24), nn.BatchNorm2d(32)])
        self.classifier = nn.Linear(32, 2)

    def forward(self, images):
        begun = self.norms[0](self.first(images)).relu()
        added = (begun + self.norms[1](self.second(begun))).relu()
        return self.classifier(self.norms[2](self.third(added)).relu().mean((2, 3)))


def net():
    return Net()


INPUT_SHAPE = (1, 8, 8)
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A small network with random weights."""
    (tmp_path / "model.py").write_text(MODEL)
    monkeypatch.setattr(benches, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(iterative_pruning, "STEP_IMAGES", 32)
    spec, weights = f"{tmp_path / 'model.py'}:net", tmp_path / "weights.safetensors"
    torch.manual_seed(0)
    save_model(load_source(spec).module, str(weights))
    given = {"model": spec, "weights": weights, "task": ASSETS / "task.py", "pruned": ((2,), 0.6)}
    return Bench("small", replace(CASES["resnet20"], **given))


def channels(module: nn.Module) -> int:
    return sum(part.out_channels for part in module.modules() if isinstance(part, nn.Conv2d))


def rungs(bench: Bench) -> list[IterativeRung]:
    found = list(IterativePruning("", 2).rungs(bench))
    assert all(isinstance(rung, IterativeRung) for rung in found)
    return found


def test_rungs_prune_about_the_share_they_are_called_by_each_more_than_the_one_before(bench: Bench) -> None:
    full, ladder = channels(unpruned(bench)), rungs(bench)
    left = [channels(rung.shape(bench)) for rung in ladder]
    assert all(more >= fewer for more, fewer in pairwise(left))
    assert ladder[-1].share == 0.6
    for rung, count in zip(ladder, left, strict=True):
        once = channels(PrunedRung("", None, "taylor", 2, True, rung.share).shape(bench))
        assert count == pytest.approx(once, abs=0.15 * full)


def test_what_another_process_wrote_is_pruned_and_nothing_is_ranked_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung, images = rungs(bench)[10], torch.randn(2, 1, 8, 8)
    before = rung.start(bench)(images)
    iterative_pruning._read.cache_clear()
    monkeypatch.setattr(iterative_pruning, "sum_gradients", lambda *_: pytest.fail("ranked again"))
    assert torch.equal(rung.start(Bench(bench.name, bench.case))(images), before)


def test_each_step_ranks_by_gradients_of_what_is_left(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def counted(bench: Bench, model: nn.Module, images: int) -> None:
        iterative_pruning_gradients(bench, model, images)
        seen.append(channels(model))

    iterative_pruning_gradients = iterative_pruning.sum_gradients
    monkeypatch.setattr(iterative_pruning, "sum_gradients", counted)
    left = channels(rungs(bench)[-1].start(bench))
    assert len(seen) == 30
    assert seen[0] == channels(unpruned(bench))
    assert left <= seen[-1] < seen[0]


def test_other_weights_have_another_path(bench: Bench) -> None:
    before = path_file(bench, 2)
    bench.case.weights.write_bytes(bench.case.weights.read_bytes() + b" ")
    assert path_file(bench, 2) != before


def test_what_is_delivered_gives_the_outputs_of_what_was_pruned(bench: Bench) -> None:
    rung, images = rungs(bench)[-1], torch.randn(4, 1, 8, 8)
    pruned = rung.start(bench)
    with torch.no_grad():
        torch.testing.assert_close(rung.finish(bench, pruned)(images), pruned(images), rtol=1e-4, atol=1e-5)
