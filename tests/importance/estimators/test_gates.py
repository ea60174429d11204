"""Gates find the activations that a network can do without, and rows say what closing them costs."""

from __future__ import annotations

import signal
from dataclasses import astuple, replace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Kind
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.errors import DivergedError, UsageError
from trt_layermerge.importance.estimators.base import Samples
from trt_layermerge.importance.estimators.gates import Gates
from trt_layermerge.importance.filling import Estimation, measure, table_key
from trt_layermerge.importance.gate_training import removable
from trt_layermerge.importance.table import ImportanceTable
from trt_layermerge.pipeline.session import for_method
from trt_layermerge.planning.methods.depth import Depth
from trt_layermerge.training.checkpoint import Checkpoint
from trt_layermerge.training.evaluate import evaluate
from trt_layermerge.training.gating import closed, gated
from trt_layermerge.training.task import Classification

HOW = Estimation(Gates(penalty=0.5, epochs=3), Samples(1, 64))
SHAPE = (1, 4, 4)


def magnitude() -> nn.Module:
    """Is an image strong or weak? ``|x| = relu(x) + relu(-x)``; its first activation decides, its second one is idle.

    What the second one sees is far above zero. The third is behind the last convolution that could be merged.
    """
    split, idle, add = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
    with torch.no_grad():
        split.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        split.bias.zero_()
        idle.weight.copy_(torch.eye(2).view(2, 2, 1, 1))
        idle.bias.fill_(50.0)
        add.weight.copy_(4 * torch.tensor([[1.0, 1.0], [-1.0, -1.0]]).view(2, 2, 1, 1))
        add.bias.copy_(torch.tensor([-404.0, 404.0]))
    return nn.Sequential(split, nn.ReLU(), idle, nn.ReLU(), add, nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.fixture(scope="module")
def network(quick):
    return quick(magnitude(), SHAPE)


@pytest.fixture(scope="module")
def task():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(256) % 2
    size = torch.where(labels == 0, 1.5, 0.5).view(-1, 1, 1, 1)
    data = TensorDataset(size * torch.randn(256, *SHAPE, generator=generator).sign(), labels)
    return Classification("strong or weak", data, data, batch_size=16, held_out=64, calibration=16)


@pytest.fixture(scope="module")
def choices(network):
    return for_method(choices_of(network), Depth())


def opened(folder, network, task, how=HOW):
    folder.mkdir(exist_ok=True)
    return ImportanceTable.open(folder / "importance.jsonl", table_key(network, task, how))


def measured(folder, network, task, choices, how=HOW):
    table = opened(folder, network, task, how)
    measure(network, choices, task, table, how)
    return {row.choice.split()[0]: row for row in table}


def own_gates(folder):
    """What the gates beside a table have learned, by the activation's name."""
    weights = Checkpoint.read(folder / "importance-gates.checkpoint.safetensors").weights
    return {name.removesuffix(".gate.own"): float(w) for name, w in weights.items() if name.endswith(".gate.own")}


def test_an_idle_activation_goes_and_one_that_decides_stays(network, task, choices, tmp_path):
    assert evaluate(network.module, task.held_out_batches(), task).accuracy == 1
    rows = measured(tmp_path, network, task, choices)
    gates = own_gates(tmp_path)
    assert gates == {"1": pytest.approx(0, abs=0.01), "3": 1}
    assert rows.keys() == {"0:0-2", "0:1-3", "0:0-3"}
    idle, decides, both = rows["0:1-3"], rows["0:0-2"], rows["0:0-3"]
    assert idle.loss_after == idle.loss_before and idle.accuracy_after == 1, "to the last bit"
    for row in (decides, both):
        assert row.loss_after > row.loss_before + 0.5 and row.accuracy_after == pytest.approx(0.5, abs=0.15)
    assert decides.loss_after == pytest.approx(both.loss_after, rel=1e-4)


def test_idle_gates_close_first(network, task, choices, tmp_path):
    """Long before the penalty has closed any gate, the one that nothing holds back is ahead."""
    how = replace(HOW, estimator=replace(HOW.estimator, share=0.2, epochs=1))
    measured(tmp_path, network, task, choices, how)
    gates = own_gates(tmp_path)
    assert gates["1"] < gates["3"] < 1


def test_a_row_is_what_the_trained_network_loses_with_its_gates_closed(quick, task, tmp_path):
    """Also where blocks are padded: padding stays where it was."""
    torch.manual_seed(1)
    body = [nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.SiLU(), nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()]
    head = [nn.Conv2d(3, 3, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)]
    network = quick(nn.Sequential(*body, *head), SHAPE)
    rows = measured(tmp_path, network, task, for_method(choices_of(network), Depth()))
    trained = gated(network, network.layers).module
    trained.load_state_dict(Checkpoint.read(tmp_path / "importance-gates.checkpoint.safetensors").weights)
    first, second, _ = network.layers
    for block, layers in {"0:0-2": [first], "0:1-3": [second], "0:0-3": [first, second]}.items():
        before = evaluate(trained, task.held_out_batches(), task)
        with closed(trained, layers):
            after = evaluate(trained, task.held_out_batches(), task)
        assert rows[block].loss_before == pytest.approx(before.loss, rel=1e-5)
        assert rows[block].loss_after == pytest.approx(after.loss, rel=1e-5)
        assert (rows[block].accuracy_before, rows[block].accuracy_after) == (before.accuracy, after.accuracy)


def test_what_is_removable_is_what_merges_remove(networks_of_many_kinds):
    for network in networks_of_many_kinds:
        for kernel in (3, 7):
            wanted = set()
            for choice in choices_of(network, Limits(kernel, len(network.layers))):
                if choice.kind is Kind.MERGE and len(choice.kept) == len(choice.block):
                    chain = network.chains[choice.block.chain]
                    wanted |= {layer.act for layer in chain.layers[choice.block.start : choice.block.end - 1]}
            assert {layer.act for layer in removable(network, kernel)} == wanted - {None}


class Residual(nn.Module):
    def __init__(self, stride):
        super().__init__()
        body = [nn.Conv2d(4, 4, 3, stride, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1)]
        self.body, self.skip = nn.Sequential(*body), nn.Conv2d(4, 4, 1, stride) if stride > 1 else nn.Identity()
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.body(x) + self.skip(x))


