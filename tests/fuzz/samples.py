"""Valid files that no job writes: what users bring."""

from __future__ import annotations

import io
import json
import re
import runpy
from typing import Any

import numpy as np
import onnx
import torch
from cryptography.hazmat.primitives import serialization as to
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import helper
from PIL import Image
from safetensors.torch import save
from torch import nn

from tests.fuzz.bench import TESTS, Bench
from trt_layermerge.estimation.device_files import DEVICE_FOLDER
from trt_layermerge.pipeline.first_run import Failure, FirstRun, StandardRow, write_first_run
from trt_layermerge.pipeline.measured_plans import REFINEMENT
from trt_layermerge.pipeline.self_check import SelfCheck
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.runtimes.survey import Finding
from trt_layermerge.testing.runtimes import small_model
from trt_layermerge.training.recipes import FOLDER as RECIPES


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))


PASSWORD = "geheim"
_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def private_keys() -> list[bytes]:
    """Without a password, and with one."""
    locks = to.NoEncryption(), to.BestAvailableEncryption(PASSWORD.encode())
    return [_KEY.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, lock) for lock in locks]


def public_keys() -> list[bytes]:
    return [_KEY.public_key().public_bytes(to.Encoding.PEM, to.PublicFormat.SubjectPublicKeyInfo)]


def signatures(bench: Bench) -> list[bytes]:
    return [_KEY.sign(bench.built.read_bytes())]


def reports_of_the_doctor(bench: Bench) -> list[bytes]:
    device = get_runtime("onnxruntime").describe(BuildOptions())
    check = SelfCheck(device, 0.5, 0.25, 1e-15, 1e-7, 3.0)
    row = StandardRow("conv", 1.5, 1.0, 2.0, "degraded", "it is noisy", 1350.0, 60.0)
    missing = StandardRow("conv", None, None, None, "failed", "no kernel", None, None)
    failure = Failure("self-check", "no such device", "buy one", "Traceback:\n  line 3\n")
    found = Finding("driver", None, "TensorRT", "install it"), Finding("torch", "2.14.1", "training", None)
    about: Any = ({"python": "3.11.7"}, None, "onnxruntime", found, device, None)
    run = FirstRun(1, "2026-11-26T00:00:00+00:00", *about, check, (row, missing), (failure,))
    write_first_run(path := bench.folder / "report.json", run)
    return [path.read_bytes()]


LATENCIES = """start,end,kernel,depthwise,latency_ms,latency_low_ms,latency_high_ms
0,1,3,0,1.0,0.9,1.1
1,2,3,1,1.0,0.9,1.1
2,3,3,0,2.0,1.9,2.1
0,2,5,0,1.5,1.4,1.6
1,3,5,0,2.25,2.2,2.3
0,3,7,0,1e0,0.9,1.1
"""


IMPORTANCES = """start,end,kernel,depthwise,importance
0,1,3,0,0
1,2,3,1,0.0
2,3,3,0,-0.0
0,2,5,0,-0.5
1,3,5,0,-0.25
0,3,7,0,-1.5e0
"""


CONVOLUTIONS = """in_channels,out_channels,kernel,stride,padding,groups,height,width,batch,precision,runtime,timing,\
latency_ms
64,64,3,1,1,1,56,56,1,fp32,tensorrt-10,engine,0.1
32,32,3,2,1,32,112,112,8,fp16,tensorrt-8.2,amid-network,"0.05"
16,96,1,1,0,1,112,112,128,int8,tensorrt-10,torch-call,1.5
"""


def _functions() -> bytes:
    model = small_model()
    body = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Clip", ["b", "low", "high"], ["c"])]
    opset = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("mine", "Limited", ["a", "low", "high"], ["c"], body, opset))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    for name in ("low", "high"):
        model.graph.initializer.append(helper.make_tensor(name, onnx.TensorProto.FLOAT, [], [6.0 * (name == "high")]))
    model.graph.node[1].CopyFrom(helper.make_node("Limited", ["c", "low", "high"], ["y"], domain="mine"))
    return bytes(model.SerializeToString())


def onnx_models(bench: Bench) -> list[bytes]:
    return [*bench.output("original.onnx"), small_model("batch").SerializeToString(), _functions()]


def safetensors(_: Bench) -> list[bytes]:
    state = network().state_dict()
    return [save(state), save({f"module.{name}": value for name, value in state.items()})]


def state_dicts(bench: Bench) -> list[bytes]:
    state = network().state_dict()
    whole = {"state_dict": state, "epoch": 3, "optimizer": {"state": {0: torch.zeros(3)}, "lr": 0.1}}
    found = []
    for value, zipped in ((state, True), (whole, True), (whole, False)):
        file = io.BytesIO()
        torch.save(value, file, _use_new_zipfile_serialization=zipped)
        found.append(file.getvalue())
    return found


def rtx_plans(_: Bench) -> list[bytes]:
    heads = json.loads((TESTS / "runtimes" / "nvidia" / "assets" / "rtx_plan_heads.json").read_text())
    program = runpy.run_path(str(TESTS / "runtimes" / "nvidia" / "test_rtx_plan.py"))["PROGRAM"]
    plans = [bytes.fromhex(one["head"])[:112] + program for one in heads]
    return [plan[:16] + len(plan).to_bytes(8, "little") + plan[24:] for plan in plans]


def images(_: Bench | None = None) -> list[bytes]:
    found = []
    for form in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"):
        file = io.BytesIO()
        Image.fromarray(np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)).save(file, form)
        found.append(file.getvalue())
    return found


def refinement(_: Bench) -> list[bytes]:
    rows = [
        {"format": REFINEMENT.tag, "version": REFINEMENT.version, "settings": "ab12"},
        {"plan": "0123456789abcdef", "loss": 0.25, "onnx": "f" * 64},
        {"original_ns": 240000, "measured_ns": {"0123456789abcdef": 120000}},
    ]
    return ["".join(json.dumps(row) + "\n" for row in rows).encode()]


def tensorrt_profile(bench: Bench) -> list[bytes]:
    head, *rows = bench.profile.read_text().splitlines()
    key = {**json.loads(head), "runtime": "tensorrt", "runtime_version": "10.9.0.34"}
    return ["\n".join([json.dumps(key), *rows, ""]).encode()]


def recipes(_: Bench) -> list[bytes]:
    return [path.read_bytes() for path in sorted(RECIPES.glob("*.toml"))]


def cards(_: Bench) -> list[bytes]:
    return [path.read_bytes() for path in sorted(DEVICE_FOLDER.glob("*.toml"))]


def configurations(_: Bench) -> list[bytes]:
    demo = (TESTS.parent / "examples" / "fashion_mnist" / "demo.toml").read_bytes()
    return [
        re.sub(rb"(?m)^(task|also) .*$", b'task = "no/such.py"', demo, count=1),
        b'method = "depth"\nalpha = 1.0\nspeedup = 1.8\nprecision = "fp16"\nrefine = 3\ndevice = "cpu"\n',
    ]


def arrays(_: Bench) -> list[bytes]:
    found = []
    for array in (
        np.arange(40 * 3 * 8 * 8, dtype=np.float32).reshape(40, 3, 8, 8),
        np.arange(40 * 9 * 9 * 3).reshape(40, 9, 9, 3).astype(np.uint8),
    ):
        file = io.BytesIO()
        np.save(file, array)
        found.append(file.getvalue())
    return found
