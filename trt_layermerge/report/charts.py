"""The pictures of a report: each a function from rows to a part of a page; matplotlib draws them (``svg``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import log10

from markupsafe import Markup
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from trt_layermerge.report.evidence import ChoiceRow, FrontierPoint
from trt_layermerge.report.summary import FATES
from trt_layermerge.report.svg import Picture, colour

LABELLED = 12
"""Most rows of a picture that has a name for each."""


@dataclass(frozen=True)
class Mark:
    """Points that stand out of a picture: a name for all of them, where they are, a colour and a tip for each."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: str
    tips: tuple[str, ...]
    symbol: str = "o"


@dataclass(frozen=True)
class Bar:
    """A latency in ms with its interval, or none."""

    name: str
    value: float
    interval: tuple[float, float] | None
    colour: str
    tip: str


def frontier_chart(points: Sequence[FrontierPoint], marks: Iterable[Mark], budget_ms: float | None) -> Markup:
    """Objective over latency: what every budget gives, and what was chosen.

    Latencies that are predicted by differences may come out as nothing or less, which no logarithmic axis holds.
    """
    picture = Picture("frontier")
    axes, points = picture.axes, [one for one in points if one.latency_ns > 0]
    x, y = [one.latency_ns / 1e6 for one in points], [one.objective for one in points]
    axes.step(x, y, where="post", color=colour("muted"), linewidth=1.4, label="best plan for each budget")
    dots = axes.scatter(x, y, s=9, color=colour("muted"))
    picture.tell(dots, [f"{one.latency_ns / 1e6:.4g} ms\nobjective {one.objective:+.4f}" for one in points])
    if budget_ms is not None:
        axes.axvline(budget_ms, color=colour("warn"), linestyle="--", linewidth=1, label="budget")
    _draw(picture, map(_right_of_zero, marks))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    _logarithmic(picture, (one.objective for one in points))
    axes.set(xlabel="predicted latency, ms", ylabel="objective (larger is better)")
    picture.legend()
    return picture.markup("The frontier: predicted latency against objective, with the chosen plan")


def choices_chart(rows: Sequence[ChoiceRow]) -> Markup:
    """Importance against latency: what each choice costs, over what it saves."""
    picture = Picture("choices", width=8.2, height=4.0)
    axes = picture.axes
    for kind in dict.fromkeys(one.kind for one in rows):
        for planned in (False, True):
            own = [one for one in rows if (one.kind, one.planned) == (kind, planned)]
            if not own:
                continue
            dots = axes.scatter(
                [one.saved_ns / 1e6 for one in own],
                [one.loss for one in own],
                s=52 if planned else 16,
                color=colour(kind),
                alpha=1 if planned else 0.55,
                edgecolors=colour("text") if planned else "none",
                linewidths=1.3 if planned else 0,
                zorder=4 if planned else 3,
                label=f"{FATES[kind]}, in the plan" if planned else FATES[kind],
            )
            picture.tell(dots, [_told(one) for one in own])
    axes.axhline(0, color=colour("muted"), linewidth=0.8)
    _logarithmic(picture, (one.loss for one in rows))
    axes.set(xlabel="saved by the choice, ms", ylabel="rise of the held-out loss")
    picture.legend(columns=6)
    return picture.markup("Every choice: the rise of the loss against the latency that it saves")


def bars_chart(name: str, bars: Sequence[Bar], label: str) -> Markup:
    """Latencies beside each other, with their intervals."""
    picture = Picture(name, height=0.75 + 0.42 * len(bars))
    axes = picture.axes
    places = range(len(bars), 0, -1)
    axes.barh(list(places), [one.value for one in bars], height=0.62, color=[colour(one.colour) for one in bars])
    ends = max((one.interval[1] if one.interval else one.value) for one in bars)
    for place, one in zip(places, bars, strict=True):
        if one.interval is not None:
            low, high = one.interval
            axes.errorbar(
                [one.value], [place], xerr=[[one.value - low], [high - one.value]], color=colour("text"), capsize=3
            )
        axes.annotate(f"{one.value:.4g}", (ends * 1.03, place), va="center", color=colour("text"))
    dots = axes.scatter([one.value for one in bars], list(places), s=120, alpha=0)
    picture.tell(dots, [one.tip for one in bars])
    axes.set_yticks(list(places), [one.name for one in bars])
    axes.set(xlabel="ms", xlim=(0, ends * 1.18), ylim=(0.4, len(bars) + 0.6))
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    return picture.markup(label)


