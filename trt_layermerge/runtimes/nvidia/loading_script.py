"""Python that loads a plan and runs it once, with tensors of torch for memory; its calls are ``trt_engine.py``'s.

Checked against the bindings' names and run on a double; no GPU has run it yet.
"""

from __future__ import annotations

from collections.abc import Mapping

from trt_layermerge.runtimes.base import Shape


def loading_script(module: str, engine: str, inputs: Mapping[str, tuple[Shape, str]]) -> list[str]:
    """The script's lines.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``.
        engine: Name of the plan's file, beside the script.
        inputs: Shape and NumPy's type of each, by name.
    """
    tensors = [f"    {name!r}: torch.zeros({shape}, dtype=torch.{kind})," for name, (shape, kind) in inputs.items()]
    return [
        "from pathlib import Path",
        "",
        f"import {module} as trt",
        "import torch",
        "",
        f"plan = Path(__file__).with_name({engine!r}).read_bytes()",
        "engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(plan)",
        "context = engine.create_execution_context()",
        "inputs = {",
        *tensors,
        "}",
        "tensors = {name: tensor.cuda() for name, tensor in inputs.items()}",
        "for name, tensor in tensors.items():",
        "    context.set_input_shape(name, tuple(tensor.shape))",
        "for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):",
        "    if name not in tensors:  # an output; its type is that of torch with the same name",
        "        kind = getattr(torch, trt.nptype(engine.get_tensor_dtype(name)).__name__)",
        '        tensors[name] = torch.empty(tuple(context.get_tensor_shape(name)), dtype=kind, device="cuda")',
        "    context.set_tensor_address(name, tensors[name].data_ptr())",
        "context.execute_async_v3(torch.cuda.current_stream().cuda_stream)",
        "torch.cuda.synchronize()",
        "print({name: tuple(tensor.shape) for name, tensor in tensors.items() if name not in inputs})",
    ]
