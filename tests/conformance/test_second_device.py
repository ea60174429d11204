"""Importance, fits and training on a second device: the numbers of the CPU, and everything is back there afterwards.

The second device is a double (``tests/doubles/gpu.py``): its tensors compute on the CPU, and refuse those of the CPU.
NOTHING HERE HAS RUN ON A GPU. What is shown is that every tensor on the way is where the network is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from tests.doubles.gpu import GPU, GpuTensor, gpu
from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.importance import evaluator
from trt_layermerge.importance.estimators.base import Samples
from trt_layermerge.importance.estimators.finetune import Finetune
from trt_layermerge.importance.estimators.gates import Gates
from trt_layermerge.importance.estimators.product import Product
from trt_layermerge.importance.filling import Estimation, measure, table_key
from trt_layermerge.importance.table import ImportanceRow, ImportanceTable
from trt_layermerge.merging import heads, patches, ridge
from trt_layermerge.merging.proof import prove_network
from trt_layermerge.merging.reconstruction import PAPERS, Strength
from trt_layermerge.merging.sequential import Compression, execute_on
from trt_layermerge.network.device import CPU, device_of, placed
from trt_layermerge.network.inputs import Values, examples
from trt_layermerge.network.network import Network, load_network, trace
from trt_layermerge.training.decoupling import decouple
from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.process_group import Alone
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Classification


class Residual(nn.Module):
    """Its shortcut has a stride, by an average."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(4, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4)
        self.b, self.act = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()
        self.skip = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(4, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.b(self.act(self.norm(self.a(x)))) + self.skip(x))


class Plain(nn.Module):
    """Groups, a skip that is nothing but an addition, a norm by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 4, (1, 3), padding=(0, 1))
        self.norm, self.alone, self.act = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.alone(self.b(self.act(self.norm(self.a(x)))) + x))


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    ends = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    module = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), Plain(), Residual(), *ends)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.2, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return trace("net", module.eval(), (2, 8, 8))


@pytest.fixture(scope="module")
def unet() -> Network:
    """Of two inputs, with group norms, shifts, and numbers that its graph makes."""
    return load_network(f"{Path(__file__).parent / 'unet.py'}:unet")


@pytest.fixture(scope="module")
def task() -> Classification:
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(80, 2, 8, 8, generator=generator), torch.randint(0, 3, (80,), generator=generator)
    data = torch.utils.data.TensorDataset(images, labels)
    return Classification("double", data, data, batch_size=8, held_out=40, calibration=24)


@contextmanager
def unmoved(module: nn.Module) -> Iterator[None]:
    """See that a module ends on the CPU with the values that it had."""
    before = {name: value.clone() for name, value in module.state_dict().items()}
    yield
    for name, value in module.state_dict().items():
        assert not isinstance(value, GpuTensor) and torch.equal(value, before[name]), name


def dual(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep patches beside the matrix of a smaller kernel, as for kernels beyond ``LARGEST_SYSTEM``."""
    monkeypatch.setattr(patches, "LARGEST_SYSTEM", 20)


