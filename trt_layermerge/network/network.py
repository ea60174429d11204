"""A network as the other packages see it: its normal form, and the chains found in it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import fx, nn

from trt_layermerge.errors import ModelError, UsageError
from trt_layermerge.network.chain import Break, Chain, Layer
from trt_layermerge.network.channel_group import ChannelGroup, FixedChannels
from trt_layermerge.network.channel_groups import find_channel_groups
from trt_layermerge.network.discover import find_chains
from trt_layermerge.network.inputs import Input, as_inputs, resized
from trt_layermerge.network.outputs import output_names, output_node
from trt_layermerge.network.region import Gap, Region
from trt_layermerge.network.regions import find_regions
from trt_layermerge.network.source import load_source
from trt_layermerge.network.trace import normal_form
from trt_layermerge.network.units import SHARED
from trt_layermerge.network.unwrap import unwrapped
from trt_layermerge.usercode import user_code


@dataclass(frozen=True)
class Network:
    """A traced CNN.

    Attributes:
        name: The spec that it came from.
        module: The normal form: trainable, with the source's state-dict names.
        inputs: What it takes.
        chains: Its chains, in order of execution, those inside of any region in a row.
        breaks: Where chains end and which convolutions are in none, with reasons.
        content: Hash of the file that holds the whole network, if one does: names and numbers alone do not tell what
            is computed with them.
        source: What it was traced from, as it computes; ``None`` for a network that was put together here.
        notes: What was done to the source, or found beside it, that its user should know.
        gaps: What lies between layers of chains and is no layer.
        regions: Parts with such gaps that one convolution may replace.
    """

    name: str
    module: fx.GraphModule
    inputs: tuple[Input, ...]
    chains: tuple[Chain, ...]
    breaks: tuple[Break, ...]
    content: str = ""
    source: nn.Module | None = None
    notes: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = ()
    regions: tuple[Region, ...] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of its outputs, in order."""
        return output_names(self.module)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample of its first input, without the batch."""
        return self.inputs[0].shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one sample of its first output, without the batch; empty where it is not always the same."""
        shape: tuple[int, ...] = output_node(self.module.graph).all_input_nodes[0].meta.get("shape", ())
        return shape

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of all chains."""
        return tuple(layer for chain in self.chains for layer in chain.layers)

    @property
    def channel_groups(self) -> tuple[ChannelGroup, ...]:
        """Channels that may be left out together."""
        return self._channels[0]

    @property
    def fixed_channels(self) -> tuple[FixedChannels, ...]:
        """What convolutions make and none of which may be left out, with reasons."""
        return self._channels[1]

    @cached_property
    def _channels(self) -> tuple[tuple[ChannelGroup, ...], tuple[FixedChannels, ...]]:
        return find_channel_groups(self.module, self.chains)

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 of the state as it was when first asked for: names and numbers, and the file that holds it all."""
        digest = hashlib.sha256(self.content.encode())
        for name, value in sorted(self.module.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()


def trace(
    name: str,
    source: nn.Module,
    given: Sequence[int] | Sequence[Input],
    content: str = "",
    notes: Sequence[str] = (),
) -> Network:
    """Bring a module into normal form and find its chains.

    Args:
        name: What to call it.
        source: The module; it is left as it was.
        given: Its inputs, in the order of its arguments; a shape alone means one of real numbers.
        content: Hash of the file that holds the whole network, if one does.
        notes: What its user should know of it already.

    Raises:
        ModelError: It cannot be traced, or there is no convolution in it that we can work on.
    """
    inputs = as_inputs(given)
    with user_code(f"cannot trace {name}", ModelError):  # forward() is the user's
        source, found = unwrapped(source)
        module = normal_form(source, inputs)
    chains, breaks = find_chains(module)
    if not chains:
        reasons = "; ".join(dict.fromkeys(f"{item.after}: {item.reason}" for item in breaks))
        raise ModelError(
            f"{name} has no convolution to work on" + (f" ({reasons})" if reasons else ""),
            hint="only 2-D convolutions can be merged"
            if any(item.reason != SHARED for item in breaks) or not breaks
            else "give what is called several times as a network by itself, and call what is delivered as often",
        )
    return Network(
        name, module, inputs, chains, breaks, content, source, (*notes, *found), *find_regions(module, chains)
    )


def load_network(spec: str, weights: Path | None = None, input_shape: tuple[int, ...] | None = None) -> Network:
    """Load a model spec with its weights and trace it; what was done to them is logged as a warning.

    Args:
        spec: See ``source.py``.
        weights: A checkpoint; without one the network has the weights that its factory gives it.
        input_shape: Shape of one sample, of the first input where there are several; needed where the source does
            not tell it.

    Raises:
        ModelError: The network, its weights or its graph cannot be used.
        UsageError: The input shape is not known.
    """
    source = load_source(spec, weights)
    inputs, shape = source.inputs, input_shape or source.input_shape
    if not inputs and shape is None:
        raise UsageError(
            f"the input shape of {spec} is not known",
            hint="pass --input CxHxW; a factory may have INPUT_SHAPE = (C, H, W) beside it",
        )
    if shape is not None:
        inputs = resized(inputs or (Input(source.input_name, shape),), shape)
    network = trace(spec, source.module, inputs, source.content, source.notes)
    for note in network.notes:
        logging.getLogger(__name__).warning("%s: %s", spec, note)
    return network
