"""Whatever is wrong with what the user hands in: one message, the right exit code, and nothing of theirs is touched."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.cli.refusal import refused

TASK = "def task():\n    return {}\n"
MODEL = "from torch import nn\nINPUT_SHAPE = (1, 8, 8)\ndef model():\n    return {}\n"
EXITING = """
from torch import nn
INPUT_SHAPE = (1, 8, 8)
class model(nn.Module):
    def forward(self, x):
        raise SystemExit(0)
"""
BAD_FILES: dict[str, tuple[str, str | bytes, int, str]] = {
    "truncated weights": ("weights.safetensors", b"\x10\x00\x00", 3, "cannot read the weights file"),
    "task syntax": ("task.py", "def task(:\n", 3, r"SyntaxError.*task\.py, line 1\)"),
    "task raises": ("task.py", "def task():\n    return 1 / 0\n", 3, r"ZeroDivisionError.*task\.py, line 2\)"),
    "task exits": ("task.py", "raise SystemExit(0)\n", 3, r"it ends the process.*task\.py, line 1\)"),
    "no task": ("task.py", TASK.format(3), 3, "returns a int, which is no task: it lacks name"),
    "no task function": ("task.py", "def tusk(): ...\n", 3, "has no function 'task'"),
    "model raises": ("model.py", "import no_such_module\n", 3, r"model\.py, line 1\)"),
    "model exits": ("model.py", "def model():\n    raise SystemExit(0)\n", 3, r"model\.py, line 2\)"),
    "forward exits": ("model.py", EXITING, 3, r"cannot trace .*ends the process.*model\.py, line 6\)"),
    "no network": ("model.py", MODEL.format("3"), 3, "returned int, not a torch.nn.Module"),
    "no convolution": ("model.py", MODEL.format("nn.Flatten()"), 3, "has no convolution to work on"),
    "no such function": ("model.py", "def modle(): ...\n", 3, "has no function 'model'"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_cannot_be_used(run: Any, desk: Any, name: str) -> None:
    file, content, code, message = BAD_FILES[name]
    (desk.folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = desk.files()
    arguments = [part for part in desk.job if "weights" not in str(part)] if file == "model.py" else desk.job
    refused(run("compress", *arguments, "--json"), code, message)
    assert desk.files() == before


WRONG = """

class Wrong(Classification):
    def {member}(self, *given, **named):
        {does}

def task():
    return Wrong("wrong", images(320, 0), images(64, 1), batch_size=16, held_out=64, calibration=64)
"""
WRONG_TASKS: dict[str, tuple[str, str, str]] = {
    "held out of another shape": (
        "held_out_batches",
        "yield torch.zeros(4, 3, 8, 8), torch.zeros(4)",
        r"held_out_batches yields inputs of shape \[4, 3, 8, 8\]; the network takes \[batch, 1, 8, 8\]",
    ),
    "nothing held out": ("held_out_batches", "return iter([])", "held_out_batches yields nothing"),
    "labels of other classes": (
        "held_out_batches",
        "yield torch.zeros(4, 1, 8, 8), torch.full((4,), 7)",
        "labels from 7 to 7; the network has 2 classes, 0 to 1",
    ),
    "training of other numbers": (
        "training_batches",
        "yield torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4)",
        "training_batches yields inputs of torch.uint8",
    ),
    "training that raises": ("training_batches", "raise ValueError('disk gone')", "ValueError: disk gone"),
    "data that ends the process": (
        "calibration_batches",
        "raise SystemExit(0)",
        "calibration_batches: it ends the pro",
    ),
    "a later batch that ends the process": (
        "held_out_batches",
        "yield torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.long)\n        raise SystemExit(0)",
        r"batch 2 of held_out_batches: it ends the process.*task\.py, line \d+\)",
    ),
    "a metric that ends the process": ("metric", "raise GeneratorExit", r"metric: GeneratorExit .*task\.py, line \d+"),
    "a metric that is one number": ("metric", "return torch.tensor(1.0)", r"metric returns \[\] for a batch of 2"),
}


@pytest.mark.parametrize("name", WRONG_TASKS)
def test_tasks_are_asked_before_anything_long_begins(run: Any, desk: Any, name: str) -> None:
    member, does, message = WRONG_TASKS[name]
    task = desk.folder / "task.py"
    task.write_text(task.read_text().partition("def task()")[0] + WRONG.format(member=member, does=does))
    before = desk.files()
    refused(run("compress", *desk.job, "--json"), 3, message)
    assert desk.files() == before


@pytest.mark.parametrize("command", ["importance", "compress"])
def test_calibration_data_of_zeros_are_refused(run: Any, desk: Any, command: str) -> None:
    """They were taken for data, and what was fitted on them was delivered."""
    does = "return ((0 * images, labels) for images, labels in super().calibration_batches())"
    task = desk.folder / "task.py"
    task.write_text(task.read_text().partition("def task()")[0] + WRONG.format(member="calibration_batches", does=does))
    ran = run(command, *(desk.job if command == "compress" else desk.stage), "--json")
    assert ran.code == 3 and ran.out == "" and "Traceback" not in ran.err
    assert "error: the calibration data of task 'wrong' are constant" in ran.err
    assert not (desk.folder / "out" / "importance.jsonl").exists()


def test_labels_that_are_all_alike_are_said_before_anything_is_measured(run: Any, desk: Any) -> None:
    """They may stand for none, so that losses by the original's own outputs are worth measuring."""
    task = desk.folder / "task.py"
    task.write_text(task.read_text().replace("1, 1, 1), labels)", "1, 1, 1), 0 * labels + 1)"))
    ran = run("importance", *desk.stage)
    assert ran.code == 0, ran.err
    told = "warning: the targets of the held-out data of task 'bright or dark' are all alike, each of the first 64 is 1"
    assert ran.err.startswith(told)


