"""Drawings as text for a page: SVG that follows the page's colours, PNG as data."""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

# matplotlib knows no CSS variables: it draws in these colours, which are then replaced, so
# that the figure follows the page from light to dark.
_DRAWN = {
    name: f"#{number:06d}"
    for number, name in enumerate(
        (
            *("ink", "muted", "hairline", "paper"),
            *("blue", "red", "orange", "teal", "purple", "amber", "grey"),
        ),
        1,
    )
}
_INK, _MUTED, _HAIRLINE, _PAPER = list(_DRAWN.values())[:4]
# Of lines that share a colour, as in SVG: the first is solid.
DASHES = ("", "7 3", "2.5 2.5", "8 3 2 3")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gpe",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _HAIRLINE,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": _HAIRLINE,
    "grid.linewidth": 0.6,
    "lines.markersize": 6,
    "xtick.color": _HAIRLINE,
    "xtick.labelcolor": _MUTED,
    "ytick.color": _HAIRLINE,
    "ytick.labelcolor": _MUTED,
    "ytick.major.size": 0,
}


def drawing(content: str, *, box: str, alt: str, style: str = "") -> str:
    """SVG of ``content``, in the coordinates of ``box``; ``style`` is a class in ``style.css``."""
    shown = f' class="{style}"' if style else ""
    return f'<svg{shown} viewBox="{box}" role="img" aria-label="{escape(alt)}">{content}</svg>'


@dataclass(frozen=True)
class Line:
    """One run in a figure.

    Attributes:
        points: the metric by epoch.
        marked: the epoch to mark with a dot.
        colour: a name in ``style.css``, such as ``"blue"``.
        width: of the line, in points.
        dashes: lengths of stroke and gap as in SVG; empty is a solid line.
    """

    points: dict[int, float]
    marked: int
    colour: str
    width: float
    dashes: str


def curves(lines: Sequence[Line], *, percent: bool, chance: float | None = None) -> str:
    """A metric by epoch as inline SVG; ``chance`` is the level of guessing, dotted."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.6, 2.3), layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            colour = _DRAWN[line.colour]
            style: dict[str, Any] = {"color": colour, "linewidth": line.width}
            style["linestyle"] = _linestyle(line.dashes)
            axes.plot(list(line.points), list(line.points.values()), **style)
            marked = line.points[line.marked]
            axes.plot(line.marked, marked, "o", color=colour, markeredgecolor=_PAPER)
        if chance is not None:
            axes.axhline(chance, color=_MUTED, linewidth=1, linestyle=(0, (1, 3)))
        if percent:
            axes.set(ylim=(-3, 103), yticks=range(0, 101, 25))
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.margins(x=0.04)
        return _svg(figure)


@dataclass(frozen=True)
class BandLine:
    """One row of a table in a figure, against shift or against how much was removed.

    Attributes:
        points: mean and both ends of its band, by place along the axis.
        paper: the paper's values by place.
        colour: a name in ``style.css``.
        dashes: as of :class:`Line`.
    """

    points: dict[float, tuple[float, float, float]]
    paper: dict[float, float]
    colour: str
    dashes: str


def by_shift(lines: Sequence[BandLine]) -> str:
    """Consistency by shift as inline SVG: a band is an interval, a diamond the paper's value."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3), layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            colour, shifts = _DRAWN[line.colour], list(line.points)
            means, lows, highs = zip(*line.points.values(), strict=True)
            axes.fill_between(shifts, lows, highs, color=colour, alpha=0.15, linewidth=0)
            style: dict[str, Any] = {"linewidth": 1.8, "linestyle": _linestyle(line.dashes)}
            axes.plot(shifts, means, color=colour, **style)
            axes.plot(shifts, means, "o", color=colour, markersize=4, markeredgecolor=_PAPER)
            # Above all lines, and hollow: not measured here.
            style = {"markerfacecolor": _PAPER, "markeredgewidth": 1.6, "zorder": 3}
            axes.plot(list(line.paper), list(line.paper.values()), "D", color=colour, **style)
        axes.set_xticks(sorted({shift for line in lines for shift in line.points}))
        axes.set_xlabel("maximum shift (px)")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.yaxis.set_major_formatter("{x:g} %")
        axes.margins(x=0.03)
        return _svg(figure)


