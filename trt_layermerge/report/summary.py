"""What is told of a finished job, as values: the terminal and the page draw these and calculate nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trt_layermerge.delivery.manifest import Figures, Manifest
from trt_layermerge.delivery.per_network import PerNetwork
from trt_layermerge.merging.proof import BLOCK_TOLERANCE, NETWORK_TOLERANCE
from trt_layermerge.precision.tolerance import OUTPUT_TOLERANCE
from trt_layermerge.report.evidence import NO_EVIDENCE, Evidence, LayerRow

_COUNTS = {
    "layers": "convolutions",
    "depth": "convolutions in a row",
    "parameters": "",
    "flops": "for one image",
    "peak_activation_bytes": "",
    "launches": "kernels of one run",
}
"""Fields of ``Figures`` that are whole numbers, in the order in which they are told, and what they count."""

FATES = {"keep": "kept", "merge": "merged", "fit": "fitted", "identity": "dropped"}
"""What becomes of a block, in words."""

NAMED = 6
"""Most layers of a block that are told by name."""


_TIMES = {
    "latency_p90_ms": ("90th percentile, ms", "of single runs"),
    "latency_p99_ms": ("99th percentile, ms", ""),
    "host_latency_ms": ("by the host, ms", "one request, inputs and outputs copied"),
}
"""Fields of ``Figures`` that are latencies besides the median: what they are called, and what they are of."""


@dataclass(frozen=True)
class FigureRow:
    """One figure of both networks, written out.

    Attributes:
        name: Such as ``latency, ms``.
        meaning: What it counts; empty where the name says it.
        values: Of each network.
        change: From the original to the compressed network.
    """

    name: str
    meaning: str
    values: PerNetwork[str]
    change: str


MISSED = 0.15
"""Of a prediction: the share that it may be off by before that is said."""

EXCEEDED = 0.05
"""Of a budget: the share that an engine may take longer, for as much differs between processes on a quiet machine."""

REFINE = "--refine 8 times the best plans and decides by that"
"""What to do about a plan whose prediction did not hold."""


@dataclass(frozen=True)
class Prediction:
    """What the plan said of the latency, beside what was measured.

    Attributes:
        planned_ms: As the plan said it.
        predicted_ms: The same at the speed that the machine had at the final timing.
        measured_ms: Of the engine.
        budget_ms: The budget, at that speed, too.
        error: How much more was predicted than measured, as a share of it.
        machine: How much longer the machine takes since planning, as a share.
        budget: As it was asked for.
        method: That planned.
        probability: Of meeting the budget, as the plan said it; ``None`` where it did not.
    """

    planned_ms: float
    predicted_ms: float
    measured_ms: float
    budget_ms: float
    error: float
    machine: float
    budget: str
    method: str
    probability: float | None

    @property
    def missed(self) -> bool:
        """So far off that another plan may be the better one."""
        return abs(self.error) > MISSED

    @property
    def late(self) -> bool:
        """The engine is slower than planned: far slower than was predicted, or than the budget allows."""
        return self.error < -MISSED or self.measured_ms > (1 + EXCEEDED) * self.budget_ms

    @property
    def objection(self) -> str | None:
        """What to know before the engine is taken for what was planned; ``None`` where the prediction held."""
        if not (self.late or self.missed):
            return None
        return (
            f"the engine is {'slower' if self.late else 'faster'} than planned: {self.measured_ms:.3f} ms measured, "
            f"{self.predicted_ms:.3f} ms predicted ({self.error:+.0%}), with a budget of {self.budget_ms:.3f} ms"
        )


@dataclass(frozen=True)
class ProofRow:
    """One comparison of the proof: what was compared, its relative error, and the largest that is allowed."""

    compared: str
    error: float
    allowed: float


@dataclass(frozen=True)
class ReplacedLayer:
    """A layer of the original in a block: its name, its latency in ns where it is kept, and what is told, in lines."""

    name: str
    latency_ns: int
    told: str


@dataclass(frozen=True)
class BlockRow:
    """What became of a block.

    Attributes:
        place: ``chain:from-to``.
        layers: In it.
        fate: ``keep``, ``merge``, ``fit`` or ``identity``.
        becomes: The choice, in words.
        latency_ns: Predicted, in ns.
        value: What the plan predicted of the loss, in the method's scale.
        missed: Share of the target's variance that the fit misses; ``None`` where nothing was fitted.
        refitted: The same of a layer that was kept, with weights solved again; ``None`` where they were not.
        narrowed: The channel groups of which it has fewer channels, with how many of how many.
        replaced: Its layers as they were; none where the original's latencies are not known.
    """

    place: str
    layers: int
    fate: str
    becomes: str
    latency_ns: int
    value: float
    missed: float | None
    refitted: float | None
    narrowed: tuple[str, ...]
    replaced: tuple[ReplacedLayer, ...]

    @property
    def latency_ms(self) -> float:
        """Predicted, in ms."""
        return self.latency_ns / 1e6

    @property
    def before_ms(self) -> float | None:
        """Of its layers as they were, in ms; ``None`` where that is not known."""
        return sum(one.latency_ns for one in self.replaced) / 1e6 if self.replaced else None

    @property
    def told(self) -> str:
        """What became of it and what that costs, in lines."""
        before = "" if self.before_ms is None else f", was {self.before_ms:.4g} ms"
        names = [layer.name for layer in self.replaced]
        shown = [*names[:NAMED], f"and {len(names) - NAMED} more"] if len(names) > NAMED else names
        lines = [f"block {self.place}", *shown, FATES.get(self.fate, self.fate), self.becomes]
        lines += [f"{self.latency_ms:.4g} ms{before}", f"value {self.value:+.4f}"]
        lines += [] if self.missed is None else [f"its fit misses {self.missed:.2%} of the variance"]
        lines += [] if self.refitted is None else [f"solved again, misses {self.refitted:.2%} of the variance"]
        lines += [f"narrowed: {one}" for one in self.narrowed]
        return "\n".join(lines)


@dataclass(frozen=True)
class WidthRow:
    """A channel group that was narrowed: its name, how many of its channels stay, and what the plan predicted."""

    group: str
    channels: int
    full: int
    value: float


@dataclass(frozen=True)
class Summary:
    """What is told of a finished job.

    Attributes:
        manifest: What is told as it was delivered: the device, plans that were measured, versions, hashes.
        figures: Both networks beside each other.
        accuracies: Those of them that say how good the networks are; none where the job had no task.
        prediction: Of the latency.
        proof: Of equivalence, the comparisons in their order.
        full: Layers that stay in FP32, since the precision cannot hold them.
        blocks: The plan.
        widths: Of it, the channel groups that were narrowed.
    """

    manifest: Manifest
    figures: tuple[FigureRow, ...]
    accuracies: tuple[FigureRow, ...]
    prediction: Prediction
    proof: tuple[ProofRow, ...]
    full: tuple[str, ...]
    blocks: tuple[BlockRow, ...]
    widths: tuple[WidthRow, ...]


def summarise(manifest: Manifest, evidence: Evidence = NO_EVIDENCE) -> Summary:
    """What is told of the job that a manifest is of, and of the tables that it rests on."""
    layers = () if manifest.conversion is None else manifest.conversion.layers
    return Summary(
        manifest=manifest,
        figures=tuple(_figures(manifest)),
        accuracies=tuple(_accuracy(manifest))[:1],
        prediction=prediction_of(manifest),
        proof=tuple(_proof(manifest)),
        full=tuple(layer.name for layer in layers if layer.full),
        blocks=tuple(_blocks(manifest, evidence)),
        widths=tuple(_widths(manifest)),
    )


def _figures(manifest: Manifest) -> Iterator[FigureRow]:
    yield FigureRow("latency, ms", "", manifest.figures.map(_latency), f"{manifest.speedup:.2f}x")
    yield from _latencies(manifest)
    yield from _accuracy(manifest)
    for field, meaning in _COUNTS.items():
        before, after = (getattr(figures, field) for figures in manifest.figures)
        if before is not None and after is not None:  # old manifests do not have all of them
            written = PerNetwork(f"{before:,}", f"{after:,}")
            yield FigureRow(field.replace("_", " "), meaning, written, f"{after / before - 1:+.0%}" if before else "")


def _latencies(manifest: Manifest) -> Iterator[FigureRow]:
    """What else is known of both latencies."""
    for field, (name, meaning) in _TIMES.items():
        before, after = (getattr(figures, field) for figures in manifest.figures)
        if before is not None and after is not None:
            yield FigureRow(name, meaning, PerNetwork(f"{before:.3f}", f"{after:.3f}"), f"{before / after:.2f}x")
    spreads = manifest.figures.map(lambda figures: figures.build_spread)
    if all(spread is not None for spread in spreads):
        meaning = f"standard deviation between {manifest.compressed.builds} builds, in the interval"
        yield FigureRow("builds differ by", meaning, spreads.map(lambda spread: f"{spread:.1%}"), "")
    routes = manifest.figures.map(lambda figures: figures.build_route)
    if all(route is not None for route in routes):
        yield FigureRow("build route", "", routes.map(lambda route: route or "the usual one"), "")


def _latency(figures: Figures) -> str:
    low, high = figures.latency_ci_ms
    return f"{figures.latency_ms:.3f} ({low:.3f} to {high:.3f})"


def _accuracy(manifest: Manifest) -> Iterator[FigureRow]:
    """A row of the share of right answers, or of what the metric names, and of each output that is compared.

    None where the job had no task.
    """
    before, after = (figures.accuracy for figures in manifest.figures)
    if before is None or after is None:
        return
    shares = manifest.agreement is not None and all(0 <= value <= 1 for value in (before, after))
    if manifest.metric is None or shares:
        written, change = PerNetwork(f"{before:.2%}", f"{after:.2%}"), f"{100 * (after - before):+.2f} points"
    else:
        written, change = PerNetwork(f"{before:.4g}", f"{after:.4g}"), f"{after - before:+.2g}"
    yield FigureRow(f"test {manifest.metric or 'accuracy'}", "", written, change)
    for name, value in (manifest.agreement or {}).items():
        if len(manifest.agreement or {}) > 1:
            yield FigureRow(f"agreement of {name}", "", PerNetwork("", f"{value:.2%}"), "")


def prediction_of(manifest: Manifest) -> Prediction:
    """What the plan said of the latency, beside what was measured."""
    predicted, measured = manifest.predicted_latency_ms, manifest.compressed.latency_ms
    return Prediction(
        planned_ms=manifest.plan["latency_ns"] / 1e6,
        predicted_ms=predicted,
        measured_ms=measured,
        budget_ms=manifest.plan["budget_ns"] * manifest.drift / 1e6,
        error=predicted / measured - 1,
        machine=manifest.drift - 1,
        budget=manifest.plan["budget"],
        method=manifest.plan["method"],
        probability=manifest.probability,
    )


def _proof(manifest: Manifest) -> Iterator[ProofRow]:
    proof = manifest.proof
    parts = f"{proof.merged_blocks} merged blocks and {proof.folded_norms} folded norms"
    yield ProofRow(f"{parts} with their unmerged form, the worst, float64", proof.worst_block, BLOCK_TOLERANCE)
    yield ProofRow("merged network with the linearised one, float32", proof.merge_end_to_end, NETWORK_TOLERANCE)
    yield ProofRow("delivered network with the trained one, float32", proof.fold_end_to_end, NETWORK_TOLERANCE)
    engine = f"engine with the PyTorch network, {proof.samples} real inputs"
    yield ProofRow(engine, proof.engine, OUTPUT_TOLERANCE[manifest.device.precision])


def _widths(manifest: Manifest) -> Iterator[WidthRow]:
    for width in manifest.plan.get("widths", ()):
        if width["channels"] < width["full"]:
            yield WidthRow(width["group"], width["channels"], width["full"], width["value"])


def _blocks(manifest: Manifest, evidence: Evidence) -> Iterator[BlockRow]:
    full = {width["group"]: width["full"] for width in manifest.plan.get("widths", ())}
    for item in manifest.plan["items"]:
        narrowed = [(key, channels) for key, channels in item.get("widths", ()) if channels < full[key]]
        end = item["end"] if item.get("end_chain") is None else f"{item['end_chain']}:{item['end']}"
        replaced = tuple(_replaced(item, evidence.layers))
        yield BlockRow(
            place=f"{item['chain']}:{item['start']}-{end}",
            layers=len(replaced) or item["end"] - item["start"],
            fate=item["kind"],
            becomes=_in_words(item["key"]),
            latency_ns=item["latency_ns"],
            value=item["value"],
            missed=manifest.proof.fitted_blocks.get(item["key"]),
            refitted=manifest.proof.refitted_layers.get(item["key"]),
            narrowed=tuple(f"{key} {channels} of {full[key]} channels" for key, channels in narrowed),
            replaced=replaced,
        )


def _in_words(key: str) -> str:
    """A choice without its block; one group, as nearly all convolutions have, is not worth a word."""
    choice = key.split(" ", 1)[1]
    return re.sub(r" g(\d+)", r", \1 groups", re.sub(r" g1\b", "", choice))


def _replaced(item: Mapping[str, Any], layers: Iterable[LayerRow]) -> Iterator[ReplacedLayer]:
    """The layers that an item of a plan takes the place of."""
    first, last = (item["chain"], item["start"]), (item.get("end_chain") or item["chain"], item["end"])
    for layer in layers:
        if first < (layer.chain, layer.index) <= last:
            told = f"{layer.name}\n{layer.operation}\n{layer.latency_ns / 1e6:.4g} ms\n{FATES.get(item['kind'], '')}"
            yield ReplacedLayer(layer.name, layer.latency_ns, told.rstrip())