@pytest.fixture(scope="module")
def networks_of_many_kinds(quick):
    stem = [nn.Conv2d(1, 4, 5, padding=2), nn.ReLU()]
    head = [nn.MaxPool2d(2), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1), nn.Flatten()]
    made = [
        nn.Sequential(*stem, Residual(1), *head),
        nn.Sequential(*stem, Residual(2), Residual(1), nn.Conv2d(4, 2, 3, 2), nn.ReLU()),
        magnitude(),
    ]
    return [quick(one, (1, 16, 16)) for one in made]


def test_a_training_that_was_interrupted_goes_on_and_is_not_repeated(network, task, choices, tmp_path, monkeypatch):
    whole = measured(tmp_path / "whole", network, task, choices)
    real, seen = type(task).training_batches, []

    def batches(self, **which):
        for batch in real(self, **which):
            seen.append(which)
            yield batch
            if len(seen) == 7:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(type(task), "training_batches", batches)
    for progress in (lambda *what, **_: None, stop_at_first_row):
        with pytest.raises(KeyboardInterrupt):
            measure(network, choices, task, opened(tmp_path / "out", network, task), HOW, progress)
    rows = measured(tmp_path / "out", network, task, choices)
    assert own_gates(tmp_path / "out") == own_gates(tmp_path / "whole")
    for block, row in rows.items():
        assert astuple(replace(row, seconds=0)) == astuple(replace(whole[block], seconds=0))
    looked_at = 3  # one batch for its size, by each of the calls
    assert len(seen) == 3 * 12 + looked_at, "a step was repeated"


def stop_at_first_row(done, total, label, **_):
    if label.startswith("0:"):
        raise KeyboardInterrupt


def test_rows_do_not_depend_on_which_others_are_wanted(network, task, choices, tmp_path):
    rows = measured(tmp_path / "all", network, task, choices)
    one = [choice for choice in choices if str(choice.block) == "0:1-3"]
    (alone,) = measured(tmp_path / "one", network, task, one).values()
    assert replace(alone, seconds=0) == replace(rows["0:1-3"], seconds=0)


def test_the_network_is_left_as_it_was(network, task, choices, tmp_path):
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    measured(tmp_path, network, task, choices)
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())


def test_progress_tells_of_the_training_and_of_the_rows(network, task, choices, tmp_path):
    told = []
    measure(network, choices, task, opened(tmp_path, network, task), HOW, lambda *what, **_: told.append(what))
    assert [(done, total) for done, total, _ in told] == [*((n, 36) for n in range(37)), *((n, 3) for n in (1, 2, 3))]


def test_what_gates_cannot_tell_is_refused(networks_of_many_kinds, task, tmp_path):
    network = networks_of_many_kinds[0]
    others = [one for one in choices_of(network) if one.kind is not Kind.KEEP and one not in for_method([one], Depth())]
    assert {one.kind for one in others} == {Kind.MERGE, Kind.FIT, Kind.IDENTITY}
    for choice in others:
        with pytest.raises(UsageError, match="gates remove activations") as caught:
            measure(network, [choice], task, opened(tmp_path, network, task), HOW)
        assert choice.key in str(caught.value) and "--method depth" in str(caught.value)
    assert list(tmp_path.iterdir()) == [], "nothing was trained"


def test_a_group_norm_has_no_gate(task, tmp_path, grouped):
    across = [one for one in for_method(choices_of(grouped), Depth()) if one.kind is Kind.MERGE]
    assert across and removable(grouped, 7) == ()
    with pytest.raises(UsageError, match="merges across a group norm"):
        measure(grouped, across, task, opened(tmp_path, grouped, task), HOW)


@pytest.fixture
def grouped(quick):
    body = [nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 2, 3, padding=1)]
    return quick(nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten()), SHAPE)


@pytest.mark.parametrize(
    "wrong",
    [
        {"share": 0.0},
        {"share": 1.1},
        {"lr": 0.0},
        {"epochs": 0},
        {"penalty": 0.0},
        {"penalty": float("nan")},
        {"penalty": float("inf")},
        {"distillation": 1.5},
        {"seed": -1},
    ],
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} is "):
        Gates(**wrong)


def test_the_original_may_teach(network, task, choices, tmp_path):
    how = replace(HOW, estimator=replace(HOW.estimator, distillation=0.9, penalty=2.0, lr=0.005))
    rows = measured(tmp_path, network, task, choices, how)
    gates = own_gates(tmp_path)
    assert gates["3"] == 1 and gates["1"] < 0.1
    assert rows["0:1-3"].loss_after < 0.1 < 1 < rows["0:0-2"].loss_after


def test_training_that_diverges_says_what_to_change(network, task, choices, tmp_path):
    how = replace(HOW, estimator=replace(HOW.estimator, lr=1e30))
    with pytest.raises(DivergedError, match=r"does not survive[\s\S]*lower --gates-lr"):
        measured(tmp_path, network, task, choices, how)
