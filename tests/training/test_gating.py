"""A gated network begins as the original, its gates stay in range, and a penalty closes those that nothing holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from trt_layermerge.errors import UsageError
from trt_layermerge.network.network import Network
from trt_layermerge.training.gating import Gate, GatedActivation, closed, gated, gates_of, nonlinearity
from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Classification

SHAPE = (2, 4, 4)


def plain() -> list[nn.Module]:
    return [
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.PReLU(4),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(4, 4, 3, padding=1),
    ]


@pytest.fixture(scope="module")
def network(quick: Callable[[nn.Module, tuple[int, ...]], Network]) -> Network:
    torch.manual_seed(0)
    return quick(nn.Sequential(*plain(), nn.Flatten(), nn.Linear(4 * 16, 3)), SHAPE)


@pytest.fixture
def model(network: Network) -> nn.Module:
    return gated(network, network.layers).module


def images(seed: int = 0) -> Tensor:
    return torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(seed))


def learned(model: nn.Module) -> list[float]:
    return [gate.value.mean().item() for gate in gates_of(model)]


def test_it_begins_as_the_very_function_of_the_original(network: Network, model: nn.Module) -> None:
    with torch.no_grad():
        assert torch.equal(model(images()), network.module(images()))
    assert learned(model) == [0, 0, 0] and nonlinearity(model).item() == 3
    assert not any(isinstance(part, Gate) for part in network.module.modules())


def test_closed_gates_leave_no_activation(network: Network, model: nn.Module) -> None:
    linear = nn.Sequential(*(part for part in plain() if isinstance(part, (nn.Conv2d, nn.BatchNorm2d))))
    weights = [network.module.get_submodule(name) for name in ("0", "1", "3", "5", "7")]
    for part, source in zip(linear, weights, strict=True):
        part.load_state_dict(source.state_dict())
    head = nn.Sequential(nn.Flatten(), network.module.get_submodule("9"))
    with torch.no_grad():
        with closed(model, network.layers):
            torch.testing.assert_close(model(images()), head(linear.eval()(images())))
        assert torch.equal(model(images()), network.module(images())), "they are open again"


def test_an_activation_without_a_gate_cannot_be_closed(network: Network) -> None:
    module = gated(network, network.layers[:1]).module
    with closed(module, [network.layers[0], network.layers[3]]):  # the last one has no activation at all
        pass
    with pytest.raises(UsageError, match="behind 3 has no gate"), closed(module, network.layers):
        pass
    assert learned(module) == [0], "what was closed before is open again"


@given(own=st.floats(0, 1), floor=st.floats(0, 1))
def test_what_is_left_of_an_activation(own: float, floor: float) -> None:
    act = GatedActivation(nn.ReLU(), 3)
    nn.init.constant_(act.gate.own, own)
    act.gate.floor = floor
    a = floor + (1 - floor) * own
    assert nonlinearity(act).item() == pytest.approx(1 - a, abs=1e-6)
    x = torch.linspace(-1, 1, 12).view(1, 3, 2, 2)
    torch.testing.assert_close(act(x), nn.functional.leaky_relu(x, a), atol=1e-6, rtol=0)


def trained(model: nn.Module, task: Classification, folder: Path, **more: float) -> nn.Module:
    recipe = Recipe(**{"epochs": 2, "lr": 0.02, "checkpoint_seconds": 3600} | more)  # type: ignore[arg-type]
    fine_tune(model, task, recipe, checkpoint=folder / "run.checkpoint")
    return model


def test_a_penalty_closes_gates_and_none_leaves_its_range(
    model: nn.Module, network: Network, task: Classification, tmp_path: Path
) -> None:
    left = []
    for number, penalty in enumerate((0.0, 1.0, 100.0)):
        (tmp_path / str(number)).mkdir()
        one = trained(gated(network, network.layers).module, task, tmp_path / str(number), gate_penalty=penalty)
        values = torch.cat([gate.own for gate in gates_of(one)])
        assert ((values >= 0) & (values <= 1)).all()
        left.append(nonlinearity(one).item())
    assert left[0] > left[1] > left[2] == 0


def test_training_gates_resumes_exactly(network: Network, task: Classification, tmp_path: Path) -> None:
    def stop(done: int, total: int, label: str) -> None:
        if done == 4:
            raise KeyboardInterrupt

    recipe = Recipe(epochs=2, lr=0.02, gate_penalty=2.0, checkpoint_seconds=3600)
    whole = gated(network, network.layers).module
    fine_tune(whole, task, recipe, checkpoint=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fine_tune(gated(network, network.layers).module, task, recipe, checkpoint=tmp_path / "stopped", progress=stop)
    for resumed_at in (4, 10):  # and once more when it is done
        stopped = gated(network, network.layers).module
        assert fine_tune(stopped, task, recipe, checkpoint=tmp_path / "stopped").resumed_at == resumed_at
        state = stopped.state_dict()
        assert [name for name, value in whole.state_dict().items() if not torch.equal(value, state[name])] == []
    assert 0 < nonlinearity(whole).item() < 3
