"""What every importance estimator has to pass: inherit ``EstimatorConformance`` and give it an estimator.

It measures the choices of a network of four convolutions, and the widths of its channel groups where it measures those,
on 80 images of noise, on the CPU. Where these do not suit an estimator, override ``network`` or ``task``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import Field, FrozenInstanceError, dataclass, fields, replace
from functools import cache
from math import isfinite, nan
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.blocks.sized_choices import NarrowedGroup, widths_of
from trt_layermerge.cli.field_options import estimator_options
from trt_layermerge.errors import UsageError
from trt_layermerge.importance.estimators.base import Estimator, Samples
from trt_layermerge.importance.filling import Estimation, measure, missing_rows, table_key
from trt_layermerge.importance.table import ImportanceRow, ImportanceTable
from trt_layermerge.network.network import Network, trace
from trt_layermerge.pipeline.settings import made_from
from trt_layermerge.training.task import Classification, Task

SAMPLES = Samples(calibration=8, held_out=16)


class UntestedTask(Classification):
    """Noise of three classes. Test data must not be read, nor training data for an estimator that trains nothing."""

    def __init__(self, *, trains: bool) -> None:
        self.trains = trains
        generator = torch.Generator().manual_seed(1)
        images, labels = torch.randn(80, 2, 6, 6, generator=generator), torch.randint(0, 3, (80,), generator=generator)
        data = TensorDataset(images, labels)
        super().__init__("noise", data, data, batch_size=8, held_out=24, calibration=16)

    def training_batches(self, *, seed: int, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Fail, unless that was announced."""
        assert self.trains, "training data was read by an estimator that is not declared to train"
        return super().training_batches(seed=seed, epoch=epoch, first_step=first_step)

    def test_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        raise AssertionError("test data was read")


@dataclass(frozen=True)
class Changes:
    """What is to be measured."""

    choices: Sequence[Choice]
    narrowed: Sequence[NarrowedGroup] = ()


