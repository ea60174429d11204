"""Model specs: where the user's network comes from, and its weights.

A spec is ``torchvision:NAME``, ``timm:NAME``, ``package.module:factory``, ``FILE.py[:factory]`` or ``FILE.onnx``; a
factory takes no arguments and returns an ``nn.Module``. Beside it may stand ``INPUT_SHAPE = (3, 32, 32)``. For several
inputs it is ``INPUTS = {"sample": (3, 32, 32), "timestep": 1000}`` in the order of ``forward()``: a shape for real
numbers, a number for one whole number below it. Weights are those of a checkpoint (``checkpoint.py``): nothing is
unpickled. An ONNX file brings its own; a checkpoint with the same names replaces them.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from trt_layermerge.errors import ModelError
from trt_layermerge.extras import install_hint
from trt_layermerge.network.inputs import INPUT, Input
from trt_layermerge.network.unwrap import in_evaluation, unwrapped
from trt_layermerge.network.weights_file import load_weights
from trt_layermerge.probe import probe
from trt_layermerge.usercode import user_code

DEFAULT_FACTORY = "model"


@dataclass(frozen=True)
class Source:
    """A network as the user gave it.

    Attributes:
        spec: What the user wrote.
        module: The network, in evaluation mode.
        input_shape: Shape of one sample where the source tells it, else ``None``.
        content: Hash of what the network computes, where that lies in a file as a whole; else empty.
        inputs: All its inputs where the source declares them by name, else none.
        input_name: Name of its one input, where it has one.
        notes: What was done to the network and its weights, in words.
    """

    spec: str
    module: nn.Module
    input_shape: tuple[int, ...] | None
    content: str = ""
    inputs: tuple[Input, ...] = ()
    input_name: str = INPUT
    notes: tuple[str, ...] = ()


def load_source(spec: str, weights: Path | None = None) -> Source:
    """Make the network of a spec and load its weights.

    Raises:
        ModelError: No such network, its factory fails, or the weights do not fit.
    """
    kind, _, name = spec.partition(":")
    shape: tuple[int, ...] | None
    content, inputs, input_name = "", tuple[Input, ...](), INPUT
    if spec.endswith(".onnx"):
        module, shape, content, inputs, input_name = _onnx(Path(spec))
    elif kind == "torchvision":
        module, shape = _torchvision(name)
    elif kind == "timm":
        module, shape = _timm(name)
    else:
        module, shape, inputs = _factory(spec)
    with user_code(f"cannot load {spec}", ModelError):  # a module may have methods of its own for all of this
        module, notes = unwrapped(module, own=True)
        if weights is not None:
            notes += load_weights(module, weights)
        module = in_evaluation(module)
    return Source(spec, module, shape, content, inputs, input_name, notes)


def _torchvision(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    models = _optional("torchvision.models")
    known = models.list_models(module=models)  # classification; the others download their backbones
    if name not in known:
        raise _unknown("torchvision", name, known)
    kwargs = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}  # else they warn of a change
    return models.get_model(name, weights=None, **kwargs), (3, 299, 299) if "inception" in name else (3, 224, 224)


def _timm(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    timm = _optional("timm")
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    module = timm.create_model(name)
    return module, tuple(module.default_cfg["input_size"])


def try_onnx(path: str) -> None:
    """Read an ONNX file and run it once; for a process that may crash.

    Raises:
        ModelError: It cannot be.
    """
    module, shape, _, inputs, _ = _onnx_here(Path(path))
    shapes = [item.shape for item in inputs] or ([shape] if shape is not None else [])
    if shapes:
        with torch.no_grad():
            module.eval()(*(torch.zeros(2, *one) for one in shapes))


_Onnx = tuple[nn.Module, tuple[int, ...] | None, str, tuple[Input, ...], str]
"""A network, the shape of its first input where the file tells it, its content, its inputs if several, and a name."""


def _onnx(path: Path) -> _Onnx:
    if not path.is_file():
        raise ModelError(f"there is no model file {path}")
    probe(try_onnx, path)
    return _onnx_here(path)


def _onnx_here(path: Path) -> _Onnx:
    from trt_layermerge.network.onnx_import.onnx_graph import read_graph  # seconds that other specs need not wait for
    from trt_layermerge.network.onnx_import.onnx_network import OnnxNetwork
    from trt_layermerge.network.onnx_import.size_limits import require_bounded
    from trt_layermerge.onnxfile import read_onnx

    proto = read_onnx(path)
    require_bounded(proto, str(path))
    content = hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()
    graph = read_graph(proto, str(path))
    known = [tuple(size for size in shape if size is not None) for shape in graph.shapes]
    open_ones = [name for name, shape, sizes in zip(graph.inputs, graph.shapes, known, strict=True) if shape != sizes]
    module = OnnxNetwork(graph, str(path))
    if len(known) == 1:
        return module, None if open_ones else known[0], content, (), graph.inputs[0]
    if open_ones:
        raise ModelError(
            f"{path} takes {len(known)} inputs and leaves sizes of {', '.join(open_ones)} open",
            hint="fix them in the file: python -m onnxruntime.tools.make_dynamic_shape_fixed",
        )
    return module, None, content, tuple(map(Input, graph.inputs, known)), graph.inputs[0]


def _optional(name: str) -> Any:
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelError(f"{package} is not installed", hint=install_hint("zoo", package)) from error


def _unknown(library: str, name: str, known: Iterable[str]) -> ModelError:
    close = difflib.get_close_matches(name, list(known), n=3)
    hint = f"did you mean {', '.join(close)}?" if close else f"{library}'s own documentation lists its models"
    return ModelError(f"{library} has no model {name!r}", hint=hint)


def _factory(spec: str) -> tuple[nn.Module, tuple[int, ...] | None, tuple[Input, ...]]:
    location, _, name = spec.rpartition(":") if ":" in spec else (spec, "", DEFAULT_FACTORY)
    if location.endswith(".py"):
        scope = _run_file(Path(location))
    elif "/" in location or not all(part.isidentifier() for part in location.split(".")) or ":" not in spec:
        raise ModelError(
            f"cannot understand the model spec {spec!r}",
            hint="write torchvision:NAME, timm:NAME, package.module:factory, FILE.py:factory or FILE.onnx",
        )
    else:
        with _importable_from(Path.cwd()):  # as with python -m; a console script does not look there
            scope = _guarded(f"import {location}", lambda: importlib.import_module(location))
    factory = getattr(scope, name, None)
    if not callable(factory):
        callables = [key for key, value in vars(scope).items() if callable(value) and not key.startswith("_")]
        close = difflib.get_close_matches(name, callables, n=3)
        raise ModelError(
            f"{location} has no function {name!r}",
            hint=f"did you mean {', '.join(close)}?" if close else f"it defines {', '.join(callables) or 'none'}",
        )
    module = _guarded(f"run {spec}", factory)
    module = module.module() if isinstance(module, ExportedProgram) else module
    if not isinstance(module, nn.Module):
        raise ModelError(f"{spec} returned {type(module).__name__}, not a torch.nn.Module")
    inputs = _declared_inputs(location, getattr(scope, "INPUTS", None))
    return module, _declared_shape(location, getattr(scope, "INPUT_SHAPE", None)), inputs


def _declared_shape(location: str, shape: Any) -> tuple[int, ...] | None:
    if shape is None:
        return None
    if not _is_shape(shape):
        raise ModelError(f"INPUT_SHAPE of {location} is {shape!r}", hint="write INPUT_SHAPE = (C, H, W)")
    return tuple(shape)


def _declared_inputs(location: str, declared: Any) -> tuple[Input, ...]:
    if declared is None:
        return ()
    hint = 'write INPUTS = {"sample": (C, H, W), "timestep": 1000}: a shape, or what whole numbers stay below'
    if not isinstance(declared, Mapping) or not declared:
        raise ModelError(f"INPUTS of {location} is {declared!r}", hint=hint)
    inputs = []
    for name, given in declared.items():
        if not isinstance(name, str) or not name or not (_is_shape(given) or _is_size(given)):
            raise ModelError(f"INPUTS of {location} has {name!r}: {given!r}", hint=hint)
        inputs.append(Input(name, (), given) if _is_size(given) else Input(name, tuple(given)))
    return tuple(inputs)


def _is_shape(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(_is_size(size) for size in value)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _run_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ModelError(f"there is no model file {path}")
    spec = importlib.util.spec_from_file_location(f"_trt_layermerge_model_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module, loader = importlib.util.module_from_spec(spec), spec.loader
    sys.modules[spec.name] = module  # dataclasses and pickling look their module up there
    with _importable_from(path.parent.resolve()):
        _guarded(f"import {path}", lambda: loader.exec_module(module))
    return module


@contextmanager
def _importable_from(folder: Path) -> Iterator[None]:
    """Let the user's code import what lies in a folder."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:  # the user's code may have changed it too
            sys.path.remove(str(folder))


def _guarded(what: str, action: Callable[[], Any]) -> Any:
    """What the user's code returns."""
    with user_code(f"cannot {what}", ModelError):
        return action()