def agreement_chart(points: Sequence[tuple[float, float]], tips: Sequence[str], chosen: int | None) -> Markup:
    """Predicted against measured latencies, and the line where both are the same."""
    picture = Picture("agreement", width=5.2, height=3.6)
    axes = picture.axes
    low, high = min(map(min, points)), max(map(max, points))
    room = 0.08 * (high - low or high)
    ends = [low - room, high + room]
    axes.plot(ends, ends, color=colour("muted"), linewidth=1, linestyle="--", label="as predicted")
    colours = [colour("accent") if number == chosen else colour("fit") for number in range(len(points))]
    x, y = zip(*points, strict=True)
    picture.tell(axes.scatter(x, y, s=34, color=colours, zorder=3), tips)
    axes.set(xlabel="predicted, ms", ylabel="measured, ms", xlim=ends, ylim=ends)
    picture.legend()
    return picture.markup("Predicted against measured latencies")


@dataclass(frozen=True)
class RatioRow:
    """A ratio with its interval, and a colour that says what it means."""

    name: str
    value: float
    interval: tuple[float, float]
    colour: str
    tip: str


def ratios_chart(rows: Sequence[RatioRow], tolerance: float) -> Markup:
    """Ratios with their intervals, one under the other, and the band that does not matter."""
    named = len(rows) <= LABELLED
    picture = Picture("ratios", width=7.4, height=0.9 + (0.34 if named else 0.05) * min(len(rows), 100))
    axes = picture.axes
    axes.axvspan(1 / (1 + tolerance), 1 + tolerance, color=colour("line"), alpha=0.6, linewidth=0)
    axes.axvline(1, color=colour("muted"), linewidth=1)
    for place, one in enumerate(rows):
        axes.plot(one.interval, [place, place], color=colour(one.colour), linewidth=1.6)
    colours = [colour(one.colour) for one in rows]
    dots = axes.scatter([one.value for one in rows], range(len(rows)), s=20, color=colours, zorder=3)
    picture.tell(dots, [one.tip for one in rows])
    axes.set_yticks(range(len(rows)) if named else [], [one.name for one in rows] if named else [])
    axes.set(xlabel="new over baseline", ylim=(len(rows) - 0.4, -0.6))
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    return picture.markup("Ratios of new over baseline with their intervals")


def losses_chart(marks: Sequence[Mark], original: float) -> Markup:
    """Held-out loss over speed-up: what each budget costs before any training."""
    picture = Picture("losses", width=7.4, height=3.8)
    axes = picture.axes
    axes.axhline(original, color=colour("muted"), linestyle="--", linewidth=1, label="original")
    for mark in marks:
        if len(mark.points) > 1:
            axes.plot(*zip(*mark.points, strict=True), color=colour(mark.colour), linewidth=1.2, alpha=0.6)
    _draw(picture, marks)
    axes.set(xlabel="speed-up", ylabel="held-out loss, nothing trained")
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter("{x:g}x")
    picture.legend()
    return picture.markup("Speed-up against held-out loss for each budget")


def _draw(picture: Picture, marks: Iterable[Mark]) -> None:
    for mark in marks:
        if mark.points:
            x, y = zip(*mark.points, strict=True)
            size = 90 if mark.symbol == "*" else 42
            drawn = picture.axes.scatter(
                x, y, s=size, marker=mark.symbol, color=colour(mark.colour), zorder=4, label=mark.name
            )
            picture.tell(drawn, mark.tips)


def _right_of_zero(mark: Mark) -> Mark:
    there = [(point, tip) for point, tip in zip(mark.points, mark.tips, strict=True) if point[0] > 0]
    return replace(mark, points=tuple(point for point, _ in there), tips=tuple(tip for _, tip in there))


def _told(one: ChoiceRow) -> str:
    return f"{one.key}\nsaves {one.saved_ns / 1e6:.4g} ms\nraises the loss by {one.loss:+.4f}" + (
        "\nin the plan" if one.planned else ""
    )


def _logarithmic(picture: Picture, values: Iterable[float]) -> None:
    """Draw the values of the y axis to their logarithms, and below about a hundredth of the largest to scale."""
    small = max((abs(value) for value in values), default=0.0) / 100 or 1e-6
    picture.axes.set_yscale("symlog", linthresh=10.0 ** round(log10(small)))  # where it is labelled
    picture.axes.yaxis.set_major_formatter("{x:g}")