@cache
def small_network() -> Network:
    """Four convolutions, two of which can be dropped, and a classifier; it takes images of 2x6x6."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        body = [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
        body += [nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
        module = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    return trace("small", module, (2, 6, 6))


class EstimatorConformance:
    """Tests of an ``Estimator``."""

    @pytest.fixture
    def estimator(self) -> Estimator:
        """The one to test, with settings under which it is done in seconds."""
        raise NotImplementedError

    @pytest.fixture
    def network(self) -> Network:
        """What is measured."""
        return small_network()

    @pytest.fixture
    def task(self, estimator: Estimator) -> Task:
        """What it is measured on."""
        return UntestedTask(trains=estimator.trains)

    @pytest.fixture
    def choices(self, estimator: Estimator, network: Network) -> list[Choice]:
        """What the estimator does not refuse, up to two of a kind and a number of layers."""
        offered = choices_of(network, Limits(max_kernel=5, max_layers=3))
        seen: Counter[tuple[Kind, int]] = Counter()
        chosen = []
        for choice in offered:
            kind = choice.kind, len(choice.block)
            if seen[kind] < 2 and _refusal(estimator, network, choice) is None:
                seen[kind] += 1
                chosen.append(choice)
        return chosen

    @pytest.fixture
    def narrowed(self, estimator: Estimator, network: Network) -> list[NarrowedGroup]:
        """Three widths of each channel group; none for an estimator that does not measure any."""
        offered = widths_of(network, (0.75, 0.5, 0.25), 1) if estimator.measures_widths else ()
        return [NarrowedGroup(one.group, channels) for one in offered for channels in one.channels[1:]]

    @pytest.fixture
    def changes(self, choices: list[Choice], narrowed: list[NarrowedGroup]) -> Changes:
        """All of them."""
        return Changes(choices, narrowed)

    def test_it_is_a_frozen_value_with_a_name(self, estimator: Estimator) -> None:
        """Two with the same settings are the same; all fields have defaults."""
        kind = type(estimator)
        assert kind.name and kind.summary and kind().in_words == kind().in_words
        assert replace(estimator) == estimator and hash(replace(estimator)) == hash(estimator)
        forgotten = [name for name, value in vars(kind).items() if isinstance(value, Field)]
        assert not forgotten, f"decorate the class with @dataclass(frozen=True), or {forgotten} are no fields"
        for field in fields(estimator):
            with pytest.raises(FrozenInstanceError):
                setattr(estimator, field.name, getattr(estimator, field.name))

    def test_options_set_its_fields(self, estimator: Estimator) -> None:
        """Those that are not passed leave the defaults; none is called as another option of ``compress``."""
        from trt_layermerge.cli.commands.compress import command as compress

        kind, made = type(estimator), list[Estimator]()
        command = click.command()(lambda **given: made.append(made_from(kind, given)))
        for decorate in estimator_options(kind):
            command = decorate(command)
        assert len(command.params) == len(fields(kind)) and all(getattr(one, "help", "") for one in command.params)
        arguments: list[str] = []
        for field in fields(estimator):
            value, option = getattr(estimator, field.name), estimator.option(field.name)
            if isinstance(value, bool):
                arguments.append(option if value else option.replace("--", "--no-", 1))
            elif value is not None:
                arguments += [option, str(value)]
        for given in ([], arguments):
            command.main(given, standalone_mode=False)
        assert made == [kind(), estimator]
        spelt = Counter(spelling for parameter in compress.params for spelling in parameter.opts)
        taken = [option for option in map(estimator.option, (one.name for one in fields(kind))) if spelt[option] > 1]
        assert not taken, f"others have the options {taken}, too"

    def test_the_key_is_stable_and_tells_settings_apart(
        self, estimator: Estimator, network: Network, task: Task
    ) -> None:
        """Tables of other settings are other tables."""
        key = table_key(network, task, Estimation(estimator, SAMPLES))
        assert key == table_key(network, task, Estimation(replace(estimator), SAMPLES)) and key.estimator in str(key)
        for field in fields(estimator):
            other = _changed(estimator, field.name)
            assert table_key(network, task, Estimation(other, SAMPLES)) != key, f"{field.name} is not in the key"

    def test_every_choice_has_one_finite_row(
        self, estimator: Estimator, network: Network, task: Task, changes: Changes, tmp_path: Path
    ) -> None:
        """Of those that it measures; the others have none."""
        rows = _measured(estimator, network, task, changes, tmp_path)
        wanted = [choice.key for choice in changes.choices if estimator.measures(choice)]
        assert wanted and sorted(row.choice for row in rows) == sorted([*wanted, *(n.key for n in changes.narrowed)])
        for row in rows:
            numbers = (row.loss_before, row.loss_after, row.accuracy_before, row.accuracy_after, row.seconds)
            assert all(map(isfinite, numbers)) and row.seconds >= 0, row

    def test_widths_say_which_channels_stay(
        self, estimator: Estimator, network: Network, task: Task, narrowed: list[NarrowedGroup], tmp_path: Path
    ) -> None:
        """As many as there are to be, in order; who measures no widths refuses them in words."""
        if not estimator.measures_widths:
            with pytest.raises(UsageError, match=estimator.name):
                estimator.require_widths()
            return
        estimator.require_widths()
        rows = {row.choice: row for row in _measured(estimator, network, task, Changes((), narrowed), tmp_path)}
        for one in narrowed:
            kept = rows[one.key].kept
            assert list(kept) == sorted(set(kept)) and len(kept) == one.channels, one.key
            assert kept[0] >= 0 and kept[-1] < one.group.channels, one.key

    def test_an_interrupted_call_is_taken_up(
        self, estimator: Estimator, network: Network, task: Task, changes: Changes, tmp_path: Path
    ) -> None:
        """Whenever it stops, even before the first row, no row is measured twice and every one is the same."""
        whole = _measured(estimator, network, task, changes, tmp_path / "whole")
        keys, told = {row.choice for row in whole}, []

        def stop(done: int, total: int, label: str, *, share: float | None = None) -> None:
            if label in keys:
                told.append(label)
            raise KeyboardInterrupt

        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                _measured(estimator, network, task, changes, tmp_path / "parts", stop)
        parts = _measured(
            estimator, network, task, changes, tmp_path / "parts", lambda done, total, label, **_: told.append(label)
        )
        assert all(count == 1 for label, count in Counter(told).items() if label in keys), "measured twice"
        assert _untimed(parts) == _untimed(whole)

    def test_a_row_does_not_depend_on_others(
        self, estimator: Estimator, network: Network, task: Task, changes: Changes, tmp_path: Path
    ) -> None:
        """The last choice alone has the row that it has among all, and so has the last width."""
        rows = _untimed(_measured(estimator, network, task, changes, tmp_path / "all"))
        choice = max((one for one in changes.choices if one.key in rows), key=lambda one: one.key)
        for alone in (Changes([choice]), *(Changes((), [one]) for one in changes.narrowed[-1:])):
            (row,) = _measured(estimator, network, task, alone, tmp_path / f"{len(alone.narrowed)} widths")
            among = rows[row.choice]
            assert row.loss_after == pytest.approx(among.loss_after, rel=1e-6)
            assert row.loss_before == pytest.approx(among.loss_before, rel=1e-6)
            assert row.kept == among.kept

    def test_a_finished_table_costs_nothing(
        self, estimator: Estimator, network: Network, task: Task, changes: Changes, tmp_path: Path
    ) -> None:
        """Nor does a choice that needs no row."""
        rows = _measured(estimator, network, task, changes, tmp_path)
        again = _measured(estimator, network, task, changes, tmp_path, lambda *told: pytest.fail(f"measured {told}"))
        assert again == rows

    def test_the_network_is_left_as_it_was(
        self, estimator: Estimator, network: Network, task: Task, changes: Changes, tmp_path: Path
    ) -> None:
        """Its weights, its graph and its mode."""
        before = {name: value.clone() for name, value in network.module.state_dict().items()}
        graph = str(network.module.graph)
        _measured(estimator, network, task, changes, tmp_path)
        after = network.module.state_dict()
        assert after.keys() == before.keys() and all(torch.equal(after[name], value) for name, value in before.items())
        assert str(network.module.graph) == graph and not any(part.training for part in network.module.modules())
        assert not any(parameter.is_inference() for parameter in network.module.parameters())

    def test_what_it_refuses_is_refused_with_words(
        self, estimator: Estimator, network: Network, task: Task, tmp_path: Path
    ) -> None:
        """A choice by its key, before anything is read or written; numbers that are none by their fields."""
        for choice in choices_of(network, Limits(max_kernel=5, max_layers=3)):
            refusal = _refusal(estimator, network, choice)
            if refusal is not None:
                assert choice.key in refusal.message and estimator.name in refusal.message and refusal.hint
                with pytest.raises(UsageError):
                    _measured(estimator, network, task, Changes([choice]), tmp_path)
        assert not list(tmp_path.iterdir())
        for field in fields(estimator):
            if isinstance(field.default, float):
                with pytest.raises(UsageError, match=field.name.replace("_", ".")):
                    replace(estimator, **{field.name: nan})

    def test_a_dry_run_is_told_what_it_costs(
        self, estimator: Estimator, network: Network, task: Task, changes: Changes, tmp_path: Path
    ) -> None:
        """More than nothing; more where the network is slower, and no less for more changes. Nothing is written."""
        table = _opened(estimator, network, task, tmp_path)
        how = Estimation(estimator, SAMPLES)
        request = missing_rows(network, changes.choices, task, table, how, changes.narrowed)
        one = replace(request, choices=request.choices[:1], narrowed=())
        cost = estimator.seconds(request, 1e-3)
        assert isfinite(cost) and 0 < estimator.seconds(one, 1e-3) <= cost < estimator.seconds(request, 2e-3)
        assert not list(tmp_path.iterdir())


def _opened(estimator: Estimator, network: Network, task: Task, folder: Path) -> ImportanceTable:
    folder.mkdir(exist_ok=True)
    return ImportanceTable.open(folder / "importance.jsonl", table_key(network, task, Estimation(estimator, SAMPLES)))


def _measured(
    estimator: Estimator,
    network: Network,
    task: Task,
    changes: Changes,
    folder: Path,
    progress: Any = lambda done, total, label, **_: None,
) -> list[ImportanceRow]:
    table = _opened(estimator, network, task, folder)
    how = Estimation(estimator, SAMPLES)
    measure(network, changes.choices, task, table, how, progress, changes.narrowed)
    return list(table)


def _untimed(rows: list[ImportanceRow]) -> dict[str, ImportanceRow]:
    return {row.choice: replace(row, seconds=0) for row in rows}


def _refusal(estimator: Estimator, network: Network, choice: Choice) -> UsageError | None:
    try:
        estimator.require_measurable(network, [choice])
    except UsageError as refusal:
        return refusal
    return None


def _changed(estimator: Estimator, field: str) -> Estimator:
    """The estimator with another value of a field, the first of some that it does not refuse."""
    value, stated = getattr(estimator, field), get_type_hints(type(estimator))[field]
    kinds = [one for one in (stated, *get_args(stated)) if one is not type(None)]
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    numbers = [0.5, 0.25, 1.0, 2.0] if float in kinds else [1, 2, 3, 8]
    for other in [not value] if bool in kinds else words or (["other"] if str in kinds else numbers):
        try:
            if other != value:
                return replace(estimator, **{field: other})
        except UsageError:
            continue
    raise AssertionError(f"no other value of {field} was found")