ONE_OUTPUT = {
    ("compress", "--distillation", "0.9"): r"the recipe distils, and the network has one output[^$]*--distillation 0",
    ("importance", "--method", "depth", "--estimator", "gates", "--gates-distillation", "0.5"): (
        r"the gates distil, and the network has one output[^$]*--gates-distillation 0"
    ),
}


@pytest.mark.parametrize("command", ONE_OUTPUT)
def test_one_output_is_not_distilled(run: Any, desk: Any, command: tuple[str, ...]) -> None:
    (desk.folder / "model.py").write_text((desk.folder / "model.py").read_text().replace("(8, 2)", "(8, 1)"))
    before = desk.files()
    stage = [part for part in desk.stage if "weights" not in str(part)]
    refused(run(command[0], *stage, *command[1:]), 2, ONE_OUTPUT[command])
    assert desk.files() == before


def test_weights_of_another_network_are_refused(run: Any, desk: Any) -> None:
    (desk.folder / "model.py").write_text((desk.folder / "model.py").read_text().replace("(8, 2)", "(8, 5)"))
    before = desk.files()
    refused(run("compress", *desk.job), 3, r"head\.weight is \(2, 8\) in the file, \(5, 8\) in the model")
    assert desk.files() == before


CONFIGS = {
    "deep": ("a = " + "[" * 3000, "it is nested too deeply"),
    "digits": ("batch = " + "9" * 5000, "it is not TOML: .*digits"),
    "NUL": ('task = "task.py\\u0000"', "it has a NUL in 'task.py"),
    "bytes": ("# \xff", "it is not TOML: not text in UTF-8"),
    "large": ("lr = 1e300", "it has a number beyond any measure"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_that_nobody_means_well_with(run: Any, tmp_path: Path, name: str) -> None:
    content, message = CONFIGS[name]
    (tmp_path / "job.toml").write_bytes(content.encode("latin-1"))
    refused(run("compress", "model.py", "--config", tmp_path / "job.toml", "--json"), 2, message)


ARGUMENTS: dict[str, tuple[list[object], int, str]] = {
    "budget 0": (["--budget", 0], 2, "budget of 0"),
    "budget above 1": (["--budget", 1.5], 2, "above 1"),
    "budget in words": (["--budget", "abc"], 2, "cannot read the budget 'abc'"),
    "budget nan": (["--budget", "nan"], 2, "cannot read the budget"),
    "negative budget": (["--budget=-1ms"], 2, "cannot read the budget"),
    "runtime": (["--runtime", "onnxrt"], 2, "did you mean 'onnxruntime'"),
    "runtime not here": (["--runtime", "tensorrt"], 6, "tensorrt"),
    "device not here": (["--device", "cuda:99"], 6, "device cuda:99 is not here"),
    "device": (["--device", "gpu"], 2, "there is no device 'gpu'"),
    "method": (["--method", "layermerg"], 2, "did you mean 'layermerge'"),
    "setting of another method": (["--alpha", 0.5], 2, "method joint has no setting alpha"),
    "setting": (["--method", "depth", "--alpha", "inf"], 2, "alpha of inf"),
    "option": (["--epoch", 3], 2, "--epochs"),
    "epochs": (["--epochs", 0], 2, "epochs"),
    "lr": (["--lr", "-1"], 2, "lr"),
    "threads": (["--threads", 0], 2, "threads"),
    "threads beyond any number": (["--threads", 2**63], 2, "threads"),
    "batch beyond any number": (["--batch", 2**63], 2, "batch"),
    "precision": (["--precision", "fp8"], 2, "fp8"),
    "shape of the task": (["--input", "3x8x8"], 3, "shape|channels"),
    "weights missing": (["--weights", "/no/such/file"], 3, "/no/such/file"),
    "task missing": (["--task", "/no/such.py"], 3, "no task file"),
    "config missing": (["--config", "/no/such.toml"], 2, "cannot read the configuration"),
    "output below a file": (["--output", "FOLDER/model.py/x"], 3, "is not a folder"),
    "output is a file": (["--output", "FOLDER/model.py"], 3, "is not a folder"),
    "profiles is a file": (["--profiles", "FOLDER/model.py"], 3, "is not a folder"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_that_cannot_be_served(run: Any, desk: Any, name: str) -> None:
    arguments, code, message = ARGUMENTS[name]
    before = desk.files()
    given = [str(part).replace("FOLDER", str(desk.folder)) for part in arguments]
    refused(run("compress", *desk.job, *given), code, message)
    assert desk.files() == before, "it fails before anything long begins"


@pytest.mark.parametrize("speedup", ["-2", "0", "0.5", "nan", "inf", "fast"])
def test_a_speedup_below_1_is_refused(run: Any, desk: Any, speedup: str) -> None:
    before = desk.files()
    refused(run("compress", *desk.stage, f"--speedup={speedup}"), 2, "speedup")
    assert desk.files() == before


MODELS = {
    "missing.py": "there is no model file",
    "FOLDER/model.py:modle": "did you mean model",
    "what is this": "cannot understand the model spec",
    "no_such_package.x:net": "cannot import no_such_package",
    "torchvision:resnet0": "torchvision",
    "FOLDER/task.py:task": "not a torch.nn.Module",
}


@pytest.mark.parametrize("model", MODELS)
def test_models_that_are_none(run: Any, desk: Any, model: str) -> None:
    refused(run("inspect", model.replace("FOLDER", str(desk.folder)), "--json"), 3, MODELS[model])


def _table(content: bytes) -> bytes:
    first, _, rest = content.partition(b"\n")
    return first + b"\nno row\n" + rest


def _of_others(content: bytes) -> bytes:
    return re.sub(rb'"(threads|calibration)": (\d+)', rb'"\1": 77', content, count=1)


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes], int, str]] = {
    "profile row": ("profiles/*/*.jsonl", _table, 3, "line 2: the line is not JSON"),
    "profile of others": ("profiles/*/*.jsonl", _of_others, 9, "threads: 77, here 1"),
    "profile is notes": ("profiles/*/*.jsonl", lambda _: b"my notes\n", 3, "line 1"),
    "importance row": ("out/importance.jsonl", _table, 3, "line 2: the line is not JSON"),
    "importance of others": ("out/importance.jsonl", _of_others, 9, "calibration: 77, here 64"),
    "plan": ("out/plan.json", lambda content: content[:-3], 3, r"plan\.json"),
    "plan changed": (
        "out/plan.json",
        lambda content: content.replace(b'"value": 0.0', b'"value": 5.0'),
        3,
        "objective",
    ),
    "baseline": ("out/baseline.json", lambda content: content[:-3], 3, r"baseline\.json is damaged"),
    "checkpoint": ("out/*.checkpoint.safetensors", lambda content: content[:-1], 3, r"checkpoint.* is damaged"),
    "start": ("out/*.start.safetensors", lambda content: content[:-1], 3, r"start\.safetensors is damaged"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_tables_are_named_and_left_alone(run: Any, done: Any, name: str) -> None:
    pattern, damage, code, message = DAMAGE[name]
    (path,) = done.folder.glob(pattern)
    path.write_bytes(damage(path.read_bytes()))
    if name.startswith(("importance", "baseline")):
        (done.folder / "out" / "plan.json").unlink()  # with a plan, they are not needed
    before = done.files()
    refused(run("compress", *done.job, "--json"), code, message)
    after = done.files()  # with more rows in the profile, perhaps: what was too noisy is measured again
    assert all(
        after[name] == before[name] for name in before if pattern.startswith("profiles") or "profiles" not in name
    )
    assert all(after[name].startswith(before[name]) for name in before if "profiles" in name)


def test_a_budget_that_nobody_can_meet_names_the_fastest(run: Any, done: Any) -> None:
    path = done.folder / "out" / "baseline.json"
    slow = {"median_ns": 10**9, "ci_low_ns": 10**9, "ci_high_ns": 10**9}
    path.write_text(json.dumps(json.loads(path.read_bytes()) | slow))
    before = done.files()
    refused(run("compress", *done.stage, "--budget", "0.001ms", "--json"), 4, r"the fastest takes [\d.]+ ms")
    refused(run("solve", *done.stage, "--speedup", "9000", "--json"), 4, r"the fastest takes [\d.]+ ms")
    after = done.files()
    assert all(after[name] == before[name] for name in before if not name.startswith("profiles"))


def test_stages_say_what_comes_before_them(run: Any, desk: Any) -> None:
    refused(run("solve", *desk.stage), 3, "trt-layermerge profile")
    no_task = [part for part in desk.stage if "task" not in str(part)]
    for name in ("compress", "importance", "solve"):
        refused(run(name, *no_task), 2, "no task is given")


def test_build_refuses_what_is_no_model(run: Any, desk: Any) -> None:
    model = desk.folder / "weights.safetensors"
    before = desk.files()
    refused(run("build", "/no/such.onnx"), 3, "/no/such.onnx")
    refused(run("build", desk.folder), 3, "ONNX")
    refused(run("build", model), 3, "ONNX")
    hostile = desk.folder / "hostile.onnx"
    weight = onnx.helper.make_tensor("w", 1, [1], [0.0])
    weight.ClearField("float_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.safetensors")
    weight.external_data.add(key="length", value=str(2**60))
    node = onnx.helper.make_node("Relu", ["w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [], [], [weight])
    hostile.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    refused(run("build", hostile), 3, "hostile.onnx")
    hostile.unlink()
    refused(run("build", model, "--output", model), 2, "--output is the model itself")
    refused(run("build", model, "--runtime", "tensorrt"), 6)
    assert desk.files() == before


def test_verify_refuses_what_is_no_manifest(run: Any, desk: Any, done: Any) -> None:
    refused(run("verify", "--manifest", "/no/such.json"), 3, "cannot read the manifest")
    refused(run("verify", "--manifest", desk.folder / "task.py"), 3, "is not a manifest")
    refused(run("verify"), 2, "--manifest")
    (done.folder / "out" / "checks.safetensors").unlink()
    refused(run("verify", "--manifest", done.folder / "out" / "manifest.json"), 3, "checks.safetensors is missing")


SEVERAL = """from torch import nn
INPUTS = {"x": (1, 8, 8), "step": 10}
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.embedding = nn.Conv2d(1, 4, 3), nn.Embedding(10, 4)
    def forward(self, x, step):
        return self.conv(x) + self.embedding(step)[:, :, None, None]
model = Net
"""


def test_a_task_of_too_few_inputs_is_told_so(run: Any, desk: Any) -> None:
    (desk.folder / "model.py").write_text(SEVERAL)
    before = desk.files()
    arguments = [part for part in desk.job if "weights" not in str(part)]
    refused(run("compress", *arguments), 3, r"yields batches of 1 input; the network takes 2: x, step")
    assert desk.files() == before
    found = run("inspect", desk.folder / "model.py", "--json").json
    assert [item["name"] for item in found["inputs"]] == ["x", "step"] and found["layers"][0]["shift"] is True
