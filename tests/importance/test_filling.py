"""What is measured is what one would get by making the one change and running the whole network."""

from __future__ import annotations

from dataclasses import astuple, replace
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Kind
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.blocks.lowering import lower
from trt_layermerge.errors import ModelError, TaskError
from trt_layermerge.importance import evaluator
from trt_layermerge.importance.estimators.base import Samples
from trt_layermerge.importance.evaluator import WORST_LOSS, first
from trt_layermerge.importance.filling import Estimation, measure, table_key
from trt_layermerge.importance.table import ImportanceTable
from trt_layermerge.merging import patches
from trt_layermerge.merging.algebra import to_module
from trt_layermerge.merging.fitting import NormalEquations
from trt_layermerge.merging.heads import HEAD_RIDGE
from trt_layermerge.merging.linear import folded
from trt_layermerge.merging.rewrite import rewrite
from trt_layermerge.merging.sequential import prior_of
from trt_layermerge.network.cut import up_to
from trt_layermerge.resources.memory import MemoryLimit, Need, Room

HOW = Estimation(samples=Samples(calibration=10, held_out=7))


class Block(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, stride, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1), nn.BatchNorm2d(4))
        self.skip = nn.Conv2d(4, 4, 1, stride) if stride > 1 else nn.Identity()
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.body(x) + self.skip(x))


class Inverted(nn.Module):
    """``x + body(x)``, whose last convolution makes its tensor narrow."""

    def __init__(self) -> None:
        super().__init__()
        wide = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.body = nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), wide, nn.ReLU(), nn.Conv2d(8, 4, 1))

    def forward(self, x):
        return x + self.body(x)


@pytest.fixture(scope="module")
def inverted(quick):
    """Two inverted residuals between two layers."""
    torch.manual_seed(0)
    body = [nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), Inverted(), Inverted(), nn.Conv2d(4, 4, 1), nn.ReLU()]
    return quick(nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)), (2, 6, 6))


@pytest.fixture(scope="module")
def network(quick):
    torch.manual_seed(0)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    return quick(nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), Block(1), Block(2), *head), (2, 6, 6))


class TrainingSideOnly:
    """A task that lets nobody see its test data or train."""

    name = "double"
    steps_per_epoch = 0

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.images = torch.randn(24, 2, 6, 6, generator=generator)
        self.labels = torch.randint(0, 3, (24,), generator=generator)
        self.seen: set[int] = set()
        self.calibration = slice(0, 12)

    def _batches(self, part: slice, size: int):
        yield from zip(self.images[part].split(size), self.labels[part].split(size), strict=True)

    def calibration_batches(self):
        return self._batches(self.calibration, 4)

    def held_out_batches(self):
        return self._batches(slice(12, 24), 5)

    def test_batches(self):
        raise AssertionError("test data was read")

    def training_batches(self, **_):
        raise AssertionError("nothing is trained")

    def loss(self, output, target):
        return F.cross_entropy(output, target)

    def metric(self, output, target):
        return (output.argmax(1) == target).float()


@pytest.fixture
def task():
    return TrainingSideOnly()


@pytest.fixture
def table(tmp_path, network, task):
    return ImportanceTable.open(tmp_path / "importance.jsonl", table_key(network, task, HOW))


def naive(network, choice, task, heads=False):
    """Loss, accuracy and unexplained share of one change: every pixel of all calibration data, the whole network."""
    chain, module, unexplained = network.chains[choice.block.chain], None, None
    lowered = lower(chain, choice)
    if choice.kind is Kind.MERGE:
        module = to_module(folded(network.module, lowered.composed))
    if choice.kind is Kind.FIT:
        skips = [skip.operand for skip in lowered.skips]
        ends = [chain.tensor(choice.block.start), lowered.sums]
        with torch.no_grad():
            x, total, *added = up_to(network.module, [*ends, *skips])(task.images[:10])
        equations = NormalEquations(choice.geometry)
        equations.add(x, total - sum(added))
        fitted = equations.solve(choice.geometry, prior_of(network, choice))
        module, unexplained = to_module(fitted.convolution), fitted.unexplained
    changed = rewrite(network, {choice: module}).eval()
    names = [node.name for node in network.module.graph.nodes]
    behind = names[names.index(chain.tensor(choice.block.start)) :]
    called = [node for node in changed.graph.nodes if node.op == "call_module" and node.name in behind]
    correct(changed, network, called, task.images[:10])
    with torch.no_grad():
        if heads:
            (linear,) = (part for part in changed.modules() if isinstance(part, nn.Linear))
            features = up_to(changed, [linear_source(changed)])(task.images[:10])[0]
            solve(linear, features, network.module(task.images[:10]))
        output = changed(task.images[12:19])
    target = task.labels[12:19]
    return float(task.loss(output, target)), float(task.metric(output, target).mean()), unexplained


