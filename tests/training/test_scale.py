"""What training at scale needs: parts of a batch, averages of weights, mixed precision, several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trt_layermerge.errors import RuntimeNotAvailableError
from trt_layermerge.network.device import CPU
from trt_layermerge.training.checkpoint import Checkpoint
from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.process_group import Accelerated, Alone, group
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Classification

MakeModel = Callable[[], nn.Module]
STEPS = 10


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


def stopped_at(step: int) -> Callable[[int, int, str], None]:
    def progress(done: int, total: int, label: str) -> None:
        if done == step:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize(
    "changes",
    [
        {"average": 0.9},
        {"accumulation": 3},
        {"optimizer": "adam", "lr": 1e-3, "average": 0.99, "clip_norm": 1.0},
        {"optimizer": "relative-adam", "lr": 1e-2},
        {"precision": "fp16", "clip_norm": 1.0},
        {"schedule": "step", "milestones": (0.3, 0.6), "nesterov": False},
        {"steps": 7, "schedule": "constant", "average": 0.5},
    ],
)
@pytest.mark.parametrize("step", [3, 6])
def test_every_recipe_resumes_exactly(
    task: Classification, recipe: Recipe, make_model: MakeModel, tmp_path: Path, changes: dict[str, object], step: int
) -> None:
    recipe, whole, stopped = replace(recipe, **changes), make_model(), make_model()
    result = fine_tune(whole, task, recipe, checkpoint=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fine_tune(make_model(), task, recipe, checkpoint=tmp_path / "stopped", progress=stopped_at(step))
    again = fine_tune(stopped, task, recipe, checkpoint=tmp_path / "stopped")
    assert (again.resumed_at, again.losses) == (step, result.losses)
    assert differing(state(stopped), state(whole)) == []


def plain() -> nn.Module:
    """Without norms or dropout, so that parts of a batch add up to the batch."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