def panel(
    lines: Sequence[BandLine],
    *,
    label: str,
    limits: tuple[float, float],
    level: float | None = None,
    size: tuple[float, float] = (2.7, 2.1),
) -> str:
    """One of several plots beside one another, as inline SVG.

    Args:
        lines: the first lies lowest.
        label: of the axis along which the points lie.
        limits: of the other axis, the same in all panels that are to be compared.
        level: a value to mark all along, dotted.
        size: width and height in inches; text keeps its size, so that a wide panel has less.
    """
    with matplotlib.rc_context({**_STYLE, "font.size": 8}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            colour, places = _DRAWN[line.colour], list(line.points)
            means, lows, highs = zip(*line.points.values(), strict=True)
            if lows != highs:
                axes.fill_between(places, lows, highs, color=colour, alpha=0.22, linewidth=0)
            style: dict[str, Any] = {"linewidth": 1.6, "linestyle": _linestyle(line.dashes)}
            axes.plot(places, means, color=colour, **style)
            style = {"markerfacecolor": _PAPER, "markeredgewidth": 1.4, "zorder": 3}
            paper = list(line.paper), list(line.paper.values())
            axes.plot(*paper, "D", color=colour, markersize=4.5, **style)
        if level is not None:
            axes.axhline(level, color=_MUTED, linewidth=1, linestyle=(0, (1, 3)))
        axes.set(xlabel=label, ylim=limits)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.margins(x=0.02)
        return _svg(figure)


def miss_curves(
    lines: Sequence[tuple[np.ndarray, str, str]], *, size: tuple[float, float] = (2.7, 2.1)
) -> str:
    """Miss rates against false positives per image as inline SVG, both axes logarithmic.

    Args:
        lines: false positives and miss rates ``[2,k]``, colour and dashes of each.
        size: width and height in inches.
    """
    with matplotlib.rc_context({**_STYLE, "font.size": 8}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        for (false, missed), colour, dashes in lines:
            style: dict[str, Any] = {"linewidth": 1.4, "linestyle": _linestyle(dashes)}
            axes.plot(false, missed, color=_DRAWN[colour], **style)
        axes.set(xscale="log", yscale="log", xlim=(0.008, 1.2), xlabel="false positives per image")
        low = min(float(curve[1][curve[0] <= 1.2].min(initial=1)) for curve, *_ in lines)
        ticks = [tick for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1) if tick >= low / 2]
        axes.set_ylim(min(ticks[0], max(low, 1e-3)), 1.05)
        axes.set_yticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
        axes.set_xticks([0.01, 0.1, 1], ["0.01", "0.1", "1"])
        axes.minorticks_off()
        return _svg(figure)


def limits(lines: Sequence[BandLine], *levels: float) -> tuple[float, float]:
    """Of an axis that shows all of ``lines`` and ``levels`` with some air around."""
    values = [value for line in lines for point in line.points.values() for value in point]
    values += [value for line in lines for value in line.paper.values()]
    low, high = min([*values, *levels]), max([*values, *levels])
    air = 0.05 * (high - low) or 1.0
    return low - air, high + air


def png(pixels: np.ndarray, *, blend: bool = True) -> str:
    """``pixels`` uint8 ``[H,W,3]`` or ``[H,W,4]`` as a ``data:`` address, at most 320 a side.

    What is larger becomes smaller, by blending pixels or, where colours stand for classes, by
    leaving some out.
    """
    image = Image.fromarray(pixels)
    image.thumbnail((320, 320), Image.Resampling.BICUBIC if blend else Image.Resampling.NEAREST)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _linestyle(dashes: str) -> tuple[int, list[float] | None]:
    return 0, [float(length) for length in dashes.split()] or None


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(
        file,
        format="svg",
        transparent=True,
        # Neither a date, for the same page every time, nor addresses of vocabularies.
        metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
    )
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    # Names of groups repeat from figure to figure, and nothing refers to them.
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    for name, colour in _DRAWN.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg
