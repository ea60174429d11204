"""What all tests share: checked shapes, one profile for hypothesis, one torch thread, small networks."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

assert not any(name.startswith("trt_layermerge.merging") for name in sys.modules), "imported too early to be checked"
install_import_hook("trt_layermerge.merging", "beartype.beartype")

from tests.doubles.fixtures import doubles  # noqa: E402
from trt_layermerge.network.discover import find_chains  # noqa: E402
from trt_layermerge.network.inputs import as_inputs  # noqa: E402
from trt_layermerge.network.network import Network  # noqa: E402

__all__ = ["doubles"]

settings.register_profile("default", deadline=None, max_examples=40)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.register_profile("fuzz", settings.get_profile("default"), max_examples=1000, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # jobs of tests and what they start keep to it


class _Tracer(fx.Tracer):
    """Looks into no convolution, ours neither."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Conv2d) or super().is_leaf_module(module, name)


def quick_network(source: nn.Module, input_shape: tuple[int, ...]) -> Network:
    """A network from modules and ``+`` alone, without the seconds that ``torch.export`` takes."""
    module = fx.GraphModule(source, _Tracer().trace(source.eval()))
    called: set[str] = set()
    for node in [node for node in module.graph.nodes if node.op == "call_module"]:
        part = module.get_submodule(node.target)
        if isinstance(part, nn.Identity):
            node.replace_all_uses_with(node.all_input_nodes[0])
            module.graph.erase_node(node)
        elif node.target in called and not list(part.parameters()):
            node.target = f"{node.target}_{len(called)}"  # an activation for each call, as the normal form has it
            module.add_submodule(node.target, part)
        called.add(node.target)
    module.recompile()
    ShapeProp(module).propagate(torch.zeros(2, *input_shape))
    for node in module.graph.nodes:
        node.meta["shape"] = tuple(node.meta["tensor_meta"].shape[1:]) if "tensor_meta" in node.meta else ()
    return Network("quick", module, as_inputs(input_shape), *find_chains(module))


@pytest.fixture(scope="session")
def quick() -> Callable[[nn.Module, tuple[int, ...]], Network]:
    return quick_network


@pytest.fixture(scope="session")
def random_plans() -> ModuleType:
    """The code of ``benchmarks/random_plans.py``, which makes and checks random plans."""
    path = Path(__file__).parents[1] / "benchmarks" / "random_plans.py"
    spec = importlib.util.spec_from_file_location("random_plans", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what the contract tests counted; here, for with several processes the first one reads no other conftest."""
    passed = terminalreporter.getreports("passed")
    lines = sorted({str(text) for report in passed for name, text in report.user_properties if name == "contract"})
    if lines:
        terminalreporter.section("names that our source touches, in the genuine bindings")
    for line in lines:
        terminalreporter.write_line(line)
