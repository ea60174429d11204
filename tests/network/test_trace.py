from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trt_layermerge.errors import ExitCode, ModelError
from trt_layermerge.network.network import load_network, trace
from trt_layermerge.network.trace import normal_form


class Net(nn.Module):
    """Modules by name, and a forward function over them."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def conv(i: int = 4, o: int = 4, k: int = 3, **kwargs: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=kwargs.pop("padding", k // 2), **kwargs)


class InPlace(nn.Module):
    """A unit with everything that writes in place, and the same activation twice."""

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.conv, self.norm = conv(bias=False), nn.BatchNorm2d(4, momentum=0.3, eps=1e-3)
        self.act, self.drop = nn.ReLU(inplace=True), nn.Dropout(p, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(self.conv(F.relu(x))))
        y = self.act(self.drop(y))
        y.mul_(2)
        y += x
        return F.relu6(y)


def nested() -> nn.Module:
    torch.manual_seed(0)
    head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 64, 6), nn.BatchNorm1d(6), nn.Tanh())
    return nn.Sequential(InPlace(), InPlace(), nn.BatchNorm2d(4, momentum=None), nn.GroupNorm(2, 4), head)


def styles() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = F.conv2d(x, m.a.weight, m.a.bias, padding=1)
        y = F.hardtanh_(m.n(y), 0, 6) * torch.sigmoid(y)
        z = m.p(m.a(x)) + torch.add(x, y, alpha=2) + y.mean((2, 3), keepdim=True)
        return m.b(F.elu(z) + 1)

    return Net(forward, a=conv(), n=nn.BatchNorm2d(4, affine=False), p=nn.PReLU(), b=conv(4, 4, 2, padding="same"))


NETS = {"nested": nested, "styles": styles, "one layer": conv}


def randomised(source: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, value in source.named_buffers():
            if "running" in name:
                value.uniform_(0.5, 1.5)
    return source


@pytest.fixture(params=NETS.values(), ids=NETS.keys())
def source(request: pytest.FixtureRequest) -> nn.Module:
    return randomised(request.param())


def test_the_normal_form_computes_what_the_source_computes(source: nn.Module) -> None:
    module = normal_form(source, (4, 8, 8))
    assert not module.training
    for batch in (1, 2, 5):
        x = torch.randn(batch, 4, 8, 8)
        torch.testing.assert_close(module(x), source.eval()(x))


def test_training_is_the_same_too(source: nn.Module) -> None:
    module = normal_form(source, (4, 8, 8)).train()
    source.train()
    for _ in range(3):
        x = torch.randn(3, 4, 8, 8)
        torch.testing.assert_close(module(x), source(x))
    state = {name.removeprefix("conv2d."): value for name, value in module.state_dict().items()}
    torch.testing.assert_close(state, source.state_dict())  # running statistics and counters


def test_names_and_numbers_of_the_state_are_the_sources(source: nn.Module) -> None:
    state = {name.removeprefix("conv2d."): value for name, value in normal_form(source, (4, 8, 8)).state_dict().items()}
    assert state.keys() == source.state_dict().keys()
    torch.testing.assert_close(state, source.state_dict(), rtol=0, atol=0)


def test_the_source_is_not_touched(source: nn.Module) -> None:
    source.train()
    next(iter(source.modules())).eval()  # mixed, as when norms are frozen
    before, flags = copy.deepcopy(source.state_dict()), [module.training for module in source.modules()]
    module = normal_form(source, (4, 8, 8))
    assert [module.training for module in source.modules()] == flags
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    torch.testing.assert_close(source.state_dict(), before, rtol=0, atol=0)


def test_gradients_reach_all_parameters(source: nn.Module) -> None:
    module = normal_form(source, (4, 8, 8)).train()
    module(torch.randn(3, 4, 8, 8)).square().sum().backward()
    for (name, parameter), other in zip(module.named_parameters(), source.parameters(), strict=True):
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.shape == other.shape


def test_frozen_parameters_stay_frozen() -> None:
    source = nested()
    source[0].conv.weight.requires_grad_(False)
    frozen = [name for name, p in normal_form(source, (4, 8, 8)).named_parameters() if not p.requires_grad]
    assert frozen == ["0.conv.weight"]


@pytest.mark.parametrize(
    "make",
    [lambda: nn.Dropout(0.5), lambda: nn.Dropout(0.5, inplace=True), lambda: nn.Dropout2d(0.5)],
)
def test_dropout_drops_in_training_only(make: Callable[[], nn.Module]) -> None:
    module = normal_form(nn.Sequential(conv(), make()), (4, 8, 8))
    x = torch.randn(2, 4, 8, 8)
    assert (module(x) != 0).all()
    assert 0.1 < (module.train()(x) == 0).float().mean() < 0.9


def test_functions_are_named_beneath_the_module_that_calls_them() -> None:
    module = normal_form(nn.Sequential(InPlace(), nn.Sequential(conv(), nn.ReLU())), (4, 8, 8))
    assert [str(node.target) for node in module.graph.nodes if node.op == "call_module"] == [
        "0.relu", "0.conv", "0.norm", "0.act", "0.act_1", "0.relu6", "1.0", "1.1",
    ]  # fmt: skip


def test_a_function_does_not_take_the_name_of_a_layer() -> None:
    source = Net(lambda m, x: m.conv2d(m.relu(F.relu(x))) + F.conv2d(x, m.weight), relu=conv(), conv2d=conv())
    source.weight = nn.Parameter(torch.randn(4, 4, 1, 1))
    module = normal_form(source, (4, 8, 8))
    assert isinstance(module.get_submodule("relu"), nn.Conv2d)
    assert set(source.state_dict()) - {"weight"} < set(module.state_dict())


def test_a_parameter_beside_a_layers_own_is_kept() -> None:
    class Scaled(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(4, 4, 3, padding=1)
            self.gain = nn.Parameter(torch.rand(4, 8, 8))
            self.register_buffer("shift", torch.rand(1, 8, 8))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * self.gain + self.shift)

    source = nn.Sequential(Scaled(), conv())
    assert normal_form(source, (4, 8, 8)).state_dict().keys() == source.state_dict().keys()


def test_shared_layers_stay_shared() -> None:
    module = normal_form(Net(lambda m, x: m.a(m.a(x).relu()), a=conv()), (4, 8, 8))
    assert [str(n.target) for n in module.graph.nodes if n.op == "call_module"].count("a") == 2
    assert len(list(module.parameters())) == 2


def test_every_tensor_has_its_shape() -> None:
    module = normal_form(nested(), (4, 8, 8))
    shapes = [node.meta["shape"] for node in module.graph.nodes if node.op != "output"]
    assert shapes[0] == (4, 8, 8) and shapes[-1] == (6,)


def with_gradients(m: Any, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x * 2
    return m.a(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda m, x: 3, "returns no tensor"),
        (lambda m, x: (m.a(x), 3), "returns no tensor alone, but 1 int"),
        (lambda m, x: (), "returns no tensor"),
        (lambda m, x: m.a(x) if x.sum() > 0 else x, "cannot trace Net for an input of"),
        (lambda m, x: m.a(x).reshape(2, -1), "cannot trace Net"),
        (lambda m, x: m.a(x[:, :3]), "cannot trace Net"),
        (lambda m, x: m.a(x).argmax(1), "returns torch.int64"),
        (lambda m, x: m.a(x) + torch.rand_like(x), "differs from it by"),
        (lambda m, x: m.a(x) / 0, "Net returns what is not finite for random inputs\n"),
        (lambda m, x: m.a(x)[:, :, 8:], r"Net returns a tensor without elements, \[2, 4, 0, 8\]"),
        (with_gradients, "has a graph inside its graph"),
    ],
)
def test_what_cannot_be_traced_is_one_message(
    function: Callable[[Any, Tensor], Any], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    source = Net(function, a=conv()).train()
    with pytest.raises(ModelError, match=message) as caught:
        normal_form(source, (4, 8, 8))
    assert caught.value.exit_code == ExitCode.BAD_INPUT and len(str(caught.value)) < 900
    assert source.training and source.a.training
    assert capfd.readouterr() == ("", "")


def test_a_module_may_have_a_train_of_its_own_that_returns_nothing(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(
        "from torch import nn\nclass Net(nn.Sequential):\n"
        "    def train(self, mode=True):\n        super().train(mode)\n"
        "def model():\n    return Net(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))\n"
    )
    network = load_network(str(path), None, (4, 8, 8))
    assert [layer.name for chain in network.chains for layer in chain.layers] == ["0", "2"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("class", "a-b c", "None"), ["class_", "a-b c", "None_"]),
        (("graph", "code", "meta"), ["graph_", "code_", "meta_"]),
        (("_graph", 'q"\\x', "self"), ["_graph_", "q__x", "self_"]),
        (("class", "class_", "input"), ["class__", "class_", "input"]),
    ],
)
def test_a_layer_may_be_called_what_code_cannot_call_it(names: tuple[str, ...], expected: list[str]) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        for name in names:
            x = m._modules[name](x).relu() * m._parameters["lambda"]
        return x

    source = Net(forward)
    for name in names:
        source.add_module(name, conv(padding=1))
    source.register_parameter("lambda", nn.Parameter(torch.tensor([1.5])))
    network = trace("net", source, (4, 8, 8))
    assert [layer.name for chain in network.chains for layer in chain.layers] == expected


def test_a_random_slope_is_its_mean_in_evaluation() -> None:
    module = normal_form(Net(lambda m, x: m.r(m.a(x)), a=conv(), r=nn.RReLU(0.1, 0.3)), (4, 8, 8))
    (slope,) = (part.negative_slope for part in module.modules() if isinstance(part, nn.LeakyReLU))
    assert slope == pytest.approx(0.2)


def test_what_a_source_writes_into_its_input_stays_there() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x.sub_(0.5).mul_(4)
        return m.a(x)

    normal_form(Net(forward, a=conv()), (4, 8, 8))


HINTS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "a decision": (
        lambda: Net(lambda m, x: m.a(x) if x.mean() > 0 else x, a=conv()),
        r"\(\S*test_trace.py, line \d+\)",
        "must not depend on values",
    ),
    "another type": (lambda: Net(lambda m, x: m.a(x.half()), a=conv()), "(?i)half", "weights are float32 here"),
    "a script": (lambda: torch.jit.trace(conv().eval(), torch.zeros(1, 4, 8, 8)), "Script", "return the module"),
    "a fixed batch": (
        lambda: torch.export.export(conv(), (torch.zeros(2, 4, 8, 8),)).module(),
        "GraphModule",
        "any batch size",
    ),
    "no values": (lambda: conv().to("meta"), "meta", "have no values"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize(("make", "message", "hint"), HINTS.values(), ids=HINTS.keys())
def test_what_stands_in_the_way_is_said_with_its_remedy(make: Callable[[], nn.Module], message: str, hint: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        normal_form(make(), (4, 8, 8))
    assert hint in str(caught.value.hint)


def test_what_does_nothing_is_left_out() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = F.dropout((0 + m.a(x) / 1.0)[:] * 1 - 0, 0.0)
        return m.b(y.to(torch.float32)) / 2 + x[:, :, :8] * 1.5

    module = normal_form(Net(forward, a=conv(), b=conv()), (4, 8, 8))
    operators = [getattr(node.target, "__name__", node.target) for node in module.graph.nodes]
    assert operators == ["x", "a", "b", "mul.Tensor", "add", "output"]


def test_an_instance_norm_with_running_statistics_is_a_batch_norm() -> None:
    norm = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    network = trace("net", Net(lambda m, x: m.b(F.relu(m.n(m.a(x)))), a=conv(), n=norm, b=conv()), (4, 8, 8))
    assert [(layer.name, layer.norm) for chain in network.chains for layer in chain.layers] == [("a", "n"), ("b", None)]


def test_what_changes_the_type_of_numbers_stays() -> None:
    source = Net(lambda m, x: m.a(x) + (x > 0).sum((2, 3), keepdim=True) / 1, a=conv())
    assert any("div" in str(node.target) for node in normal_form(source, (4, 8, 8)).graph.nodes)


class Remembering(nn.Module):
    """Keeps a grid for as long as the batch has the same shape, as detectors do, a moving average, and what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.shape = conv(), None
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        if self.shape != x.shape:
            self.shape, self.grid = x.shape, torch.arange(8.0)
            self.register_buffer("late", x.sum(), persistent=False)
        self.mean.mul_(0.9).add_(x.detach().mean((0, 2, 3)), alpha=0.1)
        return self.conv(x) * self.grid + self.mean[:, None, None] * 0


def test_what_a_source_keeps_for_its_next_call_is_as_before() -> None:
    source = Remembering()
    module = normal_form(source, (4, 8, 8))
    assert source.shape is None and not hasattr(source, "grid") and list(source._buffers) == ["mean"]
    assert not source.mean.any() and not dict(module.named_buffers())["mean"].any()
    x = torch.randn(3, 4, 8, 8)
    torch.testing.assert_close(module(x), source(x))


def test_a_weight_that_is_not_finite_is_named() -> None:
    source = nn.Sequential(conv(), conv())
    with torch.no_grad():
        source[1].weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"not finite for random inputs: its 1\.weight is not") as caught:
        normal_form(source, (4, 8, 8))
    assert "did not diverge" in str(caught.value.hint)