def test_parts_of_a_batch_add_up_to_the_batch(task: Classification, recipe: Recipe, tmp_path: Path) -> None:
    whole, parts = plain(), plain()
    once = fine_tune(whole, task, recipe, checkpoint=tmp_path / "whole")
    many = fine_tune(parts, task, replace(recipe, accumulation=3), checkpoint=tmp_path / "parts")
    assert many.losses == pytest.approx(once.losses, rel=1e-5)
    for name, value in parts.state_dict().items():
        torch.testing.assert_close(value, whole.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_no_more_than_a_part_runs_at_once(task: Classification, recipe: Recipe, tmp_path: Path) -> None:
    model, seen = plain(), []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    fine_tune(model, task, replace(recipe, accumulation=3, steps=2), checkpoint=tmp_path / "c")
    assert seen == [3, 3, 2] * 2  # a batch of 8
    fine_tune(plain(), task, replace(recipe, accumulation=99, steps=1), checkpoint=tmp_path / "d")


def test_the_average_is_of_the_weights_on_the_way(
    task: Classification, recipe: Recipe, make_model: MakeModel, tmp_path: Path
) -> None:
    model, averaged, seen = make_model(), make_model(), []
    averages = state(averaged)

    def progress(done: int, total: int, label: str) -> None:
        if done:
            seen.append(state(model))

    fine_tune(model, task, recipe, checkpoint=tmp_path / "plain", progress=progress)
    fine_tune(averaged, task, replace(recipe, average=0.8), checkpoint=tmp_path / "averaged")
    for step, values in enumerate(seen):
        decay = min(0.8, (1 + step) / (10 + step))
        for name, value in values.items():
            averages[name] = decay * averages[name] + (1 - decay) * value if value.is_floating_point() else value
    for name, value in averaged.state_dict().items():
        torch.testing.assert_close(value, averages[name], rtol=1e-4, atol=1e-6)
    assert differing(state(averaged), state(model))
    assert not Checkpoint.read(tmp_path / "averaged").averages


def test_steps_end_a_run_amid_an_epoch(
    task: Classification, recipe: Recipe, make_model: MakeModel, tmp_path: Path
) -> None:
    told: list[tuple[int, int, str]] = []
    result = fine_tune(
        make_model(), task, replace(recipe, steps=7), checkpoint=tmp_path / "c", progress=lambda *a: told.append(a)
    )
    assert (result.steps, len(result.losses)) == (7, 2)
    assert told[-1] == (7, 7, f"epoch 2 of 2, loss {result.losses[1]:.4f}")
    assert Checkpoint.read(tmp_path / "c").position.finished


@dataclass(frozen=True)
class TwoInputs(Classification):
    """An image and one number a sample, as a denoiser takes them."""

    def training_batches(self, *, seed: int, epoch: int, first_step: int = 0) -> Iterator:
        for images, labels in super().training_batches(seed=seed, epoch=epoch, first_step=first_step):
            yield (images, labels.float()), labels


class Hinted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.hint = nn.Linear(32, 3), nn.Linear(1, 3)

    def forward(self, image: Tensor, hint: Tensor) -> Tensor:
        return self.image(image.flatten(1)) + self.hint(hint[:, None])


def test_a_network_may_take_several_inputs(task: Classification, recipe: Recipe, tmp_path: Path) -> None:
    two = TwoInputs(**{name: getattr(task, name) for name in Classification.__dataclass_fields__})
    result = fine_tune(
        Hinted(), two, replace(recipe, epochs=8, accumulation=2, distillation=0.3), checkpoint=tmp_path / "c",
        teacher=Hinted(),
    )  # fmt: skip
    assert result.losses[-1] < result.losses[0]


def test_alone_unless_a_launcher_has_started_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert isinstance(group(CPU), Alone)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(RuntimeNotAvailableError, match=r"'\.\[multi-gpu\]'"):
        group(CPU)


def test_one_process_of_accelerate_is_none_at_all(
    task: Classification, recipe: Recipe, make_model: MakeModel, tmp_path: Path
) -> None:
    pytest.importorskip("accelerate")
    alone, accelerated = make_model(), make_model()
    fine_tune(alone, task, recipe, checkpoint=tmp_path / "alone", group=Alone())
    fine_tune(accelerated, task, recipe, checkpoint=tmp_path / "accelerated", group=Accelerated(cpu=True))
    assert differing(state(accelerated), state(alone)) == []


MEMBER = """
import sys
sys.path.insert(0, sys.argv[1])
from dataclasses import replace
from pathlib import Path
import torch
from conftest import RECIPE, tiny_task
from test_scale import plain, stopped_at
from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.process_group import Accelerated

group, folder, task = Accelerated(cpu=True), Path(sys.argv[2]), replace(tiny_task(), augment=None)
recipe = replace(RECIPE, average=0.5)
try:
    fine_tune(plain(), task, recipe, checkpoint=folder / "c", group=group, progress=stopped_at(4))
except KeyboardInterrupt:
    pass
group.wait()
model = plain()
result = fine_tune(model, task, recipe, checkpoint=folder / "c", group=group)
assert group.size == 2 and result.resumed_at == 4, (group.size, result)
torch.save(model.state_dict(), folder / f"{group.rank}.pt")
"""


def test_two_processes_share_the_batches_of_one(task: Classification, recipe: Recipe, tmp_path: Path) -> None:
    """Two members on the CPU, interrupted and resumed, end with the weights that one process has."""
    pytest.importorskip("accelerate")
    recipe, model = replace(recipe, average=0.5), plain()
    task = replace(task, augment=None)  # each member draws its own
    fine_tune(model, task, recipe, checkpoint=tmp_path / "alone")
    script = tmp_path / "member.py"
    script.write_text(MEMBER)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command, str(Path(__file__).parent), str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert differing(first, second) == []
    for name, value in model.state_dict().items():
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-6)