def singular(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every system as if its ridge had been lost in rounding."""
    real = ridge.factored
    monkeypatch.setattr(ridge, "factored", lambda system: (real(system)[0], False))


# Importance


def rows(network: Network, choices: Iterable[Choice], task: Classification, how: Estimation, file: Path) -> Any:
    table = ImportanceTable.open(file, table_key(network, task, how))
    measure(network, choices, task, table, how)
    return [replace(row, seconds=0) for row in table]


def numbers(row: ImportanceRow) -> list[float]:
    return [value for value in astuple(row) if isinstance(value, float)]


def same_rows(here: list[ImportanceRow], there: list[ImportanceRow]) -> None:
    assert [row.choice for row in here] == [row.choice for row in there] and here
    for one, other in zip(here, there, strict=True):
        assert numbers(other) == pytest.approx(numbers(one), rel=1e-5, abs=1e-7), one.choice


HOWS = {
    "fit": Estimation(samples=Samples(24, 16)),
    "product": Estimation(Product(), Samples(24, 16)),
    "finetune": Estimation(Finetune(share=0.5, lr=0.05), Samples(8, 8)),
    "gates": Estimation(Gates(distillation=0.5), Samples(8, 16)),
}


def measurable(network: Network, estimator: str) -> list[Choice]:
    """Some of all that it can measure; fewer where every one is trained."""
    choices = choices_of(network, Limits(max_layers=3))
    if estimator == "gates":
        return [c for c in choices if c.kind is Kind.MERGE and len(c.kept) == len(c.block) > 1]
    if estimator == "product":
        return [c for c in choices if c.kind is not Kind.FIT][::2]
    return (
        [c for kind in Kind for c in choices if c.kind is kind][::9] if estimator == "finetune" else list(choices[::3])
    )


@pytest.mark.parametrize("how", [pytest.param(how, id=name) for name, how in HOWS.items()])
def test_importance_is_what_it_is_on_the_cpu(
    network: Network, task: Classification, how: Estimation, tmp_path: Path
) -> None:
    choices = measurable(network, how.estimator.name)
    with mock.patch.object(evaluator, "IMAGES_PER_FEATURE", 2):  # so that the classifier is re-solved
        here = rows(network, choices, task, how, tmp_path / "here.jsonl")
        with unmoved(network.module), gpu(), placed(network.module, GPU):
            there = rows(network, choices, task, how, tmp_path / "there.jsonl")
    same_rows(here, there)


@pytest.mark.parametrize("change", [dual, singular])
def test_importance_by_the_other_solvers(
    network: Network, task: Classification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[..., None]
) -> None:
    change(monkeypatch)
    choices = choices_of(network, Limits(max_layers=2))[::3]
    here = rows(network, choices, task, HOWS["fit"], tmp_path / "here.jsonl")
    with unmoved(network.module), gpu(), placed(network.module, GPU):
        there = rows(network, choices, task, HOWS["fit"], tmp_path / "there.jsonl")
    same_rows(here, there)


# Plans


def tiled(network: Network, kinds: Iterable[Kind], longest: int) -> list[Choice]:
    """A plan that takes the kinds in turn, each block as long as may be."""
    wanted, plan = list(kinds), []
    for chain in network.chains:
        at = 0
        while at < len(chain):
            here = [c for c in choices_of(network) if (c.block.chain, c.block.start) == (chain.index, at)]
            here = [c for c in here if len(c.block) <= longest]
            kind = wanted[len(plan) % len(wanted)]
            plan.append(max(here, key=lambda c: (c.kind is kind, len(c.block), len(c.kept))))
            at = plan[-1].block.end
    return plan


PLANS = {
    "fits": ([Kind.FIT], 2),
    "fits, and layers re-solved": ([Kind.FIT, Kind.KEEP], 1),
    "merges": ([Kind.MERGE], 4),
    "all kinds": ([Kind.KEEP, Kind.MERGE, Kind.FIT, Kind.IDENTITY], 3),
}


def executed(network: Network, plan: list[Choice], batches: list[Values], strength: Strength) -> Compression:
    """On the second device: nothing of it is left there."""
    seen = set()
    with unmoved(network.module), gpu():
        made = execute_on(GPU, network, plan, batches, lambda *_: seen.add(device_of(network.module)), strength)
    assert seen == {GPU}
    for module in (made.merged, made.linearised):
        assert not any(isinstance(value, GpuTensor) for value in module.state_dict().values())
    for fitted in (*made.fits.values(), *made.refits.values()):
        assert {fitted.convolution.weight.device, fitted.convolution.bias.device} == {CPU}
    return made


def same_compression(here: Compression, there: Compression) -> None:
    assert [proof.block for proof in here.proofs] == [proof.block for proof in there.proofs]
    assert (here.fits.keys(), here.refits.keys()) == (there.fits.keys(), there.refits.keys())
    for one, other in ((here.merged, there.merged), (here.linearised, there.linearised)):
        values = other.state_dict()
        for name, value in one.state_dict().items():
            torch.testing.assert_close(values[name], value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("strength", [Strength(), PAPERS], ids=["ours", "the papers'"])
@pytest.mark.parametrize("plan", [pytest.param(tiling, id=name) for name, tiling in PLANS.items()])
def test_a_plan_is_carried_out_as_on_the_cpu(network: Network, plan: Any, strength: Strength) -> None:
    choices, batches = tiled(network, *plan), [examples(network.inputs, count) for count in (24, 9)]
    here = execute_on(CPU, network, choices, batches, strength=strength)
    there = executed(network, choices, batches, strength)
    same_compression(here, there)
    prove_network(there.linearised, there.merged, batches[0], there.proofs)
    assert here.fits or here.proofs
    again = strength == Strength() and plan == PLANS["fits, and layers re-solved"]
    assert again == any(key.startswith("0:1-2") for key in here.refits), "which has a norm"


@pytest.mark.parametrize("change", [dual, singular])
def test_a_plan_by_the_other_solvers(
    network: Network, monkeypatch: pytest.MonkeyPatch, change: Callable[..., None]
) -> None:
    change(monkeypatch)
    monkeypatch.setattr(heads, "LARGEST_SYSTEM", 20)
    choices, batches = tiled(network, *PLANS["fits"]), [examples(network.inputs, 24)]
    here = execute_on(CPU, network, choices, batches)
    same_compression(here, executed(network, choices, batches, Strength()))


@pytest.mark.parametrize("plan", [PLANS["merges"], PLANS["fits, and layers re-solved"]], ids=["merges", "fits"])
def test_a_unet_too(unet: Network, plan: Any) -> None:
    choices, batches = tiled(unet, *plan), [examples(unet.inputs, 12)]
    here = execute_on(CPU, unet, choices, batches)
    same_compression(here, executed(unet, choices, batches, Strength()))
    assert any(name.endswith("carries.0.weight") for name in here.merged.state_dict()) or here.refits


def test_the_network_is_back_when_a_plan_fails(network: Network) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    plan = tiled(network, *PLANS["merges"])
    with unmoved(network.module), gpu(), pytest.raises(KeyboardInterrupt):
        execute_on(GPU, network, plan, [], stop)


# Training


@pytest.mark.parametrize("changes", [{}, {"average": 0.9, "optimizer": "adam", "lr": 1e-3, "clip_norm": 1.0}])
@pytest.mark.parametrize("decoupled", [False, True])
def test_training_is_what_it_is_on_the_cpu(
    network: Network, task: Classification, tmp_path: Path, changes: dict[str, Any], decoupled: bool
) -> None:
    """Also: it takes up on the CPU what it has begun there."""
    recipe = replace(Recipe(epochs=2, lr=0.05, distillation=0.5, decouple=0.5 if decoupled else 0.0), **changes)
    plan = tiled(network, *PLANS["merges"])

    def model() -> nn.Module:
        return decouple(network, plan) if decoupled else execute_on(CPU, network, plan, []).merged

    def stop(done: int, *_: object) -> None:
        if done == 3:
            raise KeyboardInterrupt

    here, there, resumed = model(), model(), model()
    options = {"teacher": network.module, "group": Alone()}
    fine_tune(here, task, recipe, checkpoint=tmp_path / "here", **options)
    with unmoved(network.module), gpu():
        options["group"] = Alone(GPU)
        fine_tune(there, task, recipe, checkpoint=tmp_path / "there", **options)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(model(), task, recipe, checkpoint=tmp_path / "resumed", progress=stop, **options)
    result = fine_tune(resumed, task, recipe, checkpoint=tmp_path / "resumed", teacher=network.module, group=Alone())
    assert result.resumed_at == 3
    for other in (there, resumed):
        for name, value in here.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-4, atol=1e-6, msg=name)