def linear_source(module):
    """The node that the one linear layer reads."""
    calls = (node for node in module.graph.nodes if node.op == "call_module")
    (source,) = (n.args[0].name for n in calls if isinstance(module.get_submodule(n.target), nn.Linear))
    return source


def solve(linear, features, wanted):
    """Ridge regression as least squares: one more row for each weight that is drawn to what it was."""
    strength = (HEAD_RIDGE * features.square().sum(0).mean()).sqrt()
    drawn = torch.cat([strength * torch.eye(features.shape[1]), torch.zeros(features.shape[1], 1)], 1)
    system = torch.cat([torch.cat([features, torch.ones(len(features), 1)], 1), drawn])
    solution = torch.linalg.lstsq(system, torch.cat([wanted, strength * linear.weight.T])).solution
    linear.weight.copy_(solution[:-1].T)
    linear.bias.copy_(solution[-1])


def correct(changed, network, calls, images):
    """Statistics of norms, one after the other: as those of what reaches it were to those in the original."""
    original = {node.name: node for node in network.module.graph.nodes}
    for node in calls:
        norm = changed.get_submodule(node.target)
        if isinstance(norm, nn.BatchNorm2d):
            places = (network.module, original[node.name]), (changed, node)
            with torch.no_grad():
                was, now = (up_to(module, [at.all_input_nodes[0].name])(images)[0] for module, at in places)
            (v, m), (w, n) = (torch.var_mean(x, (0, 2, 3), correction=0) for x in (was, now))
            ratio = (w + norm.eps) / (v + norm.eps)
            norm.running_mean = n + ratio.sqrt() * (norm.running_mean - m)
            norm.running_var = (norm.running_var + norm.eps) * ratio - norm.eps


def test_rows_are_what_the_whole_network_does(network, task, table):
    """Also: every choice but ``keep`` has a row, and no test data was read."""
    choices, told = choices_of(network), []
    measure(network, choices, task, table, HOW, lambda *what, **_: told.append(what))
    wanted = [choice for choice in choices if choice.kind is not Kind.KEEP]
    assert {choice.kind for choice in wanted} == {Kind.MERGE, Kind.FIT, Kind.IDENTITY}
    assert {row.choice for row in table} == {choice.key for choice in wanted}
    assert told == [(n, len(wanted), row.choice) for n, row in enumerate(table, start=1)]
    with torch.no_grad():
        before = float(task.loss(network.module(task.images[12:19]), task.labels[12:19]))
    for choice in wanted:
        row, (loss, accuracy, unexplained) = table.get(choice.key), naive(network, choice, task)
        assert row.loss_before == pytest.approx(before, rel=1e-5)
        assert row.loss_after == pytest.approx(loss, rel=1e-4), choice.key
        assert row.accuracy_after == pytest.approx(accuracy)
        if unexplained is None:
            assert row.unexplained is None
        else:
            assert row.unexplained == pytest.approx(unexplained, rel=1e-3, abs=1e-6)


def test_blocks_with_an_activation_have_rows_of_their_own(inverted, task, tmp_path):
    """They are what the whole network does, and every other row is what it is without them."""
    rows = []
    for limits in (Limits(), Limits(bottleneck_activations=True)):
        table = ImportanceTable.open(tmp_path / f"{len(rows)}.jsonl", table_key(inverted, task, HOW))
        with few_samples():
            measure(inverted, choices_of(inverted, limits), task, table, HOW)
        rows.append({row.choice: replace(row, seconds=0) for row in table})
    assert {key: row for key, row in rows[1].items() if "+relu" not in key} == rows[0]
    table = ImportanceTable.open(tmp_path / "all.jsonl", table_key(inverted, task, HOW))
    added = [choice for choice in choices_of(inverted, limits) if choice.activation is not None]
    measure(inverted, added, task, table, HOW)
    assert {len(choice.block) for choice in added} > {2, 3} and len(table) == len(added)
    for choice in added:
        row, (loss, accuracy, unexplained) = table.get(choice.key), naive(inverted, choice, task)
        assert row.loss_after == pytest.approx(loss, rel=1e-4), choice.key
        assert row.accuracy_after == pytest.approx(accuracy)
        assert row.unexplained == (None if unexplained is None else pytest.approx(unexplained, rel=1e-3, abs=1e-6))


