"""A matplotlib figure as a part of an HTML page: an SVG in the page's own colours and letters, with texts to hover.

Pictures carry no script and fetch nothing. Colours are names of the page's CSS variables, so that one picture is right
in a light and in a dark page; matplotlib, which knows numbers alone, is given one that stands for each name.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("text", "muted", "line", "keep", "merge", "fit", "identity", "accent", "warn", "panel")
"""CSS variables of the page that pictures are drawn in."""

_STAND_IN = {name: f"#0{number:x}fe{number:02x}" for number, name in enumerate(COLOURS, start=1)}
_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_TIPS = "tips-"
_SCALE, _LEAST_SCALE = 1.35, 0.86
"""Pixels of the page for a point of a picture: at most, so that all letters are of one size, and at least."""


def colour(name: str) -> str:
    """What matplotlib is given for a colour of the page."""
    return _STAND_IN[name]


class Picture:
    """One set of axes to draw on, and what is told of each thing drawn.

    Attributes:
        axes: To draw on.
    """

    def __init__(self, name: str, width: float = 5.2, height: float = 3.4) -> None:
        """Begin a picture.

        Args:
            name: Unique in the page.
            width: In inches.
            height: In inches.
        """
        self._name, self._tips = name, dict[str, Sequence[str]]()
        with rc_context(_style(name)):
            self._figure = Figure(figsize=(width, height), layout="constrained")
            self.axes: Axes = self._figure.add_subplot()
        self.axes.spines[["top", "right"]].set_visible(False)
        self.axes.grid(True, color=colour("line"), linewidth=0.5)
        self.axes.set_axisbelow(True)

    def tell(self, drawn: Artist, tips: Sequence[str]) -> None:
        """What is told of each point of a collection, in the order of its points."""
        name = f"{_TIPS}{len(self._tips)}"
        drawn.set_gid(name)
        self._tips[name] = tips

    def legend(self, columns: int = 2) -> None:
        """Explain what has a label, above the axes, where it covers nothing."""
        self.axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.0),
            ncols=columns,
            columnspacing=1.2,
            handletextpad=0.4,
            borderpad=0,
            frameon=False,
            labelcolor=colour("text"),
        )

    def markup(self, label: str) -> Markup:
        """The picture, to stand in a page.

        Args:
            label: What it shows, for those who do not see it.
        """
        file = io.StringIO()
        with rc_context(_style(self._name)):
            self._figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator")))
        root = ElementTree.fromstring(file.getvalue())
        _strip(root)
        self._attach_tips(root)
        _prefix_names(root, self._name)
        points = 72 * float(self._figure.get_figwidth())
        for size in ("width", "height"):
            root.attrib.pop(size)
        bounds = f"max-width: {_SCALE * points:.0f}px; min-width: {_LEAST_SCALE * points:.0f}px"
        root.attrib |= {"role": "img", "aria-label": label, "class": "plot", "style": bounds}
        return Markup(_in_page_colours(ElementTree.tostring(root, encoding="unicode")))

    def _attach_tips(self, root: ElementTree.Element) -> None:
        for element in root.iter(f"{{{_SVG}}}g"):
            tips = self._tips.get(element.get("id", ""))
            if tips is not None:
                # Few points are a path each, and many are uses of one that is defined beside them.
                points = list(element.iter(f"{{{_SVG}}}use")) or element.findall(f"{{{_SVG}}}path")
                for point, tip in zip(points, tips, strict=True):
                    point.set("data-tip", tip)


def _style(name: str) -> Any:  # matplotlib types the keys, one by one
    text, muted, line = colour("text"), colour("muted"), colour("line")
    return {
        "svg.fonttype": "none",  # text stays text: it is searched, read aloud and set in the page's letters
        "svg.hashsalt": name,  # the same picture has the same bytes
        "font.size": 9.0,
        "text.parse_math": False,  # names are not formulas, whatever is in them
        "text.color": text,
        "axes.labelcolor": muted,
        "axes.edgecolor": line,
        "xtick.color": line,
        "ytick.color": line,
        "xtick.labelcolor": muted,
        "ytick.labelcolor": muted,
        "legend.fontsize": 8.5,
    }


def _strip(root: ElementTree.Element) -> None:
    """Without rules of style, which would hold for the whole page, and what says nothing in it."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)


def _prefix_names(root: ElementTree.Element, prefix: str) -> None:
    """Several pictures share a page, and so the names in it."""
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id" and element.tag == f"{{{_SVG}}}g":
                del element.attrib[key]  # nothing refers to it
            elif key == "id":
                element.set(key, f"{prefix}-{value}")
            elif key == _LINK:
                del element.attrib[_LINK]
                element.set("href", f"#{prefix}-{value.removeprefix('#')}")
            elif "url(#" in value and key != "data-tip":
                element.set(key, value.replace("url(#", f"url(#{prefix}-"))
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")


def _in_page_colours(svg: str) -> str:
    names = {number: name for name, number in _STAND_IN.items()}
    svg = re.sub("|".join(names), lambda found: f"var(--{names[found[0]]})", svg)
    return re.sub(r"(font(?:-family)?): ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1: \2inherit", svg)