def test_a_classifier_with_images_enough_is_solved_anew(network, task, table):
    wanted = [choice for choice in choices_of(network) if choice.kind is Kind.IDENTITY]
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    with mock.patch.object(evaluator, "IMAGES_PER_FEATURE", 2):
        measure(network, wanted, task, table, HOW)
    for choice in wanted:
        loss, *_ = naive(network, choice, task, heads=True)
        assert table.get(choice.key).loss_after == pytest.approx(loss, rel=1e-4)
        assert loss != naive(network, choice, task)[0]
    assert all(torch.equal(before[name], value) for name, value in network.module.state_dict().items())


def few_samples():
    """So few that which pixels are drawn matters."""
    return mock.patch.multiple(patches, FEWEST_SAMPLES=24, SAMPLES_PER_UNKNOWN=1)


@pytest.mark.parametrize(("stops", "step"), [([1], 1), ([2, 9, 10], -1), ([30], -1)])
def test_a_resumed_run_is_an_uninterrupted_one(network, task, table, tmp_path, stops, step):
    """Also where the largest kernel of a block, which tells how much data it sees, was measured before the stop."""
    choices = choices_of(network)[::step]
    told: list[str] = []

    def progress(done, total, label, **_):
        told.append(label)
        if done in stops and done == len(told):
            raise KeyboardInterrupt

    with few_samples():
        for _ in stops:
            with pytest.raises(KeyboardInterrupt):
                measure(network, choices, task, table, HOW, progress)
            table = ImportanceTable.open(table.path, table_key(network, task, HOW))
            assert [row.choice for row in table] == told
        measure(network, choices, task, table, HOW, lambda done, total, label, **_: told.append(label))
        whole = ImportanceTable.open(tmp_path / "whole.jsonl", table_key(network, task, HOW))
        measure(network, choices, task, whole, HOW)
    assert len(told) == len(set(told)) == len(table), "something was measured twice"
    for row, expected in zip(table, whole, strict=True):
        assert astuple(replace(row, seconds=0)) == astuple(replace(expected, seconds=0))


def test_a_finished_table_costs_nothing(network, task, table):
    choices = choices_of(network)
    measure(network, choices, task, table, HOW)
    task.held_out_batches = task.calibration_batches = task.test_batches
    measure(network, choices, task, table, HOW, lambda *_, **__: pytest.fail("measured twice"))
    measure(network, [choice for choice in choices if choice.kind is Kind.KEEP], task, table, HOW)


def test_the_order_of_choices_does_not_matter(network, task, table, tmp_path):
    choices = choices_of(network)
    other = ImportanceTable.open(tmp_path / "other.jsonl", table_key(network, task, HOW))
    with few_samples():
        measure(network, choices, task, table, HOW)
        measure(network, reversed(choices), task, other, HOW)
    for row in table:
        assert replace(other.get(row.choice), seconds=0) == replace(row, seconds=0)


def test_the_network_is_left_as_it_was(network, task, table):
    state = {name: value.clone() for name, value in network.module.state_dict().items()}
    code = str(network.module.graph)
    measure(network, choices_of(network), task, table, HOW)
    assert str(network.module.graph) == code
    assert all(torch.equal(state[name], value) for name, value in network.module.state_dict().items())
    assert not any(parameter.is_inference() for parameter in network.module.parameters())


def test_figures_that_are_not_finite_are_the_worst(network, task, table):
    """A change may blow up; tables hold numbers only."""
    choice = next(choice for choice in choices_of(network) if choice.kind is Kind.IDENTITY)
    calls, loss = [], task.loss

    def metric(output, target):
        calls.append(len(target))
        return torch.full((len(target),), 1.0 if len(calls) <= 2 else float("nan"))  # two batches before the change

    task.metric = metric
    task.loss = lambda output, target: loss(output, target) * (1 if len(calls) <= 2 else float("nan"))
    measure(network, [choice], task, table, HOW)
    assert calls == [5, 2, 5, 2]
    (row,) = table
    assert (row.loss_after, row.accuracy_after) == (WORST_LOSS, -WORST_LOSS)


def test_a_network_that_is_broken_is_named(network, task, table):
    task.loss = lambda output, target: output.sum() * float("nan")
    with pytest.raises(ModelError, match="quick has a loss of nan"):
        measure(network, choices_of(network), task, table, HOW)


def test_activations_that_are_not_finite_name_the_block(network, task, table):
    fits = [choice for choice in choices_of(network) if choice.kind is Kind.FIT]
    task.images[0] = float("inf")
    with pytest.raises(ModelError, match=f"block {fits[0].block} cannot be fitted"):
        measure(network, fits, task, table, HOW)


def test_no_data_is_an_error_of_the_task(network, task, table):
    task.calibration = slice(0, 0)
    task.calibration_batches = lambda: iter([(torch.zeros(0, 2, 6, 6), torch.zeros(0))])
    with pytest.raises(TaskError, match="no calibration data"):
        measure(network, choices_of(network), task, table, HOW)
    task.held_out_batches = lambda: iter([])
    with pytest.raises(TaskError, match="no data"):
        measure(network, choices_of(network), task, table, HOW)


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, []), (1, [1]), (3, [3]), (4, [3, 1]), (6, [3, 3]), (7, [3, 3, 1]), (9, [3, 3, 1])]
)
def test_first_samples(count, sizes):
    data = torch.arange(7)
    batches = [(part, part + 10) for part in data.split(3)]
    taken = list(first(batches, count))
    assert [len(inputs) for (inputs,), _ in taken] == sizes
    assert torch.equal(torch.cat([data[:0], *(inputs for (inputs,), _ in taken)]), data[:count])
    assert all(torch.equal(target, inputs + 10) for (inputs,), target in taken)


def test_rows_do_not_depend_on_which_others_are_wanted(network, task, table, tmp_path):
    """One choice alone has the row that it has among all, whatever is sampled for the others."""
    choices = [choice for choice in choices_of(network) if choice.kind is Kind.FIT]
    with few_samples():
        measure(network, choices, task, table, HOW)
        for number, choice in enumerate(choices[::7]):
            alone = ImportanceTable.open(tmp_path / f"{number}.jsonl", table_key(network, task, HOW))
            measure(network, [choice], task, alone, HOW)
            row, other = alone.get(choice.key), table.get(choice.key)
            assert row.loss_after == pytest.approx(other.loss_after, rel=1e-6)
            assert row.unexplained == pytest.approx(other.unexplained, rel=1e-6)


@given(share=st.sampled_from([0, 0.001, 0.01, 0.1, 0.5]), threads=st.sampled_from([1, 3]))
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_memory_limit_changes_no_row(network, task, tmp_path_factory, share, threads):
    """Little or nothing is kept between choices, few images and one frame are looked at at a time."""
    choices = [choice for choice in choices_of(network) if choice.kind is not Kind.KEEP]
    folder, rows = tmp_path_factory.mktemp("limits"), {}
    tight, before = Room(1, int(share * 1e6), int(share * 1e6)), torch.get_num_threads()
    for name, room in {"free": MemoryLimit(8 << 30).room(Need()), "tight": tight}.items():
        table = ImportanceTable.open(folder / f"{name}.jsonl", table_key(network, task, HOW))
        with mock.patch.object(MemoryLimit, "room", return_value=room):
            torch.set_num_threads(threads)
            try:
                measure(network, choices, task, table, HOW)
            finally:
                torch.set_num_threads(before)
        rows[name] = {row.choice: row.loss_after for row in table}
    assert rows["free"].keys() == {choice.key for choice in choices} and len(choices) > 20
    assert rows["tight"] == pytest.approx(rows["free"], rel=1e-6)


def test_a_limit_that_is_nearly_nothing_is_no_reason_to_fail(network, task, tmp_path):
    """Who asks for one that cannot be held is told before; what a small machine has left is made do with."""
    how = replace(HOW, memory=MemoryLimit(1))
    table = ImportanceTable.open(tmp_path / "tight.jsonl", table_key(network, task, how))
    measure(network, choices_of(network)[::9], task, table, how)
    assert len(table)


def test_rows_do_not_depend_on_how_many_are_measured_at_once(network, task, tmp_path):
    """And they come in the order of the choices, whatever is ready first; threads are given back."""
    choices, rows, before = choices_of(network, Limits(5, 4)), {}, torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            table = ImportanceTable.open(tmp_path / f"{threads}.jsonl", table_key(network, task, HOW))
            measure(network, choices, task, table, HOW)
            rows[threads] = [replace(row, seconds=0.0) for row in table]
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert rows[1] == rows[3] and len(rows[1]) > 20
